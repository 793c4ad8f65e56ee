"""Which nodes get work, by the blob store that they see."""

from __future__ import annotations

from typing import Any

import pytest

from raygrid.core.blob_marker import UNDECIDED, blob_store_trouble
from raygrid.core.group.events import AttemptOrder, Command, JobsArrived, NodeReported, StartAttempts
from raygrid.core.group.policy import GroupPolicy
from raygrid.core.group.state import GroupState
from raygrid.models import BlobSlice, JobSpec, NodeState, QueuedJob


def node(name: str, marker: str | None, **known: Any) -> NodeState:
    return NodeState(name, "life", 1, marker=marker, blobs="/srv/blobs", **known)


def a_job(job_id: str) -> QueuedJob:
    return QueuedJob(JobSpec(job_id, "p", "1", BlobSlice("", 0, 0, "")))


def orders(commands: list[Command]) -> dict[str, list[AttemptOrder]]:
    return {each.node_id: list(each.orders) for each in commands if isinstance(each, StartAttempts)}


def group(marker: str | None) -> GroupState:
    state = GroupState("rack-a", GroupPolicy(prefetch=0))
    state.blobs = marker
    return state


@pytest.mark.parametrize(
    ("agreed", "seen", "fragment"),
    [
        (None, None, None),
        (None, "theirs", None),
        ("ours", "ours", None),
        ("ours", None, "no marker at /srv/blobs (is the share mounted there?)"),
        ("ours", "theirs", "(its marker is theirs, not ours)"),
        (UNDECIDED, None, "has not agreed"),
        (UNDECIDED, "", "has not agreed"),
        (UNDECIDED, "ours", "has not agreed"),
    ],
)
def test_the_reason_fits_what_is_seen(agreed: str | None, seen: str | None, fragment: str | None) -> None:
    """Each case has a sentence of its own, with the place and what to look at."""
    why = blob_store_trouble(agreed, node("n1", seen))
    assert why is None if fragment is None else why is not None and fragment in why


def test_an_object_store_is_not_called_a_share() -> None:
    """For S3 the sentence names what can be wrong there."""
    state = NodeState("n1", "life", 1, blobs="s3://bucket/prefix")
    assert "check bucket, prefix and endpoint" in (blob_store_trouble("ours", state) or "")


def test_only_nodes_that_see_the_grids_blob_store_get_work() -> None:
    """A node without the marker is unhealthy with the reason, until it sees the marker; orders carry it."""
    state = group("ours")
    state.handle(NodeReported(node("n1", None), (), 1.0), 1.0)
    state.handle(NodeReported(node("n2", "theirs"), (), 1.0), 1.0)
    assert orders(state.handle(JobsArrived((a_job("a"), a_job("b"))), 1.1)) == {}
    views = {view.node_id: (view.state, view.why) for view in state.capacity(1.1).nodes}
    assert {name: view[0] for name, view in views.items()} == {"n1": "unhealthy", "n2": "unhealthy"}
    assert all("does not see the grid's blob store" in str(why) for _, why in views.values())
    assert state.capacity(1.1).slots == 0

    started = orders(state.handle(NodeReported(node("n1", "ours"), (), 1.2), 1.2))
    assert [(order.attempt.job_id, order.blobs) for order in started["n1"]] == [("a", "ours")]
    assert {view.node_id: view.state for view in state.capacity(1.2).nodes} == {"n1": "ok", "n2": "unhealthy"}


def test_a_nodes_own_trouble_is_reported_first() -> None:
    """A full disk is not hidden behind the blob store."""
    state = group("ours")
    state.handle(NodeReported(node("n1", None, healthy=False, why="its disk is full"), (), 1.0), 1.0)
    assert [view.why for view in state.capacity(1.0).nodes] == ["its disk is full"]


def test_no_node_gets_work_before_the_grid_has_agreed() -> None:
    """A leader that knows of no agreement yet waits, whatever the nodes see; then it goes on."""
    state = group(UNDECIDED)
    state.handle(NodeReported(node("n1", "ours"), (), 1.0), 1.0)
    assert orders(state.handle(JobsArrived((a_job("a"),)), 1.1)) == {}
    state.blobs = "ours"
    assert list(orders(state.handle(NodeReported(node("n1", "ours"), (), 1.2), 1.2))) == ["n1"]
