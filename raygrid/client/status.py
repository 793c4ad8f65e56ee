"""The state of jobs, batches, groups and nodes, as the grid reports it.

A member that this version does not know is ignored, and an absent one has its default, so that a client may be older or
newer than its grid.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from raygrid.errors import RaygridError
from raygrid.models import JobState

T = TypeVar("T")

_RENAMED = {"jobId": "job_id", "batchId": "batch_id", "reusedFrom": "reused_from"}


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job's state; `position` is its place in the queue, from 0, while it is queued.

    `reused_from` is the earlier job that ran and whose stored result this one took over. `input_name` is the name of
    its input file. `definition` is the digest of the pricer definition that it runs, fixed at its submit; None for a
    job that an older release accepted. `batches` are the batches that it belongs to. `owner` is the owner of the key
    that submitted it, and `cancelled_by` that of the key that requested its cancellation.
    """

    job_id: str
    state: JobState
    pricer: str | None = None
    version: str | None = None
    attempts: int = 0
    group: str | None = None
    node: str | None = None
    priority: int = 0
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    message: str | None = None
    position: int | None = None
    cancel_requested: bool = False
    input_name: str | None = None
    input_digest: str | None = None
    input_size: int | None = None
    result_digest: str | None = None
    result_size: int | None = None
    reused_from: str | None = None
    definition: str | None = None
    batches: tuple[str, ...] = ()
    owner: str | None = None
    cancelled_by: str | None = None


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """A batch: its number of jobs, in all and by state, how many took over a stored result, and its owner."""

    batch_id: str
    total: int
    finished: bool
    counts: dict[JobState, int] = field(default_factory=dict)
    submitted_at: datetime | None = None
    reused: int = 0
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Capacity:
    """Slots of the whole grid, and the number of queued jobs."""

    slots: int
    running: int
    free: int
    queued: int


def _count(value: object) -> object:
    return len(value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A group and its load.

    `nodes` is the number of its nodes, `leader` the candidate that leads it; `term` rises with every change of leader.
    `state` is ok, no_nodes (no node takes jobs), silent (its leader does not answer) or lost: it has had no leader
    since `lost_since`, its jobs move to other groups, and `unfinished` of them still have to move or be cancelled.
    `handed_over_by` is the owner of the key that last requested a hand-over of its lead, `handed_over_at` when.
    """

    group: str
    slots: int
    running: int
    free: int
    queued: int
    site: str | None = None
    nodes: Annotated[int, BeforeValidator(_count)] = 0
    leader: str = ""
    term: int = 0
    state: str = "ok"
    lost_since: datetime | None = None
    unfinished: int | None = None
    handed_over_at: datetime | None = None
    handed_over_by: str | None = None


@dataclass(frozen=True, slots=True)
class TrafficStatus:
    """Payload bytes that a node has moved since its agent started.

    `inputs` and `data` were read from the blob store, `results` written to it, and `served` were read by parents from
    the node's cache.
    """

    inputs: int = 0
    data: int = 0
    results: int = 0
    served: int = 0


@dataclass(frozen=True, slots=True)
class SandboxStatus:
    """What keeps pricers from harming the grid, other jobs and the machine.

    `mode` is protect, strict or off, `active` are the mechanisms that are active, and `open` what stays open.
    """

    mode: str
    active: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node; `state` is one of ok, draining, drained, unhealthy, probation, lost; `why` is the reason if it is not ok.

    A draining node is drained once no job runs there; the jobs that run at `drain_deadline_at` are moved. `sandbox` is
    None if it is unknown: no leader sees the node, or the grid is of a release without sandboxes.
    """

    node: str
    group: str
    slots: int
    running: int
    state: str
    why: str | None = None
    traffic: TrafficStatus = TrafficStatus()
    drain_deadline_at: datetime | None = None
    drained_by: str | None = None
    sandbox: SandboxStatus | None = None


@dataclass(frozen=True, slots=True)
class PricerInfo:
    """A pricer of the grid; `result` is `zip` or `stdout`, `reuse` is `off` or `content`.

    `definition` is the digest of the definition that newly submitted jobs run. `sandbox` is protect, strict or off;
    None if the grid is of a release without sandboxes.
    """

    name: str
    version: str
    takes_args: bool = False
    result: str = "zip"
    default: bool = False
    reuse: str = "off"
    definition: str | None = None
    sandbox: str | None = None


@dataclass(frozen=True, slots=True)
class DataInfo:
    """Shared data that jobs can refer to by its name; `digest` is the sha256 and `size` is in bytes."""

    name: str
    digest: str
    size: int
    stored_at: datetime | None = None
    owner: str | None = None


_READERS: dict[type[Any], TypeAdapter[Any]] = {}


def read(kind: type[T], body: Any) -> T:
    """Read one of the values of this module from the grid's JSON.

    Raises:
        RaygridError: the JSON is not of that kind.
    """
    members = {_RENAMED.get(key, key): value for key, value in body.items()} if isinstance(body, dict) else body
    reader = _READERS.setdefault(kind, _READERS.get(kind) or TypeAdapter(kind))
    try:
        value: T = reader.validate_python(members)
    except ValidationError as error:
        where = ", ".join(".".join(str(part) for part in e["loc"]) for e in error.errors(include_input=False))
        raise RaygridError(
            f"the grid's answer is not a {kind.__name__} ({where}); check that client and grid have the same version"
        ) from error
    return value
