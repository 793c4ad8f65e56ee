"""The attempt of a process: by ancestry, else by its mark, else by what ran; from made-up tables of processes."""

from __future__ import annotations

import os
import time

import pytest

from raygrid.node.helpers import lineage
from raygrid.node.helpers.lineage import Lineage, ProcessOrigin, SpawnedPricer
from raygrid.system.proc import Process

PREFIX = "/root|life|"
ME = os.getpid()
OWN = b"PATH=/bin\0"


def process(pid: int, parent: int = ME, *, started: int = 1, zombie: bool = False) -> Process:
    return Process(pid, parent, pid, 0, zombie, pid, started)


class Machine:
    """A table of processes with environments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, own_process: bool = True) -> None:
        self.environments: dict[int, bytes] = {ME: OWN}
        monkeypatch.setattr(lineage, "environment_of", self.environments.get)
        self.lineage = Lineage(PREFIX, own_process=own_process)

    def left(self, *table: Process, roots: tuple[SpawnedPricer, ...] = (), **pricers: bool) -> dict[int, ProcessOrigin]:
        traced = self.lineage.trace([process(ME, 1), *table], roots, {900}, pricers)
        self.zombies = [each.pid for each in traced.zombies]
        self.below = {pid for pid, _ in traced.below}
        return {each.pid: origin for each, origin in traced.left}

    def mark(self, pid: int, mark: str) -> None:
        self.environments[pid] = f"A=b\0RAYGRID_ATTEMPT={mark}\0".encode()


def of(pricer: str, *attempts: str) -> ProcessOrigin:
    return ProcessOrigin(frozenset((pricer,)), frozenset(attempts))


JOB = SpawnedPricer(10, "p", "j.1", "j.1")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine on which this process is the agent's alone."""
    return Machine(monkeypatch)


def test_processes_that_a_pricer_still_has_are_not_left_behind(machine: Machine) -> None:
    """Its children, and what the agent itself runs besides, are no leftovers."""
    assert machine.left(process(10), process(11, 10), process(900), process(901, 900), roots=(JOB,), p=True) == {}
    assert machine.below == {10, 11}


def test_a_mark_names_the_pricer_of_an_orphan(machine: Machine) -> None:
    """All processes below an orphan are of the same job."""
    machine.mark(11, f"{PREFIX}p|j.1")
    assert machine.left(process(11), process(12, 11), p=False) == {11: of("p", "j.1"), 12: of("p", "j.1")}


@pytest.mark.parametrize("mark", [f"{PREFIX}q|other.1", "x", None])
def test_an_observed_ancestry_wins_over_the_mark(machine: Machine, mark: str | None) -> None:
    """A daemon that was once seen below its pricer stays that pricer's, whatever its mark is."""
    machine.environments[11] = OWN + b"X=1\0"
    if mark is not None:
        machine.mark(11, mark)
    machine.left(process(10), process(11, 10), roots=(JOB,), p=True, q=True)
    assert machine.left(process(11), roots=(), p=True, q=True) == {11: of("p", "j.1")}


@pytest.mark.parametrize(
    "environment", [b"", b"RAYGRID_ATTEMPT=x\0", b"RAYGRID_ATTEMPT=" + PREFIX.encode() + b"no|j.1\0"]
)
def test_an_orphan_without_a_true_mark_may_belong_to_all_that_ran(machine: Machine, environment: bytes) -> None:
    """Of each pricer that ran since the last look, and of each attempt that runs."""
    machine.environments[11] = environment
    origin = machine.left(process(10), process(11), roots=(JOB,), p=True, q=True, r=False)[11]
    assert origin == ProcessOrigin(frozenset("pq"), frozenset(("j.1",)))


def test_an_orphan_without_a_mark_is_not_of_a_younger_attempt(machine: Machine) -> None:
    """An attempt that began after it cannot have started it, nor can one that ended before the last trace."""
    machine.environments[11] = b""
    younger = SpawnedPricer(20, "p", "k.1", "k.1")
    table = process(10, started=3), process(11, started=5), process(20, started=7)
    assert machine.left(*table, roots=(JOB, younger), p=True)[11] == of("p", "j.1")


def test_an_orphan_without_a_mark_may_be_of_an_attempt_that_has_just_ended(machine: Machine) -> None:
    """Then no single attempt is certain, and none is charged with it."""
    machine.environments[11] = b""
    traced = machine.lineage.trace(
        [process(ME, 1), process(10), process(11)], [JOB], set(), {"p": True}, frozenset(("e.1",))
    )
    assert [origin for _, origin in traced.left] == [of("p", "e.1", "j.1")]


