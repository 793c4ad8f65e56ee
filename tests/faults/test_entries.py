"""One address before several parents, on hosts: the shipped keepalived and HAProxy files, with real daemons.

The parents are real ones in processes of their own on two hosts; their leader and its node are in this process, over
the same store.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest

from raygrid.client import Client, sockets
from tests.faults.hosts import ADDRESSES, DESK, NET, OPT, Hosts, until
from tests.support.small_grid import SmallGrid

pytestmark = pytest.mark.timeout(900)  # one set of hosts at a time: it may wait for another test's

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"
PORT = 8000
ENTRIES = ("a1", "b1")  # in different racks
FLOATING = f"{NET}.100"
TAKE_BACK_S = 2.0  # a host that were to take the address back would wait for the three adverts of 0.3 s, and a little
HOSTS = (*ADDRESSES.values(), FLOATING, "raygrid")  # the last one is what the balancer asks for
PARENT, KEEPALIVED, HAPROXY = "lone_parent", "keepalived", "haproxy"


def require_daemons() -> None:
    """Skip where the daemons are not installed; but fail under CI, where skips are not noticed."""
    missing = [each for each in (KEEPALIVED, HAPROXY) if shutil.which(each, path=Hosts.environment()["PATH"]) is None]
    if not missing:
        return
    reason = f"tests of deploy/ need {' and '.join(missing)} (Debian: apt-get install keepalived haproxy)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def is_ready(host: str) -> bool:
    """Whether a host's parent can take jobs."""
    return _status(ADDRESSES[host], "/health/ready") == 200


@dataclass
class Entries:
    """Hosts with a parent each, and a grid behind them."""

    hosts: Hosts
    state: Path
    log: Path

    def start_parent(self, host: str) -> None:
        """Start a host's parent and wait until it takes jobs."""
        command = (sys.executable, "-m", "tests.support.lone_parent", str(self.state), str(PORT), *HOSTS)
        self.hosts.start(host, *command, log=self.log, env={"PYTHONPATH": str(PROJECT)})

    def await_ready(self, *hosts: str) -> None:
        """Wait until parents can take jobs."""
        for host in hosts:
            until(partial(is_ready, host), f"the parent of {host} is ready")

    def kill_parent(self, host: str) -> None:
        """`kill -9` a host's parent."""
        assert self.hosts.kill(host, PARENT)


@pytest.fixture(scope="module")
def entries(hosts: Hosts) -> Iterator[Entries]:
    require_daemons()
    state = hosts.directory / "shared"
    with leader_and_node(state):
        made = Entries(hosts, state, hosts.directory / "parents.log")
        try:
            for host in ENTRIES:
                made.start_parent(host)
            made.await_ready(*ENTRIES)
            yield made
        finally:
            for host in ENTRIES:
                hosts.kill(host, PARENT)


@pytest.fixture(autouse=True)
def _links_repaired(hosts: Hosts) -> Iterator[None]:
    """Every link that a test cuts is repaired after it."""
    yield
    hosts.heal()


@pytest.fixture
def visible() -> Iterator[Path]:
    """A directory that pricers see: sandboxes have a `/dev/shm` of their own, and hide the grid's state."""
    with tempfile.TemporaryDirectory(prefix="raygrid-entries-", dir="/var/tmp") as directory:
        yield Path(directory)


@contextmanager
def leader_and_node(state: Path) -> Iterator[None]:
    """A grid's leader and node in a thread; its own parent is not used."""
    up: Future[None] = Future()
    done = asyncio.Event()

    async def live() -> None:
        async with SmallGrid(state):
            up.set_result(None)
            await done.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(live(),), daemon=True)
    thread.start()
    try:
        up.result(timeout=30)
        yield
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(timeout=30)


def _status(address: str, path: str, port: int = PORT) -> int | None:
    try:
        return httpx.get(f"http://{address}:{port}{path}", timeout=1, trust_env=False).status_code
    except httpx.TransportError:
        return None


class Counting(httpx.HTTPTransport):
    """Carries requests over sockets as a client makes them, and counts the submits that were sent."""

    def __init__(self) -> None:
        super().__init__(socket_options=sockets.options())
        self.submits = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.submits += request.method == "POST"
        return super().handle_request(request)


