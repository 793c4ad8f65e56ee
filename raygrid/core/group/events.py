"""The events that a group's state machine takes, and the commands that it returns."""

from __future__ import annotations

from dataclasses import dataclass

from raygrid.core.group.policy import GroupPolicy
from raygrid.core.travelling import travels
from raygrid.models import AttemptId, AttemptReport, JobSpec, JobUpdate, NodeState, QueuedJob


@dataclass(frozen=True, slots=True)
class JobsArrived:
    """Jobs that the store holds for this group, from a parent, a scan or recovery.

    `scanned`: they are the first queued jobs of the store, in its order.
    """

    jobs: tuple[QueuedJob, ...]
    scanned: bool = False


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """A client asked to cancel these jobs."""

    job_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobsMoved:
    """These jobs belong to another group now."""

    job_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeReported:
    """A node answered a poll that was sent at `asked_at`.

    Jobs in the answer that this group did not know were looked up in the store: those in `found` are unfinished jobs of
    this group; those in `gone` have ended or belong to another group.
    """

    state: NodeState
    reports: tuple[AttemptReport, ...]
    asked_at: float
    found: tuple[QueuedJob, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeHeard:
    """A node answered a poll while the job store is unavailable; the answer is not used, the node is polled again."""

    node_id: str


@dataclass(frozen=True, slots=True)
class NodeLost:
    """A node is gone: its Ray node left, or its agent died for good."""

    node_id: str


@dataclass(frozen=True, slots=True)
class NodeDraining:
    """Operators start or stop draining a node, or change the deadline of its attempts.

    `deadline_at` is on the leader's clock, seconds since the epoch; None means no deadline.
    """

    node_id: str
    draining: bool
    deadline_at: float | None = None


@dataclass(frozen=True, slots=True)
class HandOverEnded:
    """A `StartAttempts` call ended; unless `arrived`, it is unknown whether the node got the attempts."""

    node_id: str
    attempts: tuple[AttemptId, ...]
    arrived: bool


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """The grid was redeployed: the group uses other settings from now on."""

    policy: GroupPolicy
    site: str | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. `confirmed`: a parent called lately, and would have sent newer settings if it had any."""

    confirmed: bool = True


@dataclass(frozen=True, slots=True)
class NodesExpected:
    """The nodes that a new leader found; it starts no attempts until each has reported or a time limit has passed."""

    node_ids: tuple[str, ...]


Event = (
    JobsArrived
    | CancelRequested
    | JobsMoved
    | NodesExpected
    | NodeReported
    | NodeHeard
    | NodeLost
    | NodeDraining
    | HandOverEnded
    | PolicyChanged
    | Tick
)


@travels
@dataclass(frozen=True, slots=True)
class AttemptOrder:
    """One attempt to run. `blobs` is the marker of the blob store that its result must go to; None accepts any.

    `apart` marks the last allowed attempt of a suspect; a machine runs only one such attempt at a time.
    """

    attempt: AttemptId
    spec: JobSpec
    blobs: str | None = None
    apart: bool = False


@dataclass(frozen=True, slots=True)
class StartAttempts:
    """Hand attempts to a node."""

    node_id: str
    orders: tuple[AttemptOrder, ...]


@dataclass(frozen=True, slots=True)
class StopAttempts:
    """Kill attempts on a node, if it still has them; take back those of `recalled` that have not begun."""

    node_id: str
    attempts: tuple[AttemptId, ...] = ()
    recalled: tuple[AttemptId, ...] = ()


@dataclass(frozen=True, slots=True)
class WriteUpdates:
    """Write changes to the job store; they take effect only if the write succeeds."""

    updates: tuple[JobUpdate, ...]


Command = StartAttempts | StopAttempts | WriteUpdates
