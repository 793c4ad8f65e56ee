"""A job that was killed because its node ran out of memory runs alone, and fails if even that is not enough."""

from __future__ import annotations

from raygrid.core.group.retry import JobRetryPolicy
from raygrid.models import JobState, Outcome
from tests.unit.test_core_group import DONE, FAILED, QUEUED, Rack

PRESSURE = Outcome.MEMORY_PRESSURE


def test_a_job_that_met_memory_pressure_runs_alone() -> None:
    """It waits until its node holds nothing else, other jobs wait meanwhile, and it costs the job no attempt."""
    rack = Rack()
    rack.join("n1", slots=3)
    rack.submit("hog", "a", "b")
    decided = rack.ends("hog", PRESSURE, message="killed at 5 GB")
    assert (decided.wrote["hog"].state, decided.wrote["hog"].counts.failures) == (QUEUED, 0)
    assert decided.started == {}
    assert rack.submit("c").started == {}, "the node is kept"
    rack.ends("a")
    assert rack.wait(3, alive=("n1",)).started == {}, "b still runs there"
    assert rack.ends("b").started == {"hog": "n1"}
    assert rack.wait(3, alive=("n1",)).started == {}, "it runs alone"
    decided = rack.ends("hog")
    assert decided.states == {"hog": DONE, "c": JobState.RUNNING}
    assert decided.started == {"c": "n1"}


def test_a_job_that_does_not_fit_alone_fails_and_names_its_size() -> None:
    """Killed with nothing beside it, the job fails at once, with its size and what to do."""
    rack = Rack()
    rack.join("n1", slots=2)
    rack.submit("hog")
    assert rack.ends("hog", PRESSURE).started == {"hog": "n1"}
    update = rack.ends("hog", PRESSURE, message="killed at 5.5 GB").wrote["hog"]
    assert (update.state, update.reason) == (FAILED, "memory_pressure")
    message = update.message or ""
    assert "does not fit into the memory of node n1" in message
    assert "killed at 5.5 GB" in message
    assert "more memory" in message
    assert "`memory:` limit on pricer" in message
    assert rack.submit("next").started == {"next": "n1"}, "the node is free again"


def test_a_single_attempt_is_enough_to_be_tried_alone() -> None:
    """Even where a job may have one attempt only, pressure from jobs beside it does not end it."""
    rack = Rack(retry=JobRetryPolicy(max_attempts=1))
    rack.join("n1", slots=2)
    rack.submit("hog")
    assert rack.ends("hog", PRESSURE).started == {"hog": "n1"}
    assert rack.ends("hog").states == {"hog": DONE}


def test_pressure_from_other_agents_of_the_machine_counts_as_an_attempt() -> None:
    """Where pricers of other nodes ran on the same machine, a job that had its node alone is tried up to its limit."""
    rack = Rack(retry=JobRetryPolicy(max_attempts=2))
    rack.join("n1")
    rack.submit("hog")
    rack.ends("hog", PRESSURE, crowded=True)
    update = rack.ends("hog", PRESSURE, crowded=True).wrote["hog"]
    assert (update.state, update.counts.failures) == (JobState.RUNNING, 1)
    update = rack.ends("hog", PRESSURE, crowded=True, message="killed at 5 GB").wrote["hog"]
    assert (update.state, update.reason) == (FAILED, "memory_pressure")
    assert (update.message or "").endswith("killed at 5 GB")


def test_the_node_with_most_memory_is_kept() -> None:
    """Among nodes of different size the largest is kept, and the others take jobs as before."""
    rack = Rack()
    rack.join("small", slots=4)
    rack.join("large", slots=1)
    rack.poll("large", memory=64 * 1024**3)
    rack.poll("small", memory=2 * 1024**3)
    rack.submit("hog")
    assert rack.node_of("hog") == "small"
    assert rack.ends("hog", PRESSURE).started == {"hog": "large"}
    assert rack.submit("a", "b").started == {"a": "small", "b": "small"}


def test_jobs_that_run_alone_do_not_starve_the_others() -> None:
    """After a node was kept for one job, others get it for the same time before it is kept for the next one."""
    rack = Rack()
    rack.join("n1", slots=2)
    rack.submit("h1", "h2")
    rack.ends("h1", PRESSURE)
    rack.ends("h2", PRESSURE)
    first = rack.where["h1"][1].number == 2
    now, later = ("h1", "h2") if first else ("h2", "h1")
    rack.submit("a")
    rack.wait(10, alive=("n1",))
    assert rack.ends(now).started == {"a": "n1"}, "the node is shared first"
    rack.submit("b")
    assert "b" in rack.where
    rack.submit("c", "d")
    rack.ends("a")
    assert rack.node_of("c") == "n1"
    rack.wait(12, alive=("n1",))
    rack.ends("b")
    decided = rack.ends("c")
    assert decided.started == {later: "n1"}, "the node was shared for as long as it was kept"
    assert rack.ends(later).started == {"d": "n1"}


def test_a_job_that_is_cancelled_gives_its_node_back() -> None:
    """A node that is kept for a job takes other jobs as soon as that one no longer waits."""
    rack = Rack()
    rack.join("n1", slots=2)
    rack.submit("hog", "a")
    rack.ends("hog", PRESSURE)
    rack.submit("b")
    assert "b" not in rack.where
    assert rack.cancel("hog").started == {"b": "n1"}


def test_a_kept_node_that_is_lost_is_replaced() -> None:
    """The job gets another node, and the node that comes back takes jobs again."""
    rack = Rack()
    rack.join("n1", slots=2)
    rack.submit("hog", "a")
    rack.ends("hog", PRESSURE)
    rack.join("n2", slots=3)
    rack.join("n1", slots=3)
    rack.wait(3, alive=("n1", "n2"))
    assert rack.where["hog"][1].number == 2
    kept = rack.node_of("hog")
    other = "n2" if kept == "n1" else "n1"
    assert rack.submit("b").started == {"b": other}


def test_the_quota_holds_for_jobs_that_run_alone() -> None:
    """A job with a node alone starts only within its group's quota."""
    rack = Rack(quota=1)
    rack.join("n1", slots=2)
    rack.join("n2", slots=2)
    rack.submit("hog")
    rack.submit("a")
    rack.ends("hog", PRESSURE)
    rack.wait(3, alive=("n1", "n2"))
    assert sum(map(len, rack.has.values())) == 1
    assert rack.where["hog"][1].number == 2


def test_a_long_job_on_the_only_node_does_not_block_all_others() -> None:
    """While others wait, the node is kept for 10 s, and later for 20; between, it takes them beside the long job."""
    rack = Rack()
    rack.join("n1", slots=2)
    rack.submit("hog", "long")
    rack.ends("hog", PRESSURE)
    assert rack.submit("a").started == {}, "the node is kept"
    assert rack.wait(9, alive=("n1",)).started == {}
    assert rack.wait(2, alive=("n1",)).started == {"a": "n1"}
    rack.ends("a")
    assert rack.submit("b").started == {"b": "n1"}, "the node is shared for as long as it was kept"
    rack.wait(12, alive=("n1",))
    rack.ends("b")
    assert rack.submit("c").started == {}, "the node is kept again"
    assert rack.wait(18, alive=("n1",)).started == {}, "for twice as long"
    assert rack.wait(3, alive=("n1",)).started == {"c": "n1"}
    rack.ends("c")
    rack.wait(25, alive=("n1",))
    assert rack.ends("long").started == {"hog": "n1"}
