"""The values that the tiers of the grid exchange: jobs, attempts, reports and updates.

Frozen dataclasses and enums, without I/O and knowledge of Ray, SQL or HTTP. Every tier imports this; it imports none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from raygrid.core.attempt_counts import NO_ATTEMPTS, AttemptCounts
from raygrid.core.sandbox_state import NO_SANDBOX, SandboxState
from raygrid.core.travelling import travels


class JobState(StrEnum):
    """State of a job; `done`, `failed` and `cancelled` are final (`core/lifecycle.py` has the transitions)."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the state is final."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class Outcome(StrEnum):
    """How one attempt ended, as its node reports it."""

    EXITED = "exited"  # the pricer exited; the exit code decides whether the job is done
    SIGNAL = "signal"  # the pricer was killed by a signal that the grid did not send
    TIMEOUT = "timeout"  # killed at its wall-time limit
    MEMORY_LIMIT = "memory_limit"  # killed for using more memory than allowed
    OUTPUT_LIMIT = "output_limit"  # killed for writing more than allowed
    PROCESS_LIMIT = "process_limit"  # killed for having more processes and threads than allowed
    BAD_OUTPUT = "bad_output"  # ran, but left files that cannot be part of a result
    MISSING_OUTPUT = "missing_output"  # exited with 0, but without an expected output file
    CANCELLED = "cancelled"  # killed because its job was cancelled
    CANNOT_START = "cannot_start"  # the executable is missing or not executable on that node
    INFRASTRUCTURE = "infrastructure"  # the grid failed: blob store unreachable, agent stopping
    INPUT_LOST = "input_lost"  # the blob store no longer has the input
    DEFINITION_LOST = "definition_lost"  # the job store has lost the job's pricer definition
    DISK_FULL = "disk_full"  # the disk of the node was full, not because of this attempt
    LOST = "lost"  # unknown: the node or its agent is gone
    MEMORY_PRESSURE = "memory_pressure"  # killed because its node ran out of memory, below the attempt's own limit


# These outcomes are failures of the node, not of the job: the job runs again on another node.
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
    """A place in the blob store: a whole blob or a part of one (a pack of many small blobs).

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
    """A job's reference to shared data, such as market data: its name, and its content at submit time."""

    name: str
    digest: str
    size: int


class AttemptId(NamedTuple):
    """One execution of a job on one node; attempts of a job are numbered from 1."""

    job_id: str
    number: int

    @property
    def name(self) -> str:
        """Its name in marks and directories, such as `JOB.1`."""
        return f"{self.job_id}.{self.number}"


@travels
@dataclass(frozen=True, slots=True)
class JobSpec:
    """The part of a job that leaders and nodes need to run it.

    Attributes:
        job_id: the client's id for the job.
        pricer: name of a configured pricer.
        version: the pricer's version when the job was submitted.
        args: further arguments, which replace `{args}` in the pricer's command.
        priority: higher runs first; FIFO within one priority.
        filename: the input's name in the job directory; always a plain file name.
        timeout_s: wall-time limit of one attempt, seconds; None for the pricer's limit.
        input: the input's place in the blob store; its key is empty if the input is inline.
        inline: the input itself if it is small, else None.
        data: shared data, placed under `data/` in the job directory.
        definition: digest of the pricer's definition when the job was submitted; empty for a job that an older release
            stored, which runs the definition in the settings when an attempt starts.
        owner: the owner of the key that submitted the job; empty for a job that an older release stored.
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
    owner: str = ""


@travels
@dataclass(frozen=True, slots=True)
class Definition:
    """The definition of a pricer at the time when its jobs were submitted.

    Attributes:
        digest: identifies the definition.
        body: the definition as JSON, which may contain secrets; only the job store and nodes have it. Empty if lost.
        limits: the pricer's last known limits, as JSON; used if the pricer is no longer configured.
    """

    digest: str
    body: str = field(repr=False)
    limits: str = field(default="{}", repr=False)

    @property
    def is_lost(self) -> bool:
        """Whether the job store has lost the definition, so that only its digest is known."""
        return not self.body


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as a parent inserts it.

    Attributes:
        spec: what to run.
        group_id: the chosen group.
        fingerprint: sha256 over input, pricer, args and shared data; all submits of one jobId must have the same.
        affinity: the client's key for hash routing, if any.
        site: the client's site for topology routing, if any.
        source: a job whose stored result this one may take over instead of running, if any.
        may_join_unowned: whether the submit may attach to an equal job that an older release stored, without an owner.
    """

    spec: JobSpec
    group_id: str
    fingerprint: str
    affinity: str | None = None
    site: str | None = None
    source: str | None = None
    may_join_unowned: bool = False

    def may_join(self, owner: str) -> bool:
        """Whether a submit of it may attach to an equal job of an owner."""
        return owner == self.spec.owner or (not owner and self.may_join_unowned)


