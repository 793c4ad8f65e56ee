"""Jobs that end the whole grid: reports of earlier lives are charged, and only the culprit fails."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raygrid.core.group.events import JobsArrived, NodesExpected
from raygrid.core.group.state import GroupState
from raygrid.models import AttemptId, AttemptReport, JobState, JobUpdate, Outcome
from tests.unit.test_core_group import FAILED, QUEUED, RUNNING, Decisions, Rack, job
from tests.unit.test_core_suspects import World


def left(name: str, number: int = 1, life: int = 0) -> AttemptReport:
    ended_at = datetime.fromtimestamp(life, UTC)
    return AttemptReport(AttemptId(name, number), Outcome.LOST, message="everything ended at once", ended_at=ended_at)


def comes_up(rack: Rack, name: str, *reports: AttemptReport, slots: int = 2) -> Decisions:
    rack.slots[name], rack.has[name] = slots, []
    rack.lives[name] = rack.lives.get(name, 0) + 1
    return rack.poll(name, *reports)


def test_a_loss_that_the_store_does_not_know_is_charged() -> None:
    """A job that is queued with no attempt so far has lost one, as the node that ran it reports."""
    rack = Rack()
    rack.submit("a")
    update = comes_up(rack, "n1", left("a")).wrote["a"]
    assert (update.counts.started, update.counts.failures, update.counts.losses) == (
        1 + (update.state is RUNNING),
        1,
        1,
    )


def test_a_running_attempt_that_was_left_over_is_charged() -> None:
    """A job that the store has as running has lost that attempt, though no leader saw its node go."""
    rack = Rack()
    rack.submit(job("a", attempts=1, running=True, node_id="n1"))
    update = comes_up(rack, "n1", left("a")).wrote["a"]
    assert (update.counts.failures, update.counts.losses) == (1, 1)


def test_a_grid_that_was_stopped_in_order_charges_no_job() -> None:
    """Without a node's report of a left-over attempt, one that is gone with the grid costs nothing."""
    rack = Rack()
    rack.submit(job("a", attempts=1, running=True, node_id="n1"))
    update = comes_up(rack, "n1").wrote["a"]
    assert (update.counts.failures, update.counts.losses) == (0, 0)


@pytest.mark.parametrize("state", ["queued", "running again", "ended"])
def test_a_loss_is_counted_once(state: str) -> None:
    """The same report, sent to the next leader once more, changes nothing."""
    rack = Rack()
    if state == "queued":
        rack.submit(job("a", attempts=1, failures=1, losses=1))
    elif state == "running again":
        rack.submit(job("a", attempts=2, failures=1, losses=1, running=True, node_id="n2"))
    update = comes_up(rack, "n1", left("a")).wrote.get("a")
    assert update is None or (update.counts.failures, update.counts.losses) == (1, 1)


def test_a_node_that_comes_up_late_still_counts() -> None:
    """If the job runs on another node under the same number, the loss is counted and the attempt goes on."""
    rack = Rack()
    rack.join("n1")
    assert rack.submit("a").started == {"a": "n1"}
    decided = comes_up(rack, "n2", left("a"))
    assert (decided.wrote["a"].state, decided.wrote["a"].counts.losses) == (RUNNING, 1)
    assert (decided.started, decided.stopped) == ({}, [])
    assert rack.ends("a").states == {"a": JobState.DONE}


def test_a_loss_that_becomes_known_late_never_charges_a_job_beyond_its_limit() -> None:
    """The attempt that runs meanwhile is the last allowed one: it may answer, and only its own loss ends the job."""
    rack = Rack()
    rack.submit(job("a", attempts=3, failures=2, losses=2, running=True, node_id="n1"))
    rack.wait(4)  # n1 is given up; that loss is not charged
    rack.join("n2")
    assert rack.where["a"] == ("n2", AttemptId("a", 4))
    decided = comes_up(rack, "n1", left("a", 3))
    assert (decided.started, decided.stopped) == ({}, [])
    assert [(each.counts.failures, each.counts.losses) for each in decided.wrote.values()] in ([], [(2, 2)])
    update = comes_up(rack, "n2", left("a", 4)).wrote["a"]
    assert (update.state, update.reason, update.counts.failures, update.counts.losses) == (FAILED, "poison", 3, 3)


def test_a_node_that_comes_up_after_it_was_given_up_still_counts() -> None:
    """A grid that starts gives a silent node up at once; the loss of what ran there counts when the node reports it."""
    rack = Rack()
    rack.submit(job("a", attempts=1, running=True, node_id="n1"))
    update = rack.wait(4).wrote["a"]
    assert (update.state, update.counts.started, update.counts.losses) == (QUEUED, 1, 0)
    update = comes_up(rack, "n1", left("a")).wrote["a"]
    assert (update.counts.failures, update.counts.losses) == (1, 1)
    later = rack.poll("n1", left("a")).wrote.get("a")
    assert later is None or later.counts.losses == 1


def test_jobs_whose_late_node_was_given_up_are_no_suspects() -> None:
    """Beside jobs without losses, the last loss of the only suspect counts, however late its node is."""
    rack = Rack()
    last = job("last", attempts=3, failures=2, losses=2, running=True, node_id="n1")
    rack.submit(last, job("fresh", attempts=1, running=True, node_id="n1"))
    rack.wait(4)
    decided = comes_up(rack, "n1", left("last", 3), left("fresh", 1))
    assert (decided.wrote["last"].reason, decided.wrote["fresh"].counts.losses) == ("poison", 1)


