"""The simulation of scale: jobs end once, slots are full while jobs wait, and a plan is the smallest that holds."""

from __future__ import annotations

import json
from array import array
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner

from raygrid.cli import app
from raygrid.core.group.events import Event
from raygrid.errors import InvalidRequestError
from raygrid.planner import simulation
from raygrid.planner.clock import STARTS_AT, Agenda, Turns
from raygrid.planner.group import Meter, ModelGroup
from raygrid.planner.load import Arrivals, RunTimes, duration_s
from raygrid.planner.plan import NodeCountResult, plan
from raygrid.planner.simulation import Scenario, ScenarioOutcome, Simulation, simulate, sweep

pytestmark = pytest.mark.computing

CPU_TIMES = ("routing_us", "placement_us", "load_us", "watching", "seconds")


def scenario(text: str = "lognormal:1s:0.5", arrivals: str = "all-at-once", **known: Any) -> Scenario:
    small = Scenario(nodes=6, groups=2, slots=4, jobs=1_500, run_times=RunTimes.parse(text))
    return replace(small, arrivals=Arrivals.parse(arrivals), **known)


def decided(outcome: ScenarioOutcome) -> dict[str, object]:
    """All of an outcome that is no CPU time."""
    return {name: value for name, value in asdict(outcome).items() if name not in CPU_TIMES}


# --- the ends of jobs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrivals", ["all-at-once", "poisson:30/s", "steps:0/s@0s,100/s@5s,10/s@15s"])
@pytest.mark.parametrize("placement", ["least_loaded", "weighted_round_robin"])
@pytest.mark.parametrize("run_time", ["lognormal:1s:0.5", "constant:20ms"])
def test_every_job_ends_once_and_after_it_ran(arrivals: str, placement: str, run_time: str) -> None:
    """No job is lost or ends twice, with a window far smaller than the queue, and none ends before it can."""
    simulation = Simulation(scenario(run_time, arrivals, placement=placement, window=64))
    simulation.run()
    outcome = simulation.outcome()
    assert simulation.ended == outcome.ended == len(outcome.ends_s) == 1_500
    alone = sorted(at + run_s for at, run_s in zip(simulation.arrivals, simulation.run_times, strict=True))
    assert all(end >= least for end, least in zip(outcome.ends_s, alone, strict=True))
    assert 0 <= outcome.waits_s[0] <= outcome.waits_s[1] <= outcome.waits_s[2] < outcome.makespan_s


def test_slots_are_full_while_jobs_wait() -> None:
    """With a long queue slots idle only between two jobs, and the makespan is that of the work."""
    outcome = simulate(scenario("constant:1s", jobs=2_400))
    assert outcome.utilisation_before > 0.98
    assert outcome.utilisation > 0.97
    assert outcome.makespan_s == pytest.approx(100.0, rel=0.02)  # 2,400 jobs of 1 s on 24 slots
    assert outcome.waits_s[0] == pytest.approx(50.0, rel=0.05)


def test_jobs_that_arrive_slowly_do_not_wait() -> None:
    """At a third of what the slots could do, most jobs start within a few calls."""
    outcome = simulate(scenario("constant:100ms", "poisson:80/s"))
    assert outcome.waits_s[0] < 0.01
    assert outcome.utilisation == pytest.approx(80 * 0.1 / 24, rel=0.15)


def test_the_same_seed_decides_the_same() -> None:
    """All but CPU time repeats exactly, and another seed differs."""
    one, again, other = (simulate(scenario(arrivals="poisson:100/s", seed=seed)) for seed in (1, 1, 2))
    assert decided(one) == decided(again)
    assert one.ends_s != other.ends_s


