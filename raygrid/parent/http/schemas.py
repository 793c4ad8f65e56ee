"""The JSON that parents answer with. Ids are `jobId` and `batchId` on the wire, as the clients know them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from raygrid.models import JobState, NodeTraffic, NodeView, StoredJob
from raygrid.parent.grid_view import GroupView
from raygrid.store import BatchSummary


class AnswerModel(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(populate_by_name=True)


class Problem(AnswerModel):
    """An RFC 9457 problem document; `type` is stable, `detail` says what happened and what to do."""

    type: str = Field(examples=["urn:raygrid:problem:conflict"])
    title: str
    status: int
    detail: str
    job_id: str | None = Field(default=None, alias="jobId")
    state: JobState | None = None
    reason: str | None = None
    exit_code: int | None = None
    stderr_tail: str | None = None
    result_url: str | None = Field(
        default=None, description="what a failed job left, its stdout, stderr, manifest and files, as a ZIP"
    )


REUSED = "the earlier job that ran, where this one took over its stored result (`reuse: content`)"

DEFINITION = (
    "digest of the pricer's definition (command, mode, variables, version) that the job was submitted with and runs; "
    "null where an older release took the job, which runs what is configured when an attempt starts"
)


class SubmitAnswer(AnswerModel):
    """A job that the grid has taken."""

    job_id: str = Field(alias="jobId")
    state: JobState
    created: bool = Field(description="false where the job was there before, so that nothing new runs")
    reused_from: str | None = Field(alias="reusedFrom", description=REUSED)
    status_url: str
    result_url: str


class RefusedJob(AnswerModel):
    """A job of a batch that was not taken."""

    job_id: str = Field(alias="jobId")
    problem: Problem


class BatchAnswer(AnswerModel):
    """A batch that the grid has taken."""

    batch_id: str = Field(alias="batchId")
    total: int = Field(description="jobs of this request that were taken")
    created: int
    attached: int = Field(description="jobs that were there before with the same input")
    reused: int = Field(description="those of the created ones that took over the result of an earlier job")
    refused: list[RefusedJob]
    status_url: str
    results_url: str
    events_url: str


class BatchStatus(AnswerModel):
    """How far a batch is."""

    batch_id: str = Field(alias="batchId")
    total: int
    finished: bool = Field(description="all jobs so far have ended; a batch that is posted in several requests grows")
    counts: dict[JobState, int]
    reused: int = Field(description="jobs that took over the result of an earlier one")
    submitted_at: datetime


class BatchPage(AnswerModel):
    """A page of batches, the newest first; with large batches it may have fewer than asked for."""

    batches: list[BatchStatus]
    next_cursor: str | None


class BatchCancelled(AnswerModel):
    """How many jobs of a batch are being cancelled."""

    batch_id: str = Field(alias="batchId")
    cancelling: int


class JobStatus(AnswerModel):
    """Everything about a job but its bytes."""

    job_id: str = Field(alias="jobId")
    state: JobState
    pricer: str
    version: str
    definition: str | None = Field(description=DEFINITION)
    attempts: int
    group: str
    node: str | None
    priority: int
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    exit_code: int | None
    signal: int | None
    reason: str | None
    message: str | None
    position: int | None = Field(description="jobs before it in its group's queue; null unless queued")
    cancel_requested: bool
    input_name: str = Field(description="the name of the input's file in the job directory")
    input_digest: str
    input_size: int
    result_digest: str | None
    result_size: int | None
    reused_from: str | None = Field(alias="reusedFrom", description=REUSED)
    batches: list[str] = Field(description="the batches that it belongs to, in the order in which it joined them")
    status_url: str
    result_url: str


class JobPage(AnswerModel):
    """A page of jobs: those of a batch in the order in which they were submitted to it, others by id."""

    jobs: list[JobStatus]
    next_cursor: str | None


class JobCancelled(AnswerModel):
    """The state of a job when its cancelling was asked for."""

    job_id: str = Field(alias="jobId")
    state: JobState


class DataAnswer(AnswerModel):
    """A shared input."""

    name: str
    digest: str
    size: int
    stored_at: datetime | None = None


class DataList(AnswerModel):
    """All shared inputs."""

    data: list[DataAnswer]


class CapacityAnswer(AnswerModel):
    """Load of the grid."""

    slots: int
    running: int
    free: int
    queued: int


class NodeTrafficAnswer(AnswerModel):
    """Payload bytes that nodes moved since their agents started."""

    inputs: int = Field(description="inputs read from the blob store; small ones travel with their jobs instead")
    data: int = Field(description="shared data read from the blob store")
    results: int = Field(description="results written to the blob store")
    served: int = Field(description="results read by parents from the node's cache")


class GroupAnswer(CapacityAnswer):
    """Load of a group; `state` is ok, no_nodes (no node takes jobs), silent (its leader does not answer) or lost.

    A lost group has been without any leader for a while; other groups take its jobs.
    """

    group: str
    site: str | None
    nodes: int
    leader: str = Field(description="name of the candidate that leads the group")
    term: int = Field(description="rises with every change of leader")
    state: str
    lost_since: datetime | None = Field(description="when the last leader of a lost group was gone")
    unfinished: int | None = Field(description="jobs of a lost group that still have to move or be cancelled")
    traffic: NodeTrafficAnswer = Field(description="of all its nodes together")


class GridCapacity(CapacityAnswer):
    """Load of the grid, and of each group."""

    groups: list[GroupAnswer]


class GroupList(AnswerModel):
    """All groups."""

    groups: list[GroupAnswer]


class NodeAnswer(AnswerModel):
    """A node; `state` is ok, draining, drained (draining, and nothing runs there any more), unhealthy or probation.

    A node that no leader sees is `lost`: its group is, or its leader does not answer, or it is being drained and gone.
    """

    node: str
    group: str
    slots: int
    running: int
    state: str
    why: str | None
    traffic: NodeTrafficAnswer
    drain_deadline_at: datetime | None = Field(description="when what still runs on a draining node is moved")


class NodeList(AnswerModel):
    """All nodes."""

    nodes: list[NodeAnswer]


class GroupTraffic(AnswerModel):
    """Payload bytes between one parent and one group."""

    group: str
    site: str | None
    inline: int = Field(description="small inputs that went to the group with their jobs")
    from_cache: int = Field(description="results read from the caches of the group's nodes")
    from_blobs: int = Field(description="results that the group made, read from the blob store")


class Traffic(AnswerModel):
    """Payload bytes that the answering parent moved since it started; behind one address there may be several."""

    parent: str = Field(description="tells this life of this parent from others")
    home: str | None = Field(description="the group of the rack in which the parent stands; null outside all racks")
    since: datetime
    received: int = Field(description="files and shared data from clients")
    stored: int = Field(description="those of them written to the blob store")
    groups: list[GroupTraffic]


class PricerAnswer(AnswerModel):
    """A configured pricer."""

    name: str
    version: str
    takes_args: bool
    result: str
    definition: str = Field(description="digest of what jobs that are submitted now run")
    reuse: str = Field(description="`content`: equal jobs share a stored result; `off`: every job runs")
    default: bool


class PricerList(AnswerModel):
    """All pricers."""

    pricers: list[PricerAnswer]


class Health(AnswerModel):
    """Whether this parent lives, or can take jobs."""

    status: str


def status_url(job_id: str) -> str:
    """Where a job's status is."""
    return f"/status/{quote(job_id)}"


