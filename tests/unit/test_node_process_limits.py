"""Which processes count for an attempt, and when they are counted, from made-up tables of processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence

import pytest

from raygrid.models import AttemptId, Outcome
from raygrid.node.helpers.lineage import ProcessOrigin
from raygrid.node.limits import process_limits
from raygrid.node.limits.process_limits import USUAL_PROCESSES, ProcessLimits
from raygrid.node.limits.process_trees import processes_of, trees
from raygrid.node.limits.running import Running
from raygrid.settings.pricer import Pricer
from raygrid.system.proc import Life, Process, TotalTasks

MB = 1024**2


def process(pid: int, parent: int = 1, *, session: int = 0, rss: int = 0, threads: int = 1) -> Process:
    return Process(pid, parent, session or pid, rss, False, pid, 1, threads)


def running(name: str, pid: int, *, memory: int | None = None, processes: int = sys.maxsize) -> Running:
    return Running(AttemptId(name, 1), 0.0, 1e12, memory, 10**9, (), pid, "p", processes=processes)


def pids_of(own: Sequence[Running], table: Sequence[Process], orphans: Mapping[int, str]) -> dict[str, set[int]]:
    found = processes_of(own, table, {Life(pid, 1): name for pid, name in orphans.items()})
    return {attempt.job_id: {each.pid for each in processes} for attempt, processes in found.items()}


def test_an_orphan_counts_for_the_attempt_that_started_it() -> None:
    """So do the session and the descendants; what several attempts share counts for none."""
    own = [running("a", 10), running("b", 20)]
    table = [
        *(process(10), process(11, 10), process(12, 11, session=12), process(13, session=10)),
        *(process(20), process(30), process(31), process(32)),
    ]
    assert pids_of(own, table, {30: "a.1", 31: "ended.1"}) == {"a": {10, 11, 12, 13, 30}, "b": {20}}


def test_the_pid_of_an_attempt_that_has_ended_names_no_session() -> None:
    """It may have been used again; orphans still count."""
    own = [running("a", 10)]
    own[0].ended = True
    assert pids_of(own, [process(10), process(11, 10), process(30)], {30: "a.1"}) == {"a": {30}}


def test_an_orphan_is_killed_with_its_attempt_under_memory_pressure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its origin counts, whatever its mark is: a forged mark would blame another job."""
    marks = {30: "/nodes/a|life|p|two.1"}
    monkeypatch.setattr("raygrid.node.limits.process_trees.mark_of", marks.get)
    table = [process(10), process(20), process(30, rss=64 * MB), process(31, rss=64 * MB)]
    own = {10: "/nodes/a|life|p|one.1", 20: "/nodes/a|life|p|two.1"}
    known = {Life(30, 1): "one.1", Life(31, 1): "ended.1"}
    found = trees(table, own, "/nodes/a|life|", "/nodes", known)
    assert {tree.pid: tree.members for tree in found} == {10: [10, 30], 20: [20]}
    by_mark = trees(table, own, "/nodes/a|life|", "/nodes", {})
    assert {tree.pid: tree.members for tree in by_mark} == {10: [10], 20: [20, 30]}


class FakeHelpers:
    """Helpers that know the attempts of some orphans."""

    def __init__(self) -> None:
        self.orphans: dict[Life, str] = {}
        self.leftovers: list[tuple[Process, ProcessOrigin]] = []
        self.gate = self
        self.settings: dict[str, Pricer] = {}

    def attempts_of_orphans(self, table: Sequence[Process] | None) -> Mapping[Life, str]:
        return self.orphans

    def has_shared(self, pricer: str) -> bool:
        return False

    def pricers(self, names: Iterable[str]) -> list[Pricer]:
        return [self.settings[name] for name in names]


