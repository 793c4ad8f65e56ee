"""A group whose settings change while it works: running jobs go on, and later decisions follow the new ones."""

from __future__ import annotations

from typing import Any

import pytest

from raygrid.core.group.events import JobsArrived, PolicyChanged, Tick
from raygrid.core.group.policy import GroupPolicy
from raygrid.core.group.pricers import GRACE_S
from raygrid.core.group.retry import JobRetryPolicy
from raygrid.models import AttemptId, JobState, Outcome
from tests.unit.test_core_group import Decisions, Rack, job

QUEUED, RUNNING, DONE, FAILED, CANCELLED = JobState
P, Q = frozenset({"p"}), frozenset({"p", "q"})


def deploy(rack: Rack, deployed_at: float = 1.0, site: str = "LDN", **policy: Any) -> Decisions:
    return rack.handle(PolicyChanged(GroupPolicy(**{"prefetch": 0, "deployed_at": deployed_at, **policy}), site))


def upgraded(rack: Rack, name: str, deployed_at: float = 1.0) -> Decisions:
    return rack.poll(name, deployed_at=deployed_at)


def test_running_jobs_go_on_and_are_done() -> None:
    """New settings stop nothing and charge nothing."""
    rack = Rack()
    rack.join("n1", slots=2)
    rack.submit("a", "b")
    assert deploy(rack) == Decisions()
    upgraded(rack, "n1")
    assert rack.ends("a").states == {"a": DONE}
    assert rack.ends("b").states == {"b": DONE}


def test_a_node_gets_no_job_before_it_follows_the_new_settings() -> None:
    """A job waits for the node's own report, whether the node is old or its agent was restarted with older settings."""
    rack = Rack()
    rack.join("n1")
    deploy(rack)
    assert rack.submit("a").started == {}
    assert rack.poll("n1", deployed_at=0.5).started == {}
    assert upgraded(rack, "n1").started == {"a": "n1"}
    rack.join("n1")
    assert rack.wait(2).started == {}
    assert upgraded(rack, "n1").started == {"a": "n1"}
    decided = upgraded(rack, "n1", 7.0)
    assert decided == Decisions(), "a node may be ahead of a restarted leader"


def test_a_new_quota_and_a_new_site_hold_at_once() -> None:
    """More quota starts what waited; less stops nothing."""
    rack = Rack(quota=1)
    rack.join("n1", slots=4)
    rack.submit("a", "b", "c", "d")
    assert rack.state.queued == 3
    assert list(deploy(rack, 0.0, "ZRH", quota=3).started) == ["b", "c"]
    assert rack.state.capacity(rack.now).site == "ZRH"
    assert deploy(rack, 0.0, quota=2) == Decisions()
    assert rack.ends("a").started == {}
    assert rack.ends("b").started == {"d": "n1"}


def test_new_weights_placement_retries_and_window_hold() -> None:
    """All settings of a group are replaced as a whole."""
    rack = Rack(window=2)
    rack.join("n1", slots=40)
    rack.join("n2", slots=40)
    deploy(rack, 0.0, placement="weighted_round_robin", weights={"n1": 3.0}, retry=JobRetryPolicy(max_attempts=1))
    started = list(rack.submit(*(f"j{i}" for i in range(40))).started.values())
    assert (started.count("n1"), started.count("n2")) == (30, 10)
    assert rack.ends("j0", Outcome.INFRASTRUCTURE).states == {"j0": FAILED}
    deploy(rack, 0.0, window=1, quota=1)
    rack.submit("k", "l")
    assert "l" not in rack.state


def test_a_job_of_a_pricer_that_comes_later_waits_for_it() -> None:
    """A restarted leader with old settings keeps a job that a newer parent took, in its place, and fails nothing."""
    rack = Rack(pricers=P)
    rack.join("n1", slots=2)
    assert rack.submit(job("new", pricer="q"), "a").started == {"a": "n1"}
    assert rack.state.queued == 1
    assert rack.wait(GRACE_S - 1, alive=["n1"]) == Decisions()
    deploy(rack, pricers=Q)
    assert upgraded(rack, "n1").started == {"new": "n1"}


def test_before_parents_have_reported_an_unknown_pricer_is_only_waited_for() -> None:
    """The leader may lack newer settings; only after parents reported for a while is the pricer gone for good."""
    rack = Rack(pricers=P)
    rack.submit(job("new", pricer="q"))
    for _ in range(100):
        rack.now += 1
        assert rack.handle(Tick(confirmed=False)) == Decisions()
    together = rack.wait(GRACE_S - 1)
    assert together == Decisions()
    update = rack.wait(3).wrote["new"]
    assert (update.state, update.reason, update.counts.started, update.counts.failures) == (
        FAILED,
        "unknown_pricer",
        0,
        0,
    )
    assert update.message == "pricer 'q' is not configured any more; configure it again and submit under a new jobId"


def test_queued_jobs_of_a_removed_pricer_fail_at_once_and_once() -> None:
    """Those that wait are refused with a message, without an attempt; others and running ones are not changed."""
    rack = Rack(pricers=Q)
    rack.join("n1")
    rack.submit(job("runs", pricer="q"), job("waits", pricer="q"), "other")
    decided = deploy(rack, 0.0, pricers=P)
    assert decided.states == {"waits": FAILED}
    assert (decided.wrote["waits"].reason, decided.wrote["waits"].counts.failures) == ("unknown_pricer", 0)
    assert "configure it again" in str(decided.wrote["waits"].message)
    assert rack.submit(job("late", pricer="q")).states == {"late": FAILED}
    assert rack.handle(JobsArrived((job("waits", pricer="q"),), scanned=True)) == Decisions()
    decided = rack.ends("runs")
    assert (decided.states["runs"], decided.started) == (DONE, {"other": "n1"})


def test_a_running_job_of_a_removed_pricer_that_is_lost_fails_with_the_reason() -> None:
    """It cannot run again; its message has the reason."""
    rack = Rack(pricers=Q)
    rack.join("n1")
    rack.submit(job("runs", pricer="q"))
    deploy(rack, pricers=P)
    decided = rack.ends("runs", Outcome.INFRASTRUCTURE)
    assert (decided.states, decided.wrote["runs"].reason) == ({"runs": FAILED}, "unknown_pricer")


def test_a_removed_pricer_that_comes_back_is_known() -> None:
    """Configured again, it runs new jobs."""
    rack = Rack(pricers=Q)
    rack.join("n1")
    deploy(rack, 1.0, pricers=P)
    deploy(rack, 2.0, pricers=P)
    assert rack.submit(job("between", pricer="q")).states == {"between": FAILED}
    deploy(rack, 3.0, pricers=Q)
    rack.submit(job("again", pricer="q"))
    assert upgraded(rack, "n1", 3.0).started == {"again": "n1"}


@pytest.mark.parametrize("decided", [True, False])
def test_a_job_that_is_set_aside_can_be_cancelled_and_is_found_running(decided: bool) -> None:
    """It is a queued job like any other: a cancel ends it, and a node's report that it runs counts."""
    rack = Rack(pricers=P)
    rack.join("n1")
    rack.submit(job("a", pricer="q"))
    if decided:
        assert rack.cancel("a").states == {"a": CANCELLED}
    else:
        rack.has["n1"].append(AttemptId("a", 1))
        assert rack.poll("n1").states == {"a": RUNNING}
    assert rack.state.queued == 0
    assert rack.wait(GRACE_S + 3, alive=["n1"]).states == {}
