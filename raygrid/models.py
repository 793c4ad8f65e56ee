"""The values that travel between the rooms of the grid: jobs, attempts, reports and updates.

Only frozen dataclasses and enums live here: no behaviour, no I/O, nothing that knows Ray, SQL or HTTP.
Every tier imports this module; it imports none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

Kind = TypeVar("Kind")


def travels(kind: type[Kind]) -> type[Kind]:
    """Have a dataclass pickled as a call of itself: it travels by the thousand, and the usual way costs twice as much.

    A field that one side does not know yet is at the end, with a default.
    """
    values: Any = attrgetter(*(each.name for each in fields(kind)))  # type: ignore[arg-type]  # it is a dataclass

    def reduce(self: Any) -> tuple[Any, ...]:
        return kind, values(self)

    kind.__reduce__ = reduce  # type: ignore[method-assign]
    return kind


class JobState(StrEnum):
    """Public state of a job. The legal moves are in `raygrid.core.lifecycle`."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether no further move is possible."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class Outcome(StrEnum):
    """How one attempt ended, as the node saw it."""

    EXITED = "exited"  # the pricer ran and exited; its exit code tells
    SIGNAL = "signal"  # the pricer died of a signal nobody of the grid sent
    TIMEOUT = "timeout"  # killed at its wall-time limit
    MEMORY_LIMIT = "memory_limit"  # killed for using more memory than allowed
    OUTPUT_LIMIT = "output_limit"  # killed for writing more than allowed
    BAD_OUTPUT = "bad_output"  # ran, but left something that cannot be a result
    MISSING_OUTPUT = "missing_output"  # exited with 0, but without the files that it must leave
    CANCELLED = "cancelled"  # killed because its job was cancelled
    CANNOT_START = "cannot_start"  # the executable is missing or not executable on that node
    INFRASTRUCTURE = "infrastructure"  # the grid failed it: blob store away, agent stopping
    INPUT_LOST = "input_lost"  # the blob store does not have the input any more
    DEFINITION_LOST = "definition_lost"  # the job store does not have any more what the job runs
    DISK_FULL = "disk_full"  # its node's disk was full while it ran, which was not its doing
    LOST = "lost"  # nobody knows: its node or agent went away
    MEMORY_PRESSURE = "memory_pressure"  # killed because its node was running out of memory, not at a limit of its own


# An outcome in this set says something about the node, not about the job: run it again elsewhere.
INFRASTRUCTURE_OUTCOMES = frozenset(
    {
        Outcome.CANNOT_START,
        Outcome.INFRASTRUCTURE,
        Outcome.INPUT_LOST,
        Outcome.DEFINITION_LOST,
        Outcome.DISK_FULL,
        Outcome.LOST,
        Outcome.MEMORY_PRESSURE,
    }
)


class BlobSlice(NamedTuple):
    """Where some bytes lie in the blob store: a whole blob or a part of one (a pack of many small ones).

    Attributes:
        key: key of the blob.
        offset: first byte of the slice in the blob.
        size: length of the slice, bytes.
        digest: sha256 of the slice, hexadecimal.
    """

    key: str
    offset: int
    size: int
    digest: str


class SharedData(NamedTuple):
    """A shared input (market data, say) as a job refers to it: its name at submit time and its content."""

    name: str
    digest: str
    size: int


class AttemptId(NamedTuple):
    """One execution of a job on one node; attempts of a job are numbered from 1."""

    job_id: str
    number: int


