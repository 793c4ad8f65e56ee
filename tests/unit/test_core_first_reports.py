"""A new leader waits for its nodes' reports before it hands out work."""

from __future__ import annotations

from raygrid.core.group.events import NodeLost, NodesExpected, Tick
from raygrid.core.group.first_reports import FIRST_REPORT_S
from raygrid.models import AttemptId
from tests.unit.test_core_group import Rack


def test_a_job_that_another_node_runs_already_is_adopted_and_not_run_again() -> None:
    """The store has it as queued, because the leader before died before it recorded the start."""
    rack = Rack()
    rack.handle(NodesExpected(("n1", "n2")))
    rack.submit("a")
    assert rack.join("n1").started == {}

    rack.slots["n2"], rack.has["n2"], rack.lives["n2"] = 1, [AttemptId("a", 1)], 1
    decided = rack.poll("n2")

    assert decided.started == {}
    assert decided.wrote["a"].node_id == "n2"


def test_work_begins_with_the_last_report() -> None:
    rack = Rack()
    rack.handle(NodesExpected(("n1", "n2")))
    rack.submit("a")
    assert rack.join("n1").started == {}
    assert set(rack.join("n2").started) == {"a"}


def test_a_silent_node_is_not_waited_for_long() -> None:
    rack = Rack()
    rack.handle(NodesExpected(("n1", "n2")))
    rack.join("n1")
    rack.submit("a")
    rack.now += FIRST_REPORT_S
    assert rack.handle(Tick()).started == {"a": "n1"}


def test_a_node_that_is_gone_is_not_waited_for() -> None:
    rack = Rack()
    rack.handle(NodesExpected(("n1", "n2")))
    rack.join("n1")
    rack.submit("a")
    assert rack.handle(NodeLost("n2")).started == {"a": "n1"}