@dataclass
class Load:
    """Submits job after job through one entry, each with a client of its own that has never seen the grid."""

    url: str
    ended_at: list[float] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)
    tries: list[int] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[Load]:
        """Submit for as long as the block lasts."""
        stop = threading.Event()
        thread = threading.Thread(target=self._submit, args=(stop,))
        thread.start()
        try:
            until(lambda: self.ended_at or self.errors, "jobs are taken")
            yield self
        finally:
            stop.set()
            thread.join(timeout=60)

    def _submit(self, stop: threading.Event) -> None:
        while not stop.wait(0.02):
            carried = Counting()
            try:
                with Client(self.url, transport=carried) as client:
                    self.submitted.append(client.submit(b"true", pricer="shell").job_id)
            except Exception as error:  # the test checks every kind of error
                self.errors.append(error)
            self.tries.append(carried.submits)
            self.ended_at.append(time.monotonic())

    def go_on(self, for_s: float) -> None:
        """Wait until jobs have been taken for so long from now on."""
        until_at = time.monotonic() + for_s
        until(lambda: self.ended_at[-1] > until_at, "jobs are taken all the time")

    def recovery_s(self, since: float) -> float:
        """Seconds from a fault to the first job taken after the longest pause that it caused."""
        ends = [since, *(at for at in self.ended_at if at > since)]
        gaps = [(later - earlier, later) for earlier, later in itertools.pairwise(ends)]
        return max(gaps)[1] - since


def recovers(load: Load, fault_at: float) -> float:
    """Wait until jobs have been taken for a while after a fault; gives the seconds for which none were."""
    until(lambda: sum(at > fault_at + 2.5 for at in load.ended_at) >= 3, "jobs are taken again", within_s=30)
    assert load.errors == []
    return load.recovery_s(fault_at)


# --- the virtual address --------------------------------------------------------------------------------------------


def keepalived_file(host: str) -> str:
    """The shipped file with a host's values, and nothing else changed."""
    others = [ADDRESSES[other] for other in ENTRIES if other != host]
    values = {
        r"router_id a1": f"router_id {host}",
        r"priority 100": f"priority {100 + len(ENTRIES) - ENTRIES.index(host)}",
        r"unicast_src_ip 10\.0\.0\.11": f"unicast_src_ip {ADDRESSES[host]}",
        r"10\.0\.0\.12\n\s+10\.0\.0\.21": "\n".join(others),
        r"10\.0\.0\.100/24": f"{FLOATING}/24",
    }
    text = (DEPLOY / "keepalived.conf").read_text()
    for shipped, ours in values.items():
        text, count = re.subn(shipped, ours, text)
        assert count == 1, f"deploy/keepalived.conf has not exactly one {shipped}"
    return text


@contextmanager
def keepalived_on(hosts: Hosts) -> Iterator[None]:
    """Daemons on all entries, with the files where an operator puts them."""
    for host in ENTRIES:
        # Each host's own /etc/keepalived; everything else of /etc is shared.
        own = hosts.file(host, f"{OPT}/keepalived")
        own.mkdir()
        (own / "keepalived.conf").write_text(keepalived_file(host))
        shutil.copy(DEPLOY / "raygrid-check-entry", own)
        hosts.run(host, "mount", "--bind", f"{OPT}/keepalived", "/etc/keepalived")
        own_pids = ("-p", "/tmp/keepalived.pid", "-r", "/tmp/vrrp.pid")
        hosts.start(host, KEEPALIVED, "--dont-fork", "--log-console", *own_pids, log=vrrp_log(hosts, host))
    try:
        yield
    finally:
        for host in ENTRIES:
            hosts.kill(host, KEEPALIVED)


def vrrp_log(hosts: Hosts, host: str) -> Path:
    return hosts.directory / f"{host}-keepalived.log"


def holders(hosts: Hosts) -> list[str]:
    """The hosts that hold the virtual address."""
    return [host for host in ENTRIES if f"{FLOATING}/" in hosts.run(host, "ip", "-4", "addr", "show", "eth0").stdout]


def only_holder(hosts: Hosts) -> str | None:
    held = holders(hosts)
    return held[0] if len(held) == 1 else None


def times_master(hosts: Hosts) -> int:
    """How often any host has taken the address so far."""
    return sum(vrrp_log(hosts, host).read_text().count("Entering MASTER STATE") for host in ENTRIES)


def until_candidate(hosts: Hosts, host: str, times: int) -> None:
    """Wait until a host has become a candidate for the address so many times."""
    log = vrrp_log(hosts, host)
    until(lambda: log.read_text().count("Entering BACKUP STATE") >= times, f"{host} is a candidate", within_s=20)