@travels
@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a leader and a node need to know to run a job.

    Attributes:
        job_id: the client's id for the job.
        pricer: name of a configured pricer.
        version: the pricer's version when the job was submitted.
        args: further arguments, put where the pricer's command says `{args}`.
        priority: higher runs first; FIFO inside one priority.
        filename: the input's name in the job directory; always a plain file name.
        timeout_s: wall-time limit of one attempt, seconds; None for the pricer's own.
        input: where the input lies; its key is empty while the input travels inline.
        inline: the input itself where it is small, else None.
        data: shared inputs, placed under `data/` in the job directory.
        definition: digest of the pricer's definition when the job was submitted; empty for a job that an older release
            stored, which runs what the settings say when an attempt starts.
    """

    job_id: str
    pricer: str
    version: str
    input: BlobSlice
    filename: str = "input"
    args: tuple[str, ...] = ()
    priority: int = 0
    timeout_s: float | None = None
    inline: bytes | None = field(default=None, repr=False)
    data: tuple[SharedData, ...] = ()
    definition: str = ""


@travels
@dataclass(frozen=True, slots=True)
class Definition:
    """What runs for the jobs of a pricer, as it was configured when they were submitted.

    Attributes:
        digest: tells it from every other definition.
        body: what runs, as JSON; it may hold secrets, so that it is kept by the job store and nodes only. Empty in what
            a leader sends in place of one that the job store has lost.
        limits: the pricer's limits when they were last known, as JSON; they hold where the pricer is gone.
    """

    digest: str
    body: str = field(repr=False)
    limits: str = field(default="{}", repr=False)

    @property
    def is_lost(self) -> bool:
        """Whether the job store has lost it: nothing is known of it but its digest."""
        return not self.body


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as a parent inserts it: its spec, where it was routed, and the fingerprint of the request.

    Attributes:
        spec: what to run.
        group_id: the group chosen for it.
        fingerprint: sha256 over input, pricer, args and shared data; two submits of one jobId must agree on it.
        affinity: the client's key for hash routing, if any.
        site: the client's site for topology routing, if any.
        source: a job whose stored result this one may take over instead of running, if there is one.
    """

    spec: JobSpec
    group_id: str
    fingerprint: str
    affinity: str | None = None
    site: str | None = None
    source: str | None = None


@travels
@dataclass(frozen=True, slots=True)
class QueuedJob:
    """An unfinished job as a leader holds it: the spec, and what its attempts so far amount to.

    Attributes:
        spec: what to run.
        attempts: attempts started so far.
        failures: those of them that count towards the job's limit.
        losses: those of the failures whose node was lost with them.
        recalled: attempts that ended for no reason of the job's or its node's.
        unstarted: attempts that were handed to a node and never began.
        node_id: where the latest attempt runs or ran; None before the first.
        running: whether the store holds it as running.
        cancel_requested: whether a client has asked to cancel it.
    """

    spec: JobSpec
    attempts: int = 0
    node_id: str | None = None
    running: bool = False
    cancel_requested: bool = False
    failures: int = 0
    losses: int = 0
    recalled: int = 0
    unstarted: int = 0


