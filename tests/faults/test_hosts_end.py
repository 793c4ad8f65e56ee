"""Nothing of the hosts outlives the process that made them, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from raygrid.system.proc import process_table
from tests.faults import conftest
from tests.faults.hosts import CABLE, FIVE, five_hosts, until

PROJECT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)  # one set of hosts at a time: it may wait for another test's
# Prints the ids of the hosts' first processes, then stays.
OWNER = f"""
import sys, time
from tests.faults.hosts import five_hosts
with five_hosts() as hosts:
    hosts.start("a1", "sleep", "1234", log=hosts.directory / "log")
    pids = {{pid for host in {FIVE!r} for pid in hosts.processes(host)}} | {{hosts._switches.pid}}
    print(hosts.directory, *sorted(pids), flush=True)
    if sys.argv[1] == "stay":
        time.sleep(600)
"""


@dataclass
class Owner:
    """A process that has made hosts, and what belongs to it."""

    process: subprocess.Popen[str]
    directory: Path
    pids: list[int]

    @classmethod
    def make(cls, then: str) -> Owner:
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, then], stdout=subprocess.PIPE, text=True, cwd=PROJECT, env=os.environ
        )
        assert process.stdout is not None
        directory, *pids = process.stdout.readline().split()
        return cls(process, Path(directory), [int(pid) for pid in pids])

    def left(self) -> list[str]:
        """What is left of its hosts, besides the directory."""
        processes = [f"process {each.pid}" for each in process_table() if each.pid in self.pids and not each.is_zombie]
        links = [link.name for link in Path("/sys/class/net").iterdir() if link.name.startswith(("rg-", "v-"))]
        return processes + links


@pytest.fixture(autouse=True)
def _possible() -> None:
    conftest.require_hosts()


def test_after_its_block_nothing_of_the_hosts_is_left() -> None:
    owner = Owner.make("leave")
    assert owner.process.wait(timeout=60) == 0

    assert len(owner.pids) > 2 * len(FIVE)
    assert owner.left() == []
    assert not owner.directory.exists()


def test_hosts_die_with_an_owner_that_is_killed_and_the_next_ones_clear_up() -> None:
    owner = Owner.make("stay")
    try:
        assert CABLE in owner.left()
        assert f"process {owner.pids[0]}" in owner.left()
    finally:
        owner.process.send_signal(signal.SIGKILL)
        owner.process.wait(timeout=10)

    # At once, while they are still dying: their successors wait for that.
    with five_hosts() as hosts:
        assert not owner.directory.exists()
        assert hosts.run("a1", "hostname").stdout == "a1\n"
    until(lambda: owner.left() == [], "nothing is left", 40)
    assert not owner.directory.exists()


def test_a_killed_owner_leaves_no_process_and_no_link_without_a_successor() -> None:
    owner = Owner.make("stay")
    owner.process.send_signal(signal.SIGKILL)
    owner.process.wait(timeout=10)

    until(lambda: owner.left() == [], "nothing is left", 40)


def test_where_hosts_cannot_be_made_the_tests_skip_but_fail_under_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "why_not", lambda: "no root here")

    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no root here"):
        conftest.require_hosts()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no root here; CI must be able"):
        conftest.require_hosts()
