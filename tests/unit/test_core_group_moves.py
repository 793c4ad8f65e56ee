"""A group drops jobs that were moved to another one, and reports when no node takes jobs."""

from __future__ import annotations

import pytest

from raygrid.core.group.events import JobsMoved, NodeDraining, NodeLost, NodesExpected
from raygrid.errors import SettingsError
from raygrid.settings.model import load_settings
from tests.unit.test_core_group import Decisions, Rack, job


def test_a_moved_job_is_dropped_wherever_it_is() -> None:
    """One that waits never starts, one that runs is stopped, and nothing is written of either."""
    rack = Rack()
    rack.join("n1")
    rack.submit("runs", "waits", "stays")
    node, attempt = rack.where["runs"]
    decided = rack.handle(JobsMoved(("runs", "waits", "unheard-of")))
    assert decided.stopped == [(node, attempt)]
    assert "runs" not in decided.wrote
    assert "waits" not in decided.wrote
    assert "runs" not in rack.state
    assert "waits" not in rack.state
    rack.has["n1"].remove(attempt)
    rack.poll("n1")
    assert rack.node_of("stays") == "n1"
    assert "waits" not in rack.where


def test_a_moved_job_that_comes_back_is_taken() -> None:
    """Also one that ended here, as far as this leader knew while the job was another group's."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    rack.ends("a")
    assert rack.submit("a") == Decisions()
    rack.handle(JobsMoved(("a",)))
    assert rack.submit(job("a", attempts=1)).started == {"a": "n1"}


def test_a_group_takes_jobs_while_a_node_may() -> None:
    """A full node counts, and so does one that has not reported yet; a drained, unhealthy or lost one does not."""
    rack = Rack()
    assert not rack.state.takes_jobs(rack.now)
    rack.handle(NodesExpected(("n1",)))
    assert rack.state.takes_jobs(rack.now)
    assert not rack.state.takes_jobs(rack.now + 5)
    rack.join("n1")
    rack.submit("a", "b")
    assert rack.state.takes_jobs(rack.now)
    rack.handle(NodeDraining("n1", True))
    assert not rack.state.takes_jobs(rack.now)
    rack.handle(NodeDraining("n1", False))
    rack.poll("n1", healthy=False, why="disk full")
    assert not rack.state.takes_jobs(rack.now)
    rack.poll("n1")
    assert rack.state.takes_jobs(rack.now)
    rack.handle(NodeLost("n1"))
    assert not rack.state.takes_jobs(rack.now)


@pytest.mark.parametrize("wrong", [0, 0.1, float("inf"), float("nan"), 100_000])
def test_the_patience_with_a_group_is_bounded(wrong: float) -> None:
    """Less than a few looks, or more than a day, is refused with the name of the setting."""
    assert load_settings(routing={"lost_after_s": 5}).routing.lost_after_s == 5
    with pytest.raises(SettingsError, match="lost_after_s"):
        load_settings(routing={"lost_after_s": wrong})