class Limits:
    """The limits of an agent on a machine with so many tasks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tasks, self.kills = 1_000, list[set[int]]()
        monkeypatch.setattr(process_limits, "TotalTasks", lambda: self)
        monkeypatch.setattr(process_limits, "kill_lineage", self._kill)
        self.helpers = FakeHelpers()
        self.limits = ProcessLimits("prefix|", self.helpers)  # type: ignore[arg-type]

    def now(self) -> int:
        return self.tasks

    def _kill(self, known: list[Life], matches: object, within_s: float) -> int:
        self.kills.append({pid for pid, _ in known})
        return len(known)

    def is_killing(self) -> bool:
        return self.limits.is_killing

    def check(self, own: list[Running], *table: Process) -> None:
        self.limits.check(own, table, is_traced=False)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Limits:
    """A machine with 1,000 tasks."""
    return Limits(monkeypatch)


def test_processes_are_counted_when_the_machine_has_so_many_more_that_a_limit_may_be_exceeded(machine: Limits) -> None:
    """Half of the room that the nearest attempt has, and some in any case; fewer tasks lower the level."""
    own = [running("a", 10, processes=200)]
    machine.check(own, process(10, threads=100))
    assert not machine.limits.needs_table(own)
    machine.tasks = 1_050
    assert not machine.limits.needs_table(own)
    machine.tasks = 1_051
    assert machine.limits.needs_table(own)
    machine.tasks = 900
    assert not machine.limits.needs_table(own)
    machine.tasks = 951
    assert machine.limits.needs_table(own)
    assert not machine.limits.needs_table([])


def test_an_attempt_near_its_limit_does_not_cause_a_count_for_every_new_process(machine: Limits) -> None:
    """Reading the table of processes ten times a second would cost more than the few processes beyond the limit."""
    own = [running("a", 10, processes=200)]
    machine.check(own, process(10, threads=200))
    machine.tasks += process_limits.LEAST_GROWTH
    assert not machine.limits.needs_table(own)
    machine.tasks += 1
    assert machine.limits.needs_table(own)


def test_threads_of_all_processes_count(machine: Limits) -> None:
    """The attempt is killed with its orphans; another one is left alone."""
    own = [running("a", 10, processes=9), running("b", 20, processes=9)]
    machine.helpers.orphans = {Life(30, 1): "a.1"}
    machine.check(own, process(10, threads=4), process(11, 10), process(30, threads=5), process(20, threads=9))
    assert [each.killed_for for each in own] == [Outcome.PROCESS_LIMIT, None]
    assert machine.kills == [{10, 11, 30}]
    assert (own[0].message or "").startswith("killed for having 10 processes and threads; its limit is 9.")


def test_what_an_attempt_killed_at_a_limit_leaves_is_killed_until_none_is_left(machine: Limits) -> None:
    """It may have forked meanwhile: only after two clean looks is it over."""
    attempt = running("a", 0, memory=MB)
    attempt.stop(Outcome.MEMORY_LIMIT, "too much", 0)
    attempt.ended = True
    machine.limits.released(attempt)
    machine.helpers.orphans = {Life(30, 1): "a.1", Life(31, 1): "a.1", Life(32, 1): "b.1"}
    machine.check([], process(30), process(32))
    machine.check([])
    machine.check([], process(31), process(32))
    machine.check([])
    assert machine.is_killing()
    machine.check([])
    assert not machine.is_killing()
    assert machine.kills == [{30}, {31}]


def test_an_attempt_that_ended_by_itself_is_not_pursued(machine: Limits) -> None:
    """What it left behind may be a helper."""
    machine.limits.released(running("a", 10))
    assert not machine.is_killing()


def origin(pricers: str, *attempts: str) -> ProcessOrigin:
    return ProcessOrigin(frozenset(pricers), frozenset(attempts))


def test_what_jobs_left_behind_is_held_to_the_limits_of_their_pricers(machine: Limits) -> None:
    """Together for all that the same attempts may have started; no attempt fails for it."""
    machine.helpers.settings = {"p": Pricer(command=("p",), processes=9), "q": Pricer(command=("q",), processes=5)}
    own = [running("a", 10), running("b", 20)]
    machine.helpers.leftovers = [
        (process(30, threads=5), origin("pq", "a.1", "b.1")),
        (process(31, threads=5), origin("pq", "a.1", "b.1")),
        (process(32, threads=6), origin("q", "ended.1")),
        (process(33, threads=6), origin("pq", "ended.1", "a.1")),
        (process(34, threads=99), origin("p", "a.1")),  # counts for a running attempt
    ]
    machine.check(own, process(10), process(20))
    assert machine.kills == [{30, 31}, {32}]
    assert [each.killed_for for each in own] == [None, None]


def test_memory_that_jobs_left_behind_is_limited_if_all_their_pricers_have_a_limit(machine: Limits) -> None:
    """The largest of the limits holds, because it may be of any of them."""
    machine.helpers.settings = {
        "p": Pricer(command=("p",), memory=MB),
        "q": Pricer(command=("q",), memory=3 * MB),
        "r": Pricer(command=("r",)),
    }
    ended = 1 << 30  # no process has such a pid, so that only the sizes of the table count
    machine.helpers.leftovers = [
        (process(ended, rss=2 * MB), origin("p", "1.1")),
        (process(ended + 1, rss=2 * MB), origin("pq", "1.1")),
        (process(ended + 2, rss=4 * MB), origin("pq", "2.1")),
        (process(ended + 3, rss=4 * MB), origin("pr", "1.1")),
    ]
    machine.check([])
    assert machine.kills == [{ended}, {ended + 2}]


def test_the_tasks_of_this_machine_can_be_read() -> None:
    """It has at least the threads of this process."""
    total = TotalTasks()
    try:
        before = total.now()
        assert before is not None
        assert before >= len(os.listdir("/proc/self/task"))
    finally:
        total.close()
    assert total.now() is None


def test_a_machine_with_many_processors_allows_more_processes_by_default() -> None:
    """A pricer that uses all of them has threads for each."""
    assert USUAL_PROCESSES >= 1_024
