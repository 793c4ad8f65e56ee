"""What can happen to a group (events) and what its state machine asks for (commands)."""

from __future__ import annotations

from dataclasses import dataclass

from raygrid.core.group.policy import GroupPolicy
from raygrid.models import AttemptId, AttemptReport, JobSpec, JobUpdate, NodeState, QueuedJob, travels


@dataclass(frozen=True, slots=True)
class JobsArrived:
    """Jobs that the store holds for this group: fresh from a parent, or found by a scan or at recovery.

    `scanned` says that they are the first queued ones of the store, in their order, rather than just some.
    """

    jobs: tuple[QueuedJob, ...]
    scanned: bool = False


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """A client has asked to cancel these jobs."""

    job_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobsMoved:
    """These jobs are another group's by now, whatever was known of them here."""

    job_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeReported:
    """A node answered a poll that was sent at `asked_at`.

    Of the jobs that it speaks of and that were not known here, the store holds those in `found` as this group's and
    unfinished; those in `gone` have ended, or are another group's.
    """

    state: NodeState
    reports: tuple[AttemptReport, ...]
    asked_at: float
    found: tuple[QueuedJob, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeHeard:
    """A node answered a poll, but what it says cannot be judged yet: the job store is away. It will be asked again."""

    node_id: str


@dataclass(frozen=True, slots=True)
class NodeLost:
    """A node is known to be gone: its Ray node left, or its agent died for good."""

    node_id: str


@dataclass(frozen=True, slots=True)
class NodeDraining:
    """Ops start or stop draining a node, or change until when what runs there may go on.

    `deadline_at` is on the leader's clock, seconds since the epoch; None lets everything finish.
    """

    node_id: str
    draining: bool
    deadline_at: float | None = None


@dataclass(frozen=True, slots=True)
class HandOverEnded:
    """A `StartAttempts` was answered, or failed so that nobody knows whether it arrived."""

    node_id: str
    attempts: tuple[AttemptId, ...]
    arrived: bool


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """The grid was deployed anew: the group decides by other settings from now on."""

    policy: GroupPolicy
    site: str | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. `confirmed` says that a parent has asked lately: one with newer settings would have told."""

    confirmed: bool = True


@dataclass(frozen=True, slots=True)
class NodesExpected:
    """The nodes that a new leader has found: no work is handed out before they have spoken, or have had time to."""

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
    """One attempt to run; its result belongs into the blob store with this marker, where one is named.

    `apart` marks the last attempt that a suspect has: of these, one machine runs one at a time.
    """

    attempt: AttemptId
    spec: JobSpec
    blobs: str | None = None
    apart: bool = False


@dataclass(frozen=True, slots=True)
class StartAttempts:
    """Hand these attempts to a node."""

    node_id: str
    orders: tuple[AttemptOrder, ...]


@dataclass(frozen=True, slots=True)
class StopAttempts:
    """Kill these attempts on a node, if it still has them."""

    node_id: str
    attempts: tuple[AttemptId, ...]


@dataclass(frozen=True, slots=True)
class WriteUpdates:
    """Write these changes to the job store; they count only when that succeeds."""

    updates: tuple[JobUpdate, ...]


Command = StartAttempts | StopAttempts | WriteUpdates