def test_the_virtual_address_moves_from_a_dead_parent_and_from_a_dead_link_and_not_back(
    entries: Entries, record_property: Callable[[str, object], None]
) -> None:
    """Every job is taken in spite of both faults; one host has the address, and a host that returns leaves it there."""
    hosts = entries.hosts
    with keepalived_on(hosts):
        # The first healthy host holds it, as none preempts.
        first = until(lambda: only_holder(hosts), "one host holds the address")
        (second,) = set(ENTRIES) - {first}
        until_candidate(hosts, second, 1)
        assert holders(hosts) == [first]
        moves = times_master(hosts)
        load = Load(f"http://{FLOATING}:{PORT}")
        with load.running():
            killed_at = time.monotonic()
            entries.kill_parent(first)
            killed_s = recovers(load, killed_at)
            assert holders(hosts) == [second]

            was_candidate = vrrp_log(hosts, first).read_text().count("Entering BACKUP STATE")
            entries.start_parent(first)
            until_candidate(hosts, first, was_candidate + 1)
            load.go_on(TAKE_BACK_S)
            assert holders(hosts) == [second], "a host that came back took the address back"

            cut_at = time.monotonic()
            hosts.cut(second)
            cut_s = recovers(load, cut_at)
            assert holders(hosts) == [first]

            was_candidate = vrrp_log(hosts, second).read_text().count("Entering BACKUP STATE")
            hosts.heal()
            until_candidate(hosts, second, was_candidate + 1)
            load.go_on(TAKE_BACK_S)
            assert holders(hosts) == [first], "a host whose link was mended took the address back"
        assert load.errors == []
        assert times_master(hosts) == moves + 2
    print(f"virtual address: parent killed {killed_s:.2f} s, link cut {cut_s:.2f} s, {len(load.submitted)} jobs")
    record_property("recovery_s", {"parent killed": killed_s, "link cut": cut_s})
    assert_all_known(load)
    assert max(killed_s, cut_s) < 15  # measured above; here only that no intervention is needed


def assert_all_known(load: Load) -> None:
    """Every acknowledged job is known to every parent."""
    for host in ENTRIES:
        with Client(f"http://{ADDRESSES[host]}:{PORT}") as client:
            assert set(load.submitted) <= {job.job_id for job in client.jobs()}


# --- the balancer ---------------------------------------------------------------------------------------------------


def haproxy_file(directory: Path) -> str:
    """The shipped file with the hosts' values, and nothing else changed."""
    text = (DEPLOY / "haproxy.cfg").read_text()
    servers = "".join(f"    server {host} {ADDRESSES[host]}:{PORT}\n" for host in ENTRIES)
    text, count = re.subn(r"(?m)(^    server .*\n)+", servers, text)
    assert count == 1
    text, count = re.subn(r"/run/haproxy/raygrid\.sock", f"{directory}/haproxy.sock", text)
    assert count == 1
    return text


@contextmanager
def haproxy_on_head(hosts: Hosts) -> Iterator[str]:
    """The balancer on the head; gives its URL."""
    config = hosts.directory / "haproxy.cfg"
    config.write_text(haproxy_file(hosts.directory))
    hosts.start("head", HAPROXY, "-W", "-db", "-f", str(config), log=hosts.directory / "haproxy.log")
    try:
        until(lambda: _status(ADDRESSES["head"], "/health/live") == 200, "the balancer answers")
        yield f"http://{ADDRESSES['head']}:{PORT}"
    finally:
        hosts.kill("head", HAPROXY)


def seen_behind(url: str) -> set[str]:
    """The parents that answer behind an entry, each over a connection of its own."""
    seen = set()
    for _ in range(6):
        with contextlib.suppress(httpx.TransportError):
            seen.add(httpx.get(f"{url}/traffic", timeout=2, trust_env=False).json()["parent"])
    return seen


def test_the_balancer_hides_a_dead_parent_and_uses_it_again_when_it_is_back(
    entries: Entries, record_property: Callable[[str, object], None]
) -> None:
    """Each job is taken after one retry at most, whether the parent is killed or its link is cut."""
    hosts = entries.hosts
    entries.await_ready(*ENTRIES)
    with haproxy_on_head(hosts) as url:
        until(lambda: len(seen_behind(url)) == 2, "both parents are used")
        load = Load(url)
        with load.running():
            killed_at = time.monotonic()
            entries.kill_parent("a1")
            killed_s = recovers(load, killed_at)
            entries.start_parent("a1")
            until(lambda: len(seen_behind(url)) == 2, "the parent that is back is used again")

            cut_at = time.monotonic()
            hosts.cut("b1")
            cut_s = recovers(load, cut_at)
            hosts.heal()
            until(lambda: len(seen_behind(url)) == 2, "the parent whose link is mended is used again")
        assert load.errors == []
        assert max(load.tries) <= 2
    print(f"balancer: parent killed {killed_s:.2f} s, link cut {cut_s:.2f} s, {len(load.submitted)} jobs")
    record_property("recovery_s", {"parent killed": killed_s, "link cut": cut_s})
    assert_all_known(load)
    assert max(killed_s, cut_s) < 15  # measured above; here only that no intervention is needed


