"""The hosts behave as machines of their own, and fail on request: otherwise the tests on them would prove nothing."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.faults.hosts import ADDRESSES, FIVE, OPT, RACKS, SHARED, Hosts, until

pytestmark = pytest.mark.timeout(900)  # one set of hosts at a time: it may wait for another test's

SSH = 22
MB = 1024**2
# Sends so many bytes to a listener, and prints after how many seconds their receipt was confirmed.
SENDER = """
import socket, sys, time
began = time.monotonic()
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30) as s:
    s.sendall(bytes(int(sys.argv[3])))
    s.shutdown(socket.SHUT_WR)
    assert s.recv(2) == b"ok"
print(time.monotonic() - began)
"""
RECEIVER = """
import socket
with socket.create_server(("", 7000)) as listener:
    while True:
        s, _ = listener.accept()
        with s:
            while s.recv(65536):
                pass
            s.sendall(b"ok")
"""


@pytest.fixture(autouse=True)
def _healthy(hosts: Hosts) -> Iterator[None]:
    """Every fault of a test is healed after it."""
    yield
    hosts.heal()


def answers(address: str, port: int = SSH) -> bool:
    """Whether a host answers this machine."""
    try:
        with socket.create_connection((address, port), timeout=1) as connection:
            connection.settimeout(1)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def sees(hosts: Hosts, host: str, other: str) -> bool:
    """Whether one host reaches another."""
    script = f"head -c 4 < /dev/tcp/{ADDRESSES[other]}/{SSH}"
    return hosts.run(host, "timeout", "1", "bash", "-c", script, check=False).stdout == "SSH-"


def send(hosts: Hosts, host: str, to: str, size: int) -> float:
    """Send bytes from one host to another that listens; gives the seconds it took."""
    return float(hosts.run(host, sys.executable, "-c", SENDER, ADDRESSES[to], "7000", str(size)).stdout)


@contextmanager
def listening(hosts: Hosts, host: str, log: Path) -> Iterator[None]:
    process = hosts.start(host, sys.executable, "-c", RECEIVER, log=log)
    try:
        until(lambda: ":7000 " in hosts.run(host, "ss", "-ltn").stdout, f"{host} listens")
        yield
    finally:
        hosts.kill(host, "create_server")
        process.wait(timeout=10)


def test_each_host_has_a_name_and_an_address_of_its_own(hosts: Hosts) -> None:
    names = {host: hosts.run(host, "hostname").stdout.strip() for host in FIVE}
    addresses = {
        host: re.findall(r"inet (10\.\S+)/24", hosts.run(host, "ip", "-4", "addr", "show", "eth0").stdout)
        for host in FIVE
    }

    assert names == {host: host for host in FIVE}
    assert addresses == {host: [ADDRESSES[host]] for host in FIVE}


def test_hosts_find_one_another_by_name(hosts: Hosts) -> None:
    assert hosts.run("a1", "getent", "ahostsv4", "b2").stdout.split()[0] == ADDRESSES["b2"]


def test_a_host_sees_its_own_processes_only(hosts: Hosts) -> None:
    seen = {host: hosts.run(host, "ps", "-eo", "args").stdout for host in ("a1", "a2")}

    assert "sshd" in seen["a1"]
    assert all(len(processes.splitlines()) < 10 for processes in seen.values()), seen
    assert "pytest" not in seen["a1"]
    # And the other way round: this machine knows which processes are whose.
    assert set(hosts.processes("a1", "sshd")).isdisjoint(hosts.processes("a2", "sshd"))


@pytest.mark.parametrize("directory", ["/dev/shm", "/tmp", "/root", OPT, f"{OPT}/state"])
def test_a_host_has_a_directory_of_its_own_there(hosts: Hosts, directory: str) -> None:
    hosts.run("a1", "touch", f"{directory}/of-a1")

    assert hosts.file("a1", f"{directory}/of-a1").exists()
    assert not hosts.file("a2", f"{directory}/of-a1").exists()
    assert not Path(f"{directory}/of-a1").exists()


def test_the_shared_directory_is_the_same_on_all_hosts(hosts: Hosts) -> None:
    hosts.run("a1", "bash", "-c", f"echo from a1 > {SHARED}/note")

    assert {hosts.run(host, "cat", f"{SHARED}/note").stdout for host in FIVE} == {"from a1\n"}


def test_a_host_knows_its_rack(hosts: Hosts) -> None:
    found = {
        host: hosts.file(host, f"{OPT}/rack").read_text().strip()
        for each in RACKS.values()
        for host in each[:2]
        if host in FIVE
    }

    assert found == {"a1": "rack-a", "a2": "rack-a", "b1": "rack-b", "b2": "rack-b"}
    assert not hosts.file("head", f"{OPT}/rack").exists()


def test_a_cut_rack_is_unreachable_while_its_hosts_see_each_other(hosts: Hosts) -> None:
    hosts.cut("rack-a")

    assert not answers(ADDRESSES["a1"])
    assert not sees(hosts, "b1", "a2")
    assert not sees(hosts, "a1", "head")
    assert sees(hosts, "a1", "a2")
    assert sees(hosts, "b1", "b2")
    assert answers(ADDRESSES["b1"])

    hosts.heal()
    until(lambda: answers(ADDRESSES["a1"]), "this machine reaches the rack again", 10)
    until(lambda: sees(hosts, "b1", "a2"), "other racks reach it again", 10)


def test_a_cut_host_is_unreachable_even_in_its_rack(hosts: Hosts) -> None:
    hosts.cut("a1")

    assert not answers(ADDRESSES["a1"])
    assert not sees(hosts, "a2", "a1")
    assert answers(ADDRESSES["a2"])

    hosts.heal()
    until(lambda: sees(hosts, "a2", "a1"), "its neighbour reaches it again", 10)


def test_a_host_that_was_switched_off_comes_back_empty_at_its_address(hosts: Hosts) -> None:
    for place in (f"{OPT}/state", "/tmp", "/root", SHARED):
        hosts.run("b2", "touch", f"{place}/earlier-life")
    processes = hosts.processes("b2")

    hosts.power_off("b2")
    until(lambda: not [pid for pid in processes if Path(f"/proc/{pid}").exists()], "its processes are gone", 5)
    assert not answers(ADDRESSES["b2"])
    assert not sees(hosts, "b1", "b2")

    hosts.power_on("b2")
    until(lambda: answers(ADDRESSES["b2"]), "this machine reaches it again", 10)
    until(lambda: sees(hosts, "b1", "b2"), "its neighbour reaches it again", 10)
    assert [
        place for place in (f"{OPT}/state", "/tmp", "/root") if hosts.file("b2", f"{place}/earlier-life").exists()
    ] == []
    assert hosts.file("b2", f"{SHARED}/earlier-life").exists()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_frozen_processes_stand_still_until_they_thaw(hosts: Hosts) -> None:
    frozen = hosts.freeze("a1", "sshd")

    assert frozen
    until(lambda: {state_of(pid) for pid in frozen} == {"T"}, "they stand still", 5)
    assert not answers(ADDRESSES["a1"])  # the kernel accepts, but no process answers

    hosts.thaw()
    until(lambda: "T" not in {state_of(pid) for pid in frozen}, "they go on", 5)
    assert answers(ADDRESSES["a1"])


def test_commands_run_on_a_frozen_host(hosts: Hosts) -> None:
    """All but its first process are stopped, so commands from here still run on it."""
    hosts.freeze("b1")

    assert hosts.run("b1", "hostname").stdout == "b1\n"
    assert not answers(ADDRESSES["b1"])


def test_a_slow_link_is_slow_towards_the_host(hosts: Hosts, tmp_path: Path) -> None:
    with listening(hosts, "a2", tmp_path / "log"):
        fast = send(hosts, "head", "a2", 4 * MB)
        hosts.slow("a2", "20mbit")
        slow = send(hosts, "head", "a2", 4 * MB)
        hosts.heal()
        healed = send(hosts, "head", "a2", 4 * MB)

    print(f"4 MB: {fast:.2f} s, over a slow link {slow:.2f} s, healed {healed:.2f} s")
    assert slow > 3 * fast
    assert slow > 3 * healed


def test_a_full_disk_is_full_on_that_host_only_until_it_heals(hosts: Hosts) -> None:
    write = ("bash", "-c", f"head -c 100000 /dev/zero > {OPT}/state/more")

    hosts.fill_disk("a1")

    assert "No space left" in hosts.run("a1", *write, check=False).stderr
    hosts.run("a2", *write)
    hosts.heal()
    hosts.run("a1", *write)


def test_a_lost_share_leaves_an_empty_directory_until_it_heals(hosts: Hosts) -> None:
    (hosts.directory / "shared" / "there").write_text("x")

    hosts.lose_share("b1")

    assert not hosts.file("b1", f"{SHARED}/there").exists()
    hosts.run("b1", "touch", f"{SHARED}/astray")
    assert hosts.file("a1", f"{SHARED}/there").exists()
    assert not hosts.file("a1", f"{SHARED}/astray").exists()
    hosts.heal()
    assert hosts.run("b1", "cat", f"{SHARED}/there").stdout == "x"


def test_uplinks_count_what_crosses_and_nothing_that_stays(hosts: Hosts, tmp_path: Path) -> None:
    with listening(hosts, "a2", tmp_path / "a2"), listening(hosts, "head", tmp_path / "head"):
        counts = [hosts.uplink_bytes("rack-a")]
        for sender, receiver in (("head", "a2"), ("a1", "head"), ("a1", "a2")):
            send(hosts, sender, receiver, 4 * MB)
            counts.append(hosts.uplink_bytes("rack-a"))

    steps = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(counts)]
    into, out_of, within = steps
    assert 4 * MB <= into[0] < 5 * MB
    assert into[1] < 0.5 * MB
    assert 4 * MB <= out_of[1] < 5 * MB
    assert out_of[0] < 0.5 * MB
    assert max(within) < 0.05 * MB


def test_a_login_finds_the_host_and_its_home(hosts: Hosts) -> None:
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
    ssh = ["ssh", "-i", str(hosts.key), *(f"-o{option}" for option in options), f"root@{ADDRESSES['b1']}"]
    done = subprocess.run(
        [*ssh, "hostname; echo $HOME; ls -A"], capture_output=True, text=True, timeout=30, check=False
    )

    assert done.stdout.split()[:2] == ["b1", "/root"], done.stderr
    assert ".bashrc" in done.stdout