def result_url(job_id: str) -> str:
    """Where a job's result is."""
    return f"/result/{quote(job_id)}"


def batch_status(summary: BatchSummary) -> BatchStatus:
    """A batch as clients see it."""
    return BatchStatus(
        batch_id=summary.batch_id,
        total=summary.total,
        finished=summary.finished,
        counts={state: summary.counts.get(state, 0) for state in JobState},
        reused=summary.reused,
        submitted_at=summary.submitted_at,
    )


def job_status(job: StoredJob, position: int | None = None, batches: Sequence[str] = ()) -> JobStatus:
    """A job as clients see it."""
    return JobStatus(
        job_id=job.job_id,
        state=job.state,
        pricer=job.pricer,
        version=job.version,
        definition=job.definition or None,
        attempts=job.attempts,
        group=job.group_id,
        node=job.node_id,
        priority=job.priority,
        submitted_at=job.submitted_at,
        started_at=job.started_at,
        ended_at=job.ended_at,
        exit_code=job.exit_code,
        signal=job.signal,
        reason=job.reason,
        message=job.message,
        position=position,
        cancel_requested=job.cancel_requested,
        input_name=job.filename,
        input_digest=job.input.digest,
        input_size=job.input.size,
        result_digest=job.result.digest if job.result else None,
        result_size=job.result.size if job.result else None,
        reused_from=job.reused_from,
        batches=list(batches),
        status_url=status_url(job.job_id),
        result_url=result_url(job.job_id),
    )


def traffic_answer(traffic: Iterable[NodeTraffic]) -> NodeTrafficAnswer:
    """Traffic of nodes, summed up."""
    total = NodeTraffic(*map(sum, zip(*traffic, strict=True))) if (traffic := list(traffic)) else NodeTraffic()
    return NodeTrafficAnswer(**total._asdict())


def group_answer(view: GroupView) -> GroupAnswer:
    """A group as clients see it."""
    group = view.load
    return GroupAnswer(
        group=group.group_id,
        site=group.site,
        slots=group.slots,
        running=group.running,
        free=group.free,
        queued=group.queued,
        nodes=len(group.nodes),
        leader=group.leader,
        term=group.term,
        state=view.state,
        lost_since=view.since,
        unfinished=view.unfinished,
        traffic=traffic_answer(node.traffic for node in group.nodes),
    )


def node_answer(node: NodeView) -> NodeAnswer:
    """A node as clients see it."""
    return NodeAnswer(
        node=node.node_id,
        group=node.group_id,
        slots=node.slots,
        running=node.running,
        state=node.state,
        why=node.why,
        traffic=traffic_answer([node.traffic]),
        drain_deadline_at=node.drain_deadline_at,
    )