@pytest.mark.parametrize("fault", ["killed", "cut"])
def test_a_wait_at_a_parent_that_dies_behind_the_balancer_goes_on_at_the_other(
    entries: Entries, visible: Path, fault: str
) -> None:
    """The balancer cuts the connections of a dead parent, so the client asks again at once, and gets the result."""
    hosts = entries.hosts
    entries.await_ready(*ENTRIES)
    go = visible / "go"
    with haproxy_on_head(hosts) as url, Client(url) as client:
        until(lambda: len(seen_behind(url)) == 2, "both parents are used")
        job = client.submit(f"until [ -e {go} ]; do sleep 0.05; done\necho price\n".encode(), pricer="shell")
        answered: Future[str] = Future()
        waiting = threading.Thread(target=lambda: answered.set_result(job.result(timeout=60).stdout))
        waiting.start()
        victim = until(lambda: balanced_to(hosts), "the wait is under way")
        began = time.monotonic()
        if fault == "killed":
            entries.kill_parent(victim)
        else:
            hosts.cut(victim)
        other = next(host for host in ENTRIES if host != victim)
        until(lambda: waits_at(hosts, other, ADDRESSES["head"]), "the client waits at the other parent")
        moved_s = time.monotonic() - began
        go.touch()
        assert answered.result(timeout=30) == "price\n"
        waiting.join(timeout=10)
        assert moved_s < 15
    if fault == "killed":
        entries.start_parent(victim)


def test_a_client_with_several_urls_leaves_a_machine_that_falls_silent(entries: Entries, visible: Path) -> None:
    """A waiting client gets no packet; the kernel's probes fail, and the wait goes on at the next URL."""
    hosts = entries.hosts
    entries.await_ready(*ENTRIES)
    go = visible / "go"
    with Client([f"http://{ADDRESSES[host]}:{PORT}" for host in ENTRIES]) as client:
        job = client.submit(f"until [ -e {go} ]; do sleep 0.05; done\necho price\n".encode(), pricer="shell")
        answered: Future[str] = Future()
        waiting = threading.Thread(target=lambda: answered.set_result(job.result(timeout=60).stdout))
        waiting.start()
        until(lambda: waits_at(hosts, ENTRIES[0]), "the client waits at its first URL")
        began = time.monotonic()
        hosts.cut(ENTRIES[0])
        until(lambda: waits_at(hosts, ENTRIES[1]), "the client waits at its second URL")
        moved_s = time.monotonic() - began
        go.touch()
        assert answered.result(timeout=30) == "price\n"
        waiting.join(timeout=10)
    print(f"several URLs: a wait goes on after {moved_s:.2f} s")
    assert moved_s < 15


def balanced_to(hosts: Hosts) -> str | None:
    """The parent at which the balancer waits for an answer."""
    return next((host for host in ENTRIES if waits_at(hosts, host, ADDRESSES["head"])), None)


def waits_at(hosts: Hosts, host: str, client: str = DESK) -> bool:
    """Whether a connection to a parent lasts longer than a look at its health takes."""
    lasting = connections(hosts, host, client)
    for _ in range(2):
        time.sleep(0.1)
        lasting &= connections(hosts, host, client)
    return bool(lasting)


def connections(hosts: Hosts, host: str, client: str) -> set[str]:
    """The client's ends of connections to a host's parent, as long as the host has them open."""
    there = hosts.run(host, "ss", "-tnH", "state", "established", "sport", f"= :{PORT}").stdout
    return {end for line in there.splitlines() if (end := line.split()[-1]).startswith(f"{client}:")}


# --- the files as they are shipped ----------------------------------------------------------------------------------


def test_the_shipped_files_are_valid_as_they_are(hosts: Hosts) -> None:
    """Both daemons read them without a complaint."""
    require_daemons()
    tested = hosts.run("a1", HAPROXY, "-c", "-f", str(DEPLOY / "haproxy.cfg"))
    assert "valid" in tested.stdout + tested.stderr
    checked = hosts.run("a1", KEEPALIVED, "--config-test", "-f", str(DEPLOY / "keepalived.conf"), check=False)
    assert [line for line in (checked.stdout + checked.stderr).splitlines() if "conf" in line] == []
