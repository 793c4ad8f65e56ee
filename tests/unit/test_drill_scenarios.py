"""Which targets drills choose, and when they count a fault as recovered."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from raygrid.client import JobStatus, NodeStatus
from raygrid.drill.injector import FaultTarget, GridSnapshot, Place, RunningCandidate
from raygrid.drill.load import LoadJob
from raygrid.drill.recorder import EntryRequest
from raygrid.drill.report import Report, medians, summary
from raygrid.drill.scenarios import (
    COMMANDS,
    SCENARIOS,
    InjectedFault,
    Skip,
    choose_target,
    entries_of,
    longest_gap_s,
    recovery_s,
)
from raygrid.models import JobState

PICTURE = GridSnapshot(
    places=(
        Place("head", None, "10.0.0.1", agent=False, spared="the head runs there"),
        Place("a1", "rack-a", "10.0.0.11"),
        Place("a2", "rack-a", "10.0.0.12"),
        Place("b1", "rack-b", "10.0.0.21"),
        Place("b2", "rack-b", "10.0.0.22"),
    ),
    candidates=(
        RunningCandidate("rack-a", "a1", True),
        RunningCandidate("rack-a", "a2", False),
        RunningCandidate("rack-b", "b1", False),
        RunningCandidate("rack-b", "b2", True),
    ),
    parents=("a1", "b1"),
    head="10.0.0.1:6379",
)


def nodes(**running: int) -> list[NodeStatus]:
    return [NodeStatus(name, f"rack-{name[0]}", 2, count, "ok") for name, count in running.items()]


BUSY_B = nodes(a1=0, a2=1, b1=2, b2=1)


def test_the_busiest_target_is_hit() -> None:
    """The busiest node, the leader of the busiest group and not its standby, the busiest group as a whole."""
    assert choose_target("agent", PICTURE, BUSY_B) == FaultTarget("agent", ("b1",))
    assert choose_target("node", PICTURE, BUSY_B) == FaultTarget("node", ("b1",), freeze_s=20)
    assert choose_target("leader", PICTURE, BUSY_B) == FaultTarget("leader", ("b2",), "rack-b")
    assert choose_target("leader-frozen", PICTURE, BUSY_B) == FaultTarget("leader", ("b2",), "rack-b", 6)
    assert choose_target("group", PICTURE, BUSY_B) == FaultTarget("node", ("b1", "b2"), "rack-b", 20)
    assert choose_target("parent", PICTURE, BUSY_B) == FaultTarget("parent", ("a1",))
    assert choose_target("head", PICTURE, BUSY_B) == FaultTarget("head")


def test_the_drills_own_machine_is_not_frozen() -> None:
    """The machine of the drill, or of the head, is spared, and so is its rack; its agent may be killed."""
    spared = tuple(replace(place, spared="the drill") if place.name == "b1" else place for place in PICTURE.places)
    picture = replace(PICTURE, places=spared)
    assert choose_target("agent", picture, BUSY_B) == FaultTarget("agent", ("b1",))
    assert choose_target("node", picture, BUSY_B) == FaultTarget("node", ("a2",), freeze_s=20)
    assert choose_target("group", picture, BUSY_B) == FaultTarget("node", ("a1", "a2"), "rack-a", 20)
    all_spared = replace(picture, places=tuple(replace(place, spared="why") for place in picture.places))
    assert choose_target("node", all_spared, BUSY_B) == Skip("no machine may be frozen: why")
    assert choose_target("group", all_spared, BUSY_B) == Skip("no group may be frozen: why")


def test_an_impossible_drill_is_skipped_with_the_reason() -> None:
    """A head without books, a single group, a grid without leaders or parents."""
    assert choose_target("head", replace(PICTURE, head_spared="in memory"), BUSY_B) == Skip("in memory")
    one = replace(PICTURE, places=PICTURE.places[:3])
    assert choose_target("group", one, BUSY_B) == Skip("there is only one group, so its jobs could not move")
    empty = GridSnapshot((), (), ())
    assert all(isinstance(choose_target(each, empty, BUSY_B), Skip) for each in SCENARIOS if each != "head")


def test_all_stands_for_every_scenario() -> None:
    """`all` runs every scenario, and every scenario has a command."""
    assert COMMANDS["all"] == SCENARIOS
    assert {each for name, names in COMMANDS.items() if name != "all" for each in names} == set(SCENARIOS)


def job(name: str, submitted_at: float, ended_at: float | None) -> LoadJob:
    return LoadJob(name, submitted_at, submitted_at, ended_at)


def status(name: str, group: str = "rack-a", attempts: int = 1, took: float = 1.0) -> JobStatus:
    submitted_at = datetime(2026, 1, 1, tzinfo=UTC)
    ended_at = submitted_at + timedelta(seconds=took)
    return JobStatus(name, JobState.DONE, attempts=attempts, group=group, submitted_at=submitted_at, ended_at=ended_at)


def seen(
    scenario: str, injected: InjectedFault, *reported: tuple[LoadJob, JobStatus], tries: tuple[EntryRequest, ...] = ()
) -> float | None:
    final = {each.job_id: status for each, status in reported}
    return recovery_s(scenario, injected, [each for each, _ in reported], final, tries, until=200)


@pytest.mark.parametrize("scenario", ["agent", "node"])
def test_recovery_of_a_node_ends_with_the_first_job_that_ran_again(scenario: str) -> None:
    """Jobs that were not hit, and those submitted afterwards, do not count."""
    injected = InjectedFault(100.0, FaultTarget("agent", ("a1",)))
    jobs = (
        (job("not hit", 99, 100.1), status("not hit")),
        (job("again", 99, 102.0), status("again", attempts=2)),
        (job("later", 99, 103.0), status("later", attempts=2)),
        (job("after", 100.2, 100.6), status("after", attempts=2)),
    )
    assert seen(scenario, injected, *jobs) == 2.0
    assert seen(scenario, injected, jobs[0]) is None


@pytest.mark.parametrize("scenario", ["leader", "leader-frozen"])
def test_recovery_of_a_leader_ends_with_the_first_job_that_the_old_one_cannot_have_placed(scenario: str) -> None:
    """Of its group, and submitted after the fault."""
    injected = InjectedFault(100.0, FaultTarget("leader", ("a1",), "rack-a"))
    jobs = (
        (job("before", 99, 100.2), status("before")),
        (job("elsewhere", 100.1, 100.4), status("elsewhere", "rack-b")),
        (job("led", 100.5, 103.5), status("led")),
    )
    assert seen(scenario, injected, *jobs) == 3.5


def test_recovery_of_a_group_ends_with_the_first_job_that_was_in_it() -> None:
    """Moved to another group, or run again; a result that was on its way at the fault does not count, however late."""
    before = {name: status(name) for name in ("on its way", "told late", "moved", "back")}
    injected = InjectedFault(100.0, FaultTarget("node", ("a1", "a2"), "rack-a", 20), before)
    on_its_way = (job("on its way", 99, 102.2), status("on its way"))  # its node's cache had to be given up first
    moved = (job("moved", 99, 106.0), status("moved", "rack-b"))
    late = (job("told late", 99, 120.5), status("told late"))
    again = (job("again", 99.9, 106.5), status("again", "rack-b", attempts=2))  # was not pending at the last look
    back = (job("back", 99, 121.0), status("back", took=22.0))
    other = (job("other", 99, 101.5), status("other", "rack-b"))
    assert seen("group", injected, on_its_way, moved, back, other) == 6.0
    assert seen("group", injected, on_its_way, again, back, other) == 6.5
    assert seen("group", injected, on_its_way, late, back, other) == 21.0
    assert seen("group", injected, on_its_way, late, other) is None


def test_recovery_of_a_parent_ends_with_the_first_answer_at_its_entry() -> None:
    """Requests count that were made after the fault, through that entry, and were answered."""
    mine, other = "http://10.0.0.11:8000", "http://10.0.0.21:8000"
    injected = InjectedFault(100.0, FaultTarget("parent", ("a1",)), entries=frozenset({mine}))
    tries = (
        EntryRequest(mine, 99.9, 100.1, True),
        EntryRequest(other, 100.0, 100.2, True),
        EntryRequest(mine, 100.0, 100.3, False),
        EntryRequest(mine, 100.5, 101.0, True),
    )
    assert seen("parent", injected, tries=tries) == 1.0


def test_an_entry_belongs_to_the_machine_of_its_address() -> None:
    """If no entry is on the machine that was hit, all of them count."""
    urls = ["http://10.0.0.11:8000", "http://10.0.0.21:8000"]
    assert entries_of(FaultTarget("parent", ("a1",)), PICTURE, urls) == {urls[0]}
    assert entries_of(FaultTarget("parent", ("a2",)), PICTURE, urls) == set(urls)


def test_the_head_is_judged_by_the_longest_time_without_a_finish() -> None:
    """From the fault to the end of the load, the two ends included."""
    assert longest_gap_s(100, 110, [99, 101, 105, 109, 120]) == 4
    assert longest_gap_s(100, 110, []) == 10


def test_medians_count_the_runs_that_were_made() -> None:
    """Times by their median, losses by their sum, a skipped scenario with its reason."""
    reports = [
        Report("agent", acknowledged=10, done=10, lost=lost, recovery_s=t) for lost, t in ((0, 1.0), (1, 9.0), (0, 2.0))
    ]
    agent, head = medians([*reports, Report("head", skipped="in memory")])
    assert (agent["runs"], agent["recovery_s"], agent["worst_recovery_s"], agent["lost"]) == (3, 2.0, 9.0, 1)
    assert (head["runs"], head["recovery_s"], head["skipped"]) == (0, None, "in memory")


AGENT = Report("agent", acknowledged=100, done=100, repeated=3, recovery_s=0.94)


@pytest.mark.parametrize(
    ("reports", "text"),
    [
        ([AGENT], "nothing was lost: 100 jobs acknowledged, 100 done; the longest recovery took 0.9 s (agent)"),
        (
            [AGENT, replace(AGENT, scenario="node", acknowledged=1_000, done=1_000, recovery_s=4.3, client_errors=2)],
            "nothing was lost: 1,100 jobs acknowledged, 1,100 done; the longest recovery took 4.3 s (node); "
            "requests that failed in spite of retries: 2",
        ),
        (
            [Report("head", acknowledged=9, done=9, recovery_s=0.21), Report("group", skipped="only one group")],
            "nothing was lost: 9 jobs acknowledged, 9 done; around the death of the head, the longest time without a "
            "finished job was 0.2 s; skipped: group",
        ),
        (
            [AGENT, Report("parent", acknowledged=50, done=47, lost=2, failed=1, violations=("a", "b"))],
            "guarantees were violated: 150 jobs acknowledged, 147 done; 2 lost, 1 failed, 2 violations; "
            "the longest recovery took 0.9 s (agent)",
        ),
        (
            [replace(AGENT, recovery_s=None, wrong=1)],
            "guarantees were violated: 100 jobs acknowledged, 100 done; 1 with a wrong result",
        ),
        ([Report("head", skipped="x")], "nothing was tested: every scenario was skipped"),
    ],
)
def test_what_a_drill_found_is_a_sentence(reports: list[Report], text: str) -> None:
    """It states whether anything was lost, so that no columns have to be added up."""
    assert summary(reports) == text