@travels
@dataclass(frozen=True, slots=True)
class QueuedJob:
    """An unfinished job of a leader.

    Attributes:
        spec: what to run.
        counts: the numbers of its attempts.
        node_id: node of the latest attempt; None before the first.
        running: whether its state in the store is running.
        cancel_requested: whether a client has asked to cancel it.
    """

    spec: JobSpec
    counts: AttemptCounts = NO_ATTEMPTS
    node_id: str | None = None
    running: bool = False
    cancel_requested: bool = False


@travels
@dataclass(frozen=True, slots=True)
class AttemptReport:
    """A node's report of an ended attempt.

    Attributes:
        attempt: the attempt.
        outcome: how it ended.
        exit_code: the pricer's exit code, if it exited.
        signal: the signal that killed it, if one did.
        message: one sentence for the client, unless the exit was clean.
        stderr_tail: the end of stderr, decoded leniently.
        result: the result ZIP, if the attempt left one.
        started_at: when the pricer was spawned (UTC).
        ended_at: when it had ended (UTC).
        content: key under which other jobs may take over the result, if they may.
        crowded: with `memory_pressure`, whether other pricers ran on the same machine at that time.
        chunks: digests of the result's chunks, if it is larger than one chunk (`blobs/chunks.py`).
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

    `at` is the instant of the change (UTC): the start of an attempt, or the end of the job. `counts` are the numbers of
    all its attempts so far.
    """

    job_id: str
    state: JobState
    counts: AttemptCounts
    node_id: str | None
    at: datetime
    reason: str | None = None
    report: AttemptReport | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job with all that the store records of it.

    `attempts` counts the attempts that began: one that was taken back from a node before it had a slot does not count.
    `revision` rises with every change of any job; readers resume from it. `reused_from` is the job that ran, if this
    one took over its stored result, or `*` if that is another owner's. `definition` and `owner` are those of `JobSpec`.
    `cancelled_by` is the owner of the key that requested the cancellation.
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
    owner: str = ""
    cancelled_by: str | None = None


@travels
@dataclass(frozen=True, slots=True)
class DoneJob:
    """The part of a done job that a parent needs to give its result; its leader sends it.

    It is sent only after the store has recorded it, and a done job never changes.
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
    """The request to give a node no new jobs.

    Attributes:
        node_id: the node.
        requested_at: instant of the request, by the store's clock.
        deadline_at: when jobs that still run there are moved to other nodes; None lets all of them finish.
        requested_by: the owner of the key that requested it.
    """

    node_id: str
    requested_at: datetime
    deadline_at: datetime | None = None
    requested_by: str = ""


class NodeTraffic(NamedTuple):
    """Payload bytes that a node has moved since its agent started, by purpose.

    Attributes:
        inputs: inputs read from the blob store, without inline ones.
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
    """The state of a node, part of its every reply.

    Attributes:
        node_id: the node's name in the grid.
        incarnation: differs for each process of its agent.
        slots: number of pricers that it may run at once.
        healthy: whether it can take jobs.
        why: the reason if it cannot, as text.
        running: its attempts; those that still wait for a slot come last.
        waiting: number of attempts that wait for a slot.
        address: where parents reach its cached results; leaders do not use it.
        marker: the marker of the blob store that it reads; None if it finds none.
        blobs: the location of that blob store, as text.
        traffic: payload bytes that it has moved.
        deployed_at: stamp of its settings.
        memory: bytes of memory of its machine or cgroup; 0 if unknown.
        lacks: digests of definitions that its attempts wait for.
        sandbox: what keeps its pricers from harming the grid.
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
    sandbox: SandboxState = NO_SANDBOX


@travels
@dataclass(frozen=True, slots=True)
class GroupCapacity:
    """A group's load, which its leader sends to the parents.

    Attributes:
        group_id: the group.
        slots: slots of the nodes that take new attempts, limited by the quota.
        running: attempts that hold a slot, on any node.
        queued: jobs in the leader's queue.
        nodes: one entry for each node, for status pages.
        site: the site of the group, if configured.
        mean_s: mean duration of recent attempts, seconds; None if unknown.
        leaving: running attempts on nodes that take no new attempts; their slots are not part of `slots`.
        leader: name of the candidate that leads the group.
        term: its term.
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
    """A leader's view of a node; `state` is one of ok, draining, drained, unhealthy, probation, lost.

    A draining node is drained once it has no attempt; attempts that it has at `drain_deadline_at` are moved.
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
    sandbox: SandboxState | None = None