def test_the_last_allowed_loss_ends_the_job_before_it_runs_again() -> None:
    """A job that took the grid down as often as it may fails as poison at the next start, with the remedy."""
    rack = Rack()
    rack.submit(job("a", attempts=2, failures=2, losses=2))
    decided = comes_up(rack, "n1", left("a", 3))
    update = decided.wrote["a"]
    assert (decided.started, update.state, update.reason) == ({}, FAILED, "poison")
    assert "signal only processes that it has started itself" in (update.message or "")


def test_losses_of_several_lives_are_counted_one_after_the_other() -> None:
    """Losses that one life of the agent could not report before the next crash count apart from later ones."""
    rack = Rack()
    rack.submit("a", "b")
    decided = comes_up(rack, "n1", left("a", 1, 1), left("b", 1, 1), left("a", 2, 2), left("a", 3, 3))
    assert (decided.wrote["a"].reason, decided.wrote["a"].counts.losses) == ("poison", 3)
    assert (decided.wrote["b"].state, decided.wrote["b"].counts.losses) == (QUEUED, 1)


def test_innocent_jobs_are_not_charged_their_last_loss_beside_another_suspect() -> None:
    """Of two suspects that were lost together in their last allowed attempt neither fails."""
    rack = Rack()
    rack.submit(*(job(name, attempts=2, failures=2, losses=2) for name in ("a", "b")))
    decided = comes_up(rack, "n1", left("a", 3), left("b", 3))
    assert {decided.wrote[name].counts.losses for name in ("a", "b")} == {2}
    assert FAILED not in decided.states.values()


def test_the_last_attempt_of_a_suspect_is_marked() -> None:
    """The order marks the attempt that must be the only one of its kind on its machine."""
    rack = Rack()
    rack.join("n1", slots=2)
    events: list[bool] = []
    for each in (job("a"), job("b", attempts=2, failures=2, losses=2)):
        for command in rack.state.handle(JobsArrived((each,)), rack.now):
            events += [order.apart for order in getattr(command, "orders", ())]
    assert events == [False, True]


class Unlucky(World):
    """A grid that ends as a whole whenever the culprit runs, at times before anything was committed since its start.

    What a node reports of its earlier life is reported again by each later life, until it was committed.
    """

    durable: dict[str, JobUpdate]
    unsettled: dict[str, list[AttemptReport]]

    def lead(self) -> None:
        """All tiers start, with the state of the store and the nodes' reports of their earlier lives."""
        if not hasattr(self, "durable"):
            self.durable, self.unsettled = {}, {}
        self.state = GroupState("rack-a", self.policy)
        self.handle(NodesExpected(tuple(self.has)))
        unfinished = [self.stored(name) for name in self.jobs if not self.ended(name)]
        self.handle(JobsArrived(tuple(each for each in unfinished if each.running)))
        self.handle(JobsArrived(tuple(each for each in unfinished if not each.running)))
        for name in self.has:
            self.poll(name, *self.unsettled.get(name, ()))

    def turn(self) -> None:
        running = {name: self.has[name][: self.slots] for name in self.has}
        if any(attempt.job_id == "poison" for attempts in running.values() for attempt in attempts):
            self.losses += 1
            if self.random.random() < 0.5:
                self.last = dict(self.durable)
            else:
                self.unsettled = {}
            for name, attempts in running.items():
                self.unsettled[name] = self.unsettled.get(name, []) + [
                    left(*attempt, self.losses) for attempt in attempts
                ]
                self.has[name], self.lives[name] = [], self.lives[name] + 1
            self.durable = dict(self.last)
            self.lead()
        else:
            super().turn()
            self.durable, self.unsettled = dict(self.last), {}


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(0, 30), st.integers(2, 4))
def test_only_the_culprit_fails_after_as_many_restarts_as_it_has_attempts(
    seed: int, slots: int, innocents: int, limit: int
) -> None:
    """A job that ends the whole grid is poison after `max_attempts` restarts; all others are done in the end."""
    world = Unlucky(seed, 1, slots, innocents, limit)
    for _ in range(4_000):
        world.turn()
        if all(map(world.ended, world.jobs)):
            break
    ends = {name: (update.state, update.reason) for name, update in world.last.items()}
    assert ends.pop("poison") == (FAILED, "poison")
    assert ends == {name: (JobState.DONE, None) for name in world.jobs if name != "poison"}
    assert world.losses == limit


def test_reports_of_answers_are_taken_in_beside_losses() -> None:
    """One reply may hold both; neither hides the other."""
    rack = Rack()
    rack.submit("a", job("b", attempts=1, running=True, node_id="n1"))
    rack.slots["n1"], rack.has["n1"], rack.lives["n1"] = 2, [], 1
    rack.now += 0.01
    done = AttemptReport(AttemptId("b", 1), Outcome.EXITED, 0)
    decided = rack.poll("n1", left("a"), done)
    assert decided.wrote["b"].state is JobState.DONE
    assert decided.wrote["a"].counts.losses == 1