def test_an_orphan_without_a_mark_may_be_of_an_earlier_orphan(machine: Machine) -> None:
    """A daemon that forks anew is charged to no attempt that began later."""
    machine.mark(11, f"{PREFIX}p|e.1")
    machine.environments[12] = b""
    machine.left(process(11), p=True)
    assert machine.left(process(10), process(12), roots=(JOB,), p=True)[12] == of("p", "e.1", "j.1")


@pytest.mark.parametrize("mark", [f"{PREFIX}p|k.1", None])
def test_an_orphan_is_of_no_attempt_in_another_sandbox(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, mark: str | None
) -> None:
    """A forged mark does not charge another job, and without a mark the attempt of the same sandbox is certain."""
    monkeypatch.setattr(lineage, "mount_namespace", {10: 1, 11: 1, 20: 2}.get)
    machine.environments[11] = b""
    if mark is not None:
        machine.mark(11, mark)
    other = SpawnedPricer(20, "p", "k.1", "k.1")
    assert machine.left(process(10), process(11), process(20), roots=(JOB, other), p=True)[11] == of("p", "j.1")


def test_a_pid_that_is_used_again_is_another_process(machine: Machine) -> None:
    """What was known of the earlier process does not apply to the later one."""
    machine.mark(11, f"{PREFIX}p|j.1")
    machine.left(process(11), p=True, q=True)
    machine.mark(11, f"{PREFIX}q|k.1")
    assert machine.left(process(11, started=2), p=True, q=True) == {11: of("q", "k.1")}


def test_a_pricer_that_is_just_being_spawned_is_not_left_behind(machine: Machine) -> None:
    """Before its pid is noted it looks like an orphan: with the agent's environment first, then with its own mark."""
    about = SpawnedPricer(0, "p", "j.1", "j.1")
    machine.environments[10] = OWN
    assert machine.left(process(10), roots=(about,), p=True) == {}
    machine.mark(10, f"{PREFIX}p|j.1")
    assert machine.left(process(10), roots=(about,), p=True) == {}


def test_a_pricer_that_has_no_environment_yet_is_not_left_behind(machine: Machine) -> None:
    """Until its program is read it has none, however long that takes; a process that is older is an orphan."""
    about = SpawnedPricer(0, "p", "j.1", "j.1", age_s=60.0)
    now, tick = time.clock_gettime(time.CLOCK_BOOTTIME), os.sysconf("SC_CLK_TCK")
    younger, older = int((now - 50) * tick), int((now - 70) * tick)
    machine.environments[10] = machine.environments[11] = b""
    processes = process(10, started=younger), process(11, started=older)
    assert machine.left(*processes, roots=(about,), p=True).keys() == {11}


def test_a_process_that_cannot_be_read_is_an_orphan(machine: Machine) -> None:
    """A program can refuse that others read its environment."""
    assert machine.left(process(11), p=True) == {11: of("p")}
    assert machine.lineage.pricer_by_mark(11) == (None, False)


def test_a_pricer_is_reaped_by_its_own_thread_only(machine: Machine) -> None:
    """Its zombie is left alone even when it is no longer registered; that of a daemon is to be reaped here."""
    machine.mark(10, f"{PREFIX}p|j.1")
    machine.mark(11, f"{PREFIX}p|j.1")
    machine.left(process(10), process(11), roots=(JOB,), p=True)
    assert machine.left(process(10, zombie=True), process(11, zombie=True), p=True) == {}
    assert machine.zombies == [11]


def test_orphans_of_a_warm_process_belong_to_the_current_job(machine: Machine) -> None:
    """Its mark names the process; the job is the one that ran when it was first seen."""
    machine.mark(11, f"{PREFIX}w|@warm.1")
    busy, idle = SpawnedPricer(10, "w", "@warm.1", "j.1"), SpawnedPricer(10, "w", "@warm.1", "")
    assert machine.left(process(10), process(11), roots=(busy,), w=True) == {11: of("w", "j.1")}
    assert machine.left(process(10), process(11), roots=(idle,), w=True) == {11: of("w", "j.1")}


def test_of_an_agent_among_others_only_marks_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """If several agents share a process, an orphan without this one's mark may be another agent's."""
    machine = Machine(monkeypatch, own_process=False)
    machine.environments[11] = b""
    machine.mark(12, "/root|other-life|p|j.1")
    machine.mark(13, f"{PREFIX}p|j.1")
    assert set(machine.left(process(11), process(12), process(13), p=True)) == {13}


def test_a_daemon_that_forks_when_nothing_ran_is_of_those_before_it(machine: Machine) -> None:
    """An orphan without a mark that appears between jobs descends from one that was left behind."""
    machine.mark(11, f"{PREFIX}p|j.1")
    machine.environments[12] = b""
    machine.left(process(11), p=True, q=False)
    assert machine.left(process(12), p=False, q=False) == {12: of("p", "j.1")}