@travels
@dataclass(frozen=True, slots=True)
class AttemptReport:
    """What a node reports of an attempt that has ended.

    Attributes:
        attempt: which attempt.
        outcome: how it ended.
        exit_code: the pricer's exit code, where it exited.
        signal: the signal it died of, where it did.
        message: one sentence for the client on anything but a clean exit.
        stderr_tail: the end of stderr, decoded leniently.
        result: the result ZIP; None where the attempt left none.
        started_at: when the pricer was spawned (UTC).
        ended_at: when it had ended (UTC).
        content: key under which other jobs may take over the result; None where none may.
        crowded: with `memory_pressure`, whether other pricers ran on the same machine at that time.
        chunks: digests of the result's chunks, where it is larger than one (`blobs/chunks.py`).
    """

    attempt: AttemptId
    outcome: Outcome
    exit_code: int | None = None
    signal: int | None = None
    message: str | None = None
    stderr_tail: str | None = None
    result: BlobSlice | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    content: str | None = None
    crowded: bool = False
    chunks: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """A change to a job that a leader writes to the job store.

    `at` is the instant of the change (UTC): start of a running attempt, or end of the job. `attempts` is the number of
    the latest attempt; `failures` and what follows it count attempts as `QueuedJob` does.
    """

    job_id: str
    state: JobState
    attempts: int
    node_id: str | None
    at: datetime
    reason: str | None = None
    report: AttemptReport | None = None
    message: str | None = None
    failures: int = 0
    losses: int = 0
    recalled: int = 0
    unstarted: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the store knows it; everything a client may ask about it.

    `attempts` are those that began: one that was handed to a node and taken back before it had a slot is none.
    `revision` orders all changes of all jobs: it rises with every change, and readers resume from it. A job that took
    over a stored result never ran: `reused_from` is the job that did. `definition` is that of `JobSpec`.
    """

    job_id: str
    fingerprint: str
    pricer: str
    version: str
    args: tuple[str, ...]
    priority: int
    affinity: str | None
    site: str | None
    timeout_s: float | None
    filename: str
    input: BlobSlice
    data: tuple[SharedData, ...]
    group_id: str
    state: JobState
    attempts: int
    node_id: str | None
    reason: str | None
    message: str | None
    exit_code: int | None
    signal: int | None
    stderr_tail: str | None
    result: BlobSlice | None
    cancel_requested: bool
    revision: int
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    purged_at: datetime | None
    reused_from: str | None = None
    definition: str = ""


@travels
@dataclass(frozen=True, slots=True)
class DoneJob:
    """A job that is done, as its leader tells whoever waits for it: of `Job` what it takes to give out the result.

    It is told only once the store has it so, and what is done never changes.
    """

    job_id: str
    group_id: str
    node_id: str | None
    result: BlobSlice | None
    exit_code: int | None = None
    state: JobState = JobState.DONE
    reason: str | None = None
    message: str | None = None
    stderr_tail: str | None = None
    reused_from: str | None = None
    purged_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Drain:
    """The wish that a node takes no new jobs and lets go of what it has.

    Attributes:
        node_id: the node.
        requested_at: when it was asked for, by the store's clock.
        deadline_at: when whatever still runs there is moved to other nodes; None lets everything finish.
    """

    node_id: str
    requested_at: datetime
    deadline_at: datetime | None = None


class NodeTraffic(NamedTuple):
    """Payload bytes that a node has moved since its agent started, by purpose.

    Attributes:
        inputs: inputs read from the blob store; those that travel inline with their jobs are not among them.
        data: shared data read from the blob store.
        results: results written to the blob store.
        served: results read by parents from the node's cache.
    """

    inputs: int = 0
    data: int = 0
    results: int = 0
    served: int = 0


NO_TRAFFIC = NodeTraffic()


@travels
@dataclass(frozen=True, slots=True)
class NodeState:
    """What a node says of itself in every reply.

    Attributes:
        node_id: the node's name in the grid.
        incarnation: new with every life of the agent process.
        slots: how many pricers it may run at once.
        healthy: whether it can take work.
        why: when it cannot, the reason for a person.
        running: attempts it holds, those that still wait for a slot last.
        waiting: how many of them still wait for a slot.
        address: where parents reach its cached results; means nothing to a leader.
        marker: the marker of the blob store that it sees; None where it sees none.
        blobs: where it looks for it, for people.
        traffic: payload bytes that it has moved.
        deployed_at: stamp of the settings that it follows.
        memory: bytes of memory that its machine or cgroup has; 0 where that is not known.
        lacks: digests of definitions that its attempts wait for.
    """

    node_id: str
    incarnation: str
    slots: int
    running: tuple[AttemptId, ...] = ()
    waiting: int = 0
    healthy: bool = True
    why: str | None = None
    address: str = ""
    marker: str | None = None
    blobs: str = ""
    traffic: NodeTraffic = NO_TRAFFIC
    deployed_at: float = 0.0
    memory: int = 0
    lacks: tuple[str, ...] = ()


@travels
@dataclass(frozen=True, slots=True)
class GroupCapacity:
    """A group's load, as its leader tells the parents.

    Attributes:
        group_id: the group.
        slots: slots for new attempts: those of nodes that take any, no more than the quota leaves.
        running: attempts that hold a slot, on whatever node.
        queued: jobs that wait in the leader's queue.
        nodes: one entry a node, for people.
        site: the site the group belongs to, if configured.
        mean_s: how long attempts took lately; None while nobody knows.
        leaving: those of the running ones whose node takes no new ones, so that their slots are not among `slots`.
        leader: name of the candidate that leads it.
        term: in which term it does.
    """

    group_id: str
    slots: int
    running: int
    queued: int
    nodes: tuple[NodeView, ...] = ()
    site: str | None = None
    mean_s: float | None = None
    leaving: int = 0
    leader: str = ""
    term: int = 0

    @property
    def busy(self) -> int:
        """Running attempts that hold one of `slots`."""
        return self.running - self.leaving

    @property
    def free(self) -> int:
        """Slots without an attempt; never below zero."""
        return max(0, self.slots - self.busy)


@travels
@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as its leader sees it; `state` is one of ok, draining, drained, unhealthy, probation, lost.

    A draining node is drained once it holds no attempt; `drain_deadline_at` is when the rest is moved, if at all.
    """

    node_id: str
    group_id: str
    slots: int
    running: int
    state: str
    why: str | None = None
    address: str = ""
    traffic: NodeTraffic = NO_TRAFFIC
    drain_deadline_at: datetime | None = None