@pytest.mark.parametrize("arrivals", ["all-at-once", "poisson:100/s"])
@pytest.mark.parametrize("run_time", ["lognormal:1s:0.5", "constant:20ms"])
def test_the_order_in_which_groups_advance_changes_nothing(
    arrivals: str, run_time: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step by step in the order of time or each group as long as it can: jobs start and end at the same instants."""
    asked = scenario(run_time, arrivals, groups=3, window=64)
    outcomes = []
    for polls in (0.001, 4, 1_000):
        monkeypatch.setattr(simulation, "POLLS_PER_TURN", polls)
        outcomes.append(decided(simulate(asked)))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_a_group_runs_for_a_while_before_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """So each finds its data in the processor's cache, as a leader in a process of its own does."""
    decisions: list[ModelGroup] = []
    decide = ModelGroup._decide

    def recorded(group: ModelGroup, event: Event, meter: Meter) -> None:
        decisions.append(group)
        decide(group, event, meter)

    monkeypatch.setattr(ModelGroup, "_decide", recorded)
    simulate(scenario(groups=3))
    changes = sum(one is not other for one, other in pairwise(decisions))
    assert len(set(decisions)) == 3
    assert 3 <= changes < len(decisions) / 50


def test_an_event_for_another_part_happens_in_its_time() -> None:
    """A part that sleeps long is woken for an event of another one, once, and the others' turns go on."""
    turns, parts, seen = Turns(), (Agenda(), Agenda()), list[tuple[str, float]]()
    for part, first in zip(parts, (1.0, 50.0), strict=True):
        part.after(first, lambda part=part: seen.append(("own", part.now - STARTS_AT)))
        turns.wake(part)
    turns.run(STARTS_AT + 10.0)
    for at in (40.0, 20.0):
        parts[1].at(STARTS_AT + at, lambda: seen.append(("asked", parts[1].now - STARTS_AT)))
        turns.wake(parts[1])
    turns.run(STARTS_AT + 40.0)
    assert seen == [("own", 1.0), ("asked", 20.0), ("asked", 40.0)]
    turns.run(STARTS_AT + 60.0)
    assert seen[3:] == [("own", 50.0)]
    parts[1].at(STARTS_AT + 45.0, lambda: None)
    with pytest.raises(AssertionError, match="before the time"):
        turns.wake(parts[1])


def test_a_sweep_gives_every_node_the_same_work_in_groups_of_the_same_size() -> None:
    """Sizes differ in nodes, groups and jobs alone, and no more jobs are drawn than the largest size needs."""
    rows = [each.scenario for each in sweep(scenario(nodes=8, groups=4, jobs=800), (1, 4, 8))]
    assert [(row.nodes, row.groups, row.jobs) for row in rows] == [(1, 1, 800), (4, 2, 800), (8, 4, 800)]


def test_jobs_in_the_store_are_numbers() -> None:
    """Of a long queue no more jobs are in memory than the windows and nodes hold."""
    simulation = Simulation(scenario(jobs=5_000, window=50))
    simulation.run(wanted=1_000)
    held = [len(group._state._jobs) for group in simulation._parent._groups.values()]
    assert len(held) == 2
    assert all(0 < count <= 50 + 3 * 4 for count in held)


# --- plans --------------------------------------------------------------------------------------------------


def test_a_plan_meets_its_deadline_and_one_node_fewer_does_not() -> None:
    """The answer is the smallest: simulating it and its lesser neighbour shows both."""
    asked = scenario(nodes=60, groups=6, jobs=1_000)
    made = plan(asked, 30.0, 1.0)
    assert simulate(asked.resized(made.found.nodes)).within_s(1.0) <= 30.0
    assert simulate(asked.resized(made.found.nodes - 1)).within_s(1.0) > 30.0
    assert made.found.ends_s is not None
    assert made.fewer is None or (made.fewer.nodes, made.fewer.ends_s) == (made.found.nodes - 1, None)


def test_a_later_deadline_or_a_smaller_share_needs_no_more_nodes() -> None:
    """A plan is smaller if less is asked of it."""
    asked = scenario(nodes=60, groups=6, jobs=600)
    by_deadline = [plan(asked, deadline_s, 1.0).found.nodes for deadline_s in (10.0, 20.0, 40.0, 80.0)]
    by_share = [plan(asked, 10.0, share).found.nodes for share in (1.0, 0.9, 0.5)]
    assert by_deadline == sorted(by_deadline, reverse=True)
    assert by_share == sorted(by_share, reverse=True)
    assert by_deadline[0] > by_deadline[-1]
    assert by_share[0] > by_share[-1]


def test_a_goal_that_no_number_of_nodes_can_meet_is_an_error_at_once() -> None:
    """A job longer than the deadline, or too few nodes to choose from, is an error with what to change."""
    tried: list[NodeCountResult] = []
    with pytest.raises(InvalidRequestError, match="no number of nodes is enough"):
        plan(scenario("constant:1m"), 30.0, 1.0, tried.append)
    assert tried == []
    with pytest.raises(InvalidRequestError, match=r"6 nodes of 4 slots are too few: .* of 1500 jobs end within 10 s"):
        plan(scenario("constant:1s"), 10.0, 1.0)


# --- the inputs of a plan -----------------------------------------------------------------------------------


def test_run_times_are_drawn_as_asked(tmp_path: Path) -> None:
    """Constant, around a median, or from what was observed."""
    random = Random(0)
    assert RunTimes.parse("constant:100ms").draw(3, random) == array("d", [0.1] * 3)
    drawn = sorted(RunTimes.parse("lognormal:10s:0.8").draw(10_001, random))
    assert drawn[5_000] == pytest.approx(10.0, rel=0.05)
    assert drawn[8_413] == pytest.approx(10.0 * 2.718281828**0.8, rel=0.1)  # one sigma above
    observed = tmp_path / "seconds.txt"
    observed.write_text("1.5\n\n2\n30\n")
    assert set(RunTimes.parse(f"file:{observed}").draw(100, random)) == {1.5, 2.0, 30.0}
    observed.write_text("1.5\r\n2\r\n", encoding="utf-8-sig")  # as programs of Windows write it
    assert set(RunTimes.parse(f"file:{observed}").draw(100, random)) == {1.5, 2.0}


def test_arrivals_follow_their_rates() -> None:
    """In each step as many arrive as the rate gives, up to chance; with a rate of 0 none arrive."""
    drawn = Arrivals.parse("steps:100/s@0s,0/s@10s,10/s@1m").draw(2_000, Random(0))
    assert list(drawn) == sorted(drawn)
    assert sum(at < 10 for at in drawn) == pytest.approx(1_000, abs=100)
    assert not any(10 < at < 60 for at in drawn)
    assert sum(60 <= at < 110 for at in drawn) == pytest.approx(500, abs=70)
    assert Arrivals.parse("poisson:60/m") == Arrivals(((0.0, 1.0),))
    assert list(Arrivals.parse("all-at-once").draw(3, Random(0))) == [0.0] * 3
    assert [duration_s(text) for text in ("100ms", "2s", "1.5m", "2h", "1d")] == [0.1, 2.0, 90.0, 7_200.0, 86_400.0]


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        (("--run-time", "constant:0s"), "run times must be above 0"),
        (("--run-time", "constant:fast"), "not a duration"),
        (("--run-time", "lognormal:10s"), "a sigma from 0 to 5"),
        (("--run-time", "normal:1s:1"), "not a distribution of run times"),
        (("--run-time", "file:/does/not/exist"), "cannot read run times"),
        (("--arrivals", "poisson:200"), "not a rate"),
        (("--arrivals", "now"), "not a profile of arrivals"),
        (("--arrivals", "steps:1/s@5s"), "begin at 0s"),
        (("--arrivals", "steps:1/s@0s,2/s@0s"), "each after the one before"),
        (("--arrivals", "steps:1/s@0s,0/s@5s"), "the last rate holds"),
        (("--groups", "7"), "7 groups need at least 7 nodes"),
        (("--placement", "random"), "no placement policy"),
        (("--share", "0.5"), "--share needs a --deadline"),
        (("--share", "1.5", "--deadline", "1h"), "above 0 and at most 1"),
        (("--sweep", "--deadline", "1h"), "give one of them"),
        (("--deadline", "0s"), "no number of nodes is enough"),
    ],
)
def test_senseless_options_are_refused_with_a_reason(options: tuple[str, ...], fragment: str) -> None:
    """Nothing is simulated, and the message has what is wrong."""
    result = CliRunner().invoke(app, ["plan", "--nodes", "6", "--jobs", "10", *options], env={"COLUMNS": "500"})
    assert result.exit_code != 0
    assert fragment in result.output


def test_the_command_prints_json() -> None:
    """One object: of a size, of a sweep, of a plan."""

    def run(*options: str) -> dict[str, Any]:
        words = ["plan", "--jobs", "300", "--run-time", "constant:1s", "--json", *options]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    one = run("--nodes", "5")
    assert (one["nodes"], one["groups"], one["slots"], one["ended"], one["ratio"]) == (5, 1, 40, 300, 1.0)
    swept = run("--nodes", "20", "--sweep")
    assert [row["nodes"] for row in swept["sizes"]] == [10, 20]
    made = run("--nodes", "50", "--deadline", "10s")
    assert (made["nodes"], made["slots"], made["wanted"]) == (5, 40, 300)  # ten rounds on 32 slots take a little more
