"""`make bench`: figures, goals and the summary of profiles; nothing is timed here."""

from __future__ import annotations

import pytest

from bench.figures import Figure, Measured, percentile
from bench.goals import GOALS, judge
from bench.profile import summary
from bench.workloads import MODULES, load


def measured(workload: int, *figures: Figure) -> Measured:
    return Measured(workload, "a workload", figures)


def rates(**by_name: float) -> list[Figure]:
    return [Figure(name, "jobs/s", (rate,)) for name, rate in by_name.items()]


def said(of: Measured) -> dict[str, bool | None]:
    return {verdict.goal.what: verdict.reached for verdict in judge(of)}


def test_a_goal_is_reached_by_the_ratio_within_a_run() -> None:
    """Twice a peer's rate is reached, slightly less is missed, and each goal is judged separately."""
    found = said(measured(1, *rates(raygrid=600, HyperQueue=300, Dask=301, Celery=100, xargs=1000)))
    assert found == {
        "jobs/s against HyperQueue": True,
        "jobs/s against Dask": False,
        "jobs/s against Celery": True,
        "jobs/s against xargs -P": True,
    }


def test_a_miss_shows_by_how_much() -> None:
    """The table shows the distance to the goal."""
    [verdict] = [each for each in judge(measured(1, *rates(raygrid=450, Dask=300))) if "Dask" in each.goal.what]
    assert verdict.said == "1.5, goal at least 2: missed by 0.5 (25%)"


def test_rounds_are_compared_with_one_another() -> None:
    """A machine that was slow in one round was slow for both contenders of it."""
    slow_then_fast = Figure("raygrid", "jobs/s", (200.0, 400.0, 420.0))
    peer = Figure("Dask", "jobs/s", (100.0, 200.0, 100.0))
    [verdict] = [each for each in judge(measured(1, slow_then_fast, peer)) if "Dask" in each.goal.what]
    assert verdict.said.startswith("2, ")


def test_an_absent_peer_leaves_its_goal_open() -> None:
    """A peer that cannot be installed here is not compared."""
    absent = Figure("Celery", "jobs/s", (), "absent: there is no redis-server")
    found = said(measured(1, *rates(raygrid=600, HyperQueue=300, Dask=300, xargs=900), absent))
    assert found["jobs/s against Celery"] is None
    assert found["jobs/s against Dask"] is True


def test_a_figure_of_the_grid_that_is_missing_is_a_missed_goal() -> None:
    """A grid that failed has reached nothing."""
    found = said(measured(1, *rates(HyperQueue=300, Dask=300, Celery=100, xargs=900)))
    assert set(found.values()) == {False}


def test_the_worst_tier_decides_on_memory() -> None:
    """One tier whose memory grows is enough."""
    large = [Figure("raygrid, 100 MB", way, (500.0,)) for way in ("MB/s in", "MB/s out")]
    grew = [
        Figure("parent, 100 MB", "MB grown at most", (3.0, 70.0)),
        Figure("agent, 1 MB", "MB grown at most", (5.0,)),
    ]
    found = said(measured(5, *large, *grew, Figure("cp, 100 MB", "MB/s with fsync", (900.0,))))
    assert found["MB that any tier grew by"] is False
    assert found["MB/s in of 100 MB against cp"] is True


def test_every_goal_has_a_bound_and_a_workload() -> None:
    """So none is reached or missed by accident."""
    assert all((goal.at_least is None) != (goal.at_most is None) for goal in GOALS)
    assert {goal.workload for goal in GOALS} <= set(MODULES)


@pytest.mark.parametrize("number", MODULES)
def test_every_workload_loads_and_has_a_title(number: int) -> None:
    """The packages of the contenders are not needed for it."""
    assert load(number).title


def test_percentiles_are_values_that_were_seen() -> None:
    """By the nearest rank."""
    assert percentile(range(1, 101), 0.5) == 50
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([7.0], 0.99) == 7.0


def test_a_profile_is_summed_by_function() -> None:
    """Own samples, and those of everything below."""
    total, functions = summary("main;read 3\nmain;write;flush 1\nmain;read;flush 2\n")
    assert total == 6
    assert sorted(functions) == [("flush", 3, 3), ("read", 3, 5)]
