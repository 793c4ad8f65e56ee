"""The JSON answers of parents. In JSON, ids are called `jobId` and `batchId`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from raygrid.models import Drain, JobState, NodeTraffic, NodeView, StoredJob
from raygrid.parent.grid_view import GroupView
from raygrid.store import BatchSummary, StoredData


class AnswerModel(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(populate_by_name=True)


class Problem(AnswerModel):
    """An RFC 9457 problem document; `type` is stable, `detail` states what happened and what to do."""

    type: str = Field(
        examples=["urn:raygrid:problem:conflict"],
        description="what happened, also where several problems have one status: 422 is an invalid request "
        "(`invalid-request`, `unknown-pricer` and others) or a failed job (`job-failed`)",
    )
    title: str
    status: int
    detail: str
    job_id: str | None = Field(default=None, alias="jobId")
    state: JobState | None = Field(default=None, description="state of a job that has not ended")
    reason: str | None = Field(default=None, description="cause of a failed job, such as `exit_code` or `timeout`")
    exit_code: int | None = Field(default=None, description="exit code of a failed job's pricer, if it exited")
    stderr_tail: str | None = Field(default=None, description="end of a failed job's stderr")
    result_url: str | None = Field(
        default=None, description="ZIP of a failed job, with its stdout, stderr, manifest and files"
    )


REUSED = (
    "the earlier job whose stored result this job took over (`reuse: content`), `*` if that is another owner's; null "
    "if it took over none"
)
OWNER = "owner of the key that made it; null for what a release without owners stored"

DEFINITION = (
    "digest of the pricer's definition (command, mode, variables, version) at submit, which the job runs; null for a "
    "job from an older release, which runs the definition that is configured when an attempt starts"
)


class SubmitAnswer(AnswerModel):
    """A job that the grid has accepted."""

    job_id: str = Field(alias="jobId")
    state: JobState
    created: bool = Field(description="false if the job existed before, so that nothing new runs")
    reused_from: str | None = Field(alias="reusedFrom", description=REUSED)
    status_url: str
    result_url: str


class RefusedJob(AnswerModel):
    """A job of a batch that was not accepted."""

    job_id: str = Field(alias="jobId")
    problem: Problem


class BatchAnswer(AnswerModel):
    """A batch that the grid has accepted."""

    batch_id: str = Field(alias="batchId")
    total: int = Field(description="number of jobs of this request that were accepted")
    created: int = Field(description="number of new jobs")
    attached: int = Field(description="number of jobs that existed before with the same input")
    reused: int = Field(description="number of new jobs that took over the result of an earlier job")
    refused: list[RefusedJob]
    status_url: str
    results_url: str
    events_url: str


class BatchStatus(AnswerModel):
    """Progress of a batch."""

    batch_id: str = Field(alias="batchId")
    total: int
    finished: bool = Field(description="whether all jobs so far have ended; further requests can add jobs to a batch")
    counts: dict[JobState, int] = Field(description="number of jobs in each state")
    reused: int = Field(description="number of jobs that took over the result of an earlier job")
    submitted_at: datetime
    owner: str | None = Field(description=OWNER)


class BatchPage(AnswerModel):
    """A page of batches, newest first; it may have fewer than `limit` batches if they are large."""

    batches: list[BatchStatus]
    next_cursor: str | None


class BatchCancelled(AnswerModel):
    """Number of jobs of a batch that are being cancelled."""

    batch_id: str = Field(alias="batchId")
    cancelling: int


class JobStatus(AnswerModel):
    """All data of a job except its input and result."""

    job_id: str = Field(alias="jobId")
    state: JobState
    pricer: str
    version: str
    definition: str | None = Field(description=DEFINITION)
    attempts: int = Field(description="number of attempts that have begun")
    group: str
    node: str | None = Field(description="node of the latest attempt")
    priority: int = Field(description="jobs with a higher priority run first")
    submitted_at: datetime
    started_at: datetime | None = Field(description="start of the latest attempt")
    ended_at: datetime | None
    exit_code: int | None = Field(description="exit code of the pricer, if it exited")
    signal: int | None = Field(description="number of the signal that ended the pricer, if one did")
    reason: str | None = Field(description="cause of a failure, such as `exit_code` or `timeout`")
    message: str | None = Field(description="the cause as text")
    position: int | None = Field(description="number of jobs before it in its group's queue; null unless it is queued")
    cancel_requested: bool
    owner: str | None = Field(description=OWNER)
    cancelled_by: str | None = Field(description="owner of the key that requested the cancellation")
    input_name: str = Field(description="name of the input file in the job directory")
    input_digest: str = Field(description="sha256 of the input")
    input_size: int = Field(description="bytes")
    result_digest: str | None = Field(description="sha256 of the result's ZIP")
    result_size: int | None = Field(description="size of the ZIP, bytes")
    reused_from: str | None = Field(alias="reusedFrom", description=REUSED)
    batches: list[str] = Field(description="ids of its batches, in the order in which the job was added to them")
    status_url: str
    result_url: str


class JobPage(AnswerModel):
    """A page of jobs: of a batch in the order of submission, otherwise by id."""

    jobs: list[JobStatus]
    next_cursor: str | None


class JobCancelled(AnswerModel):
    """The state of a job when its cancellation was requested."""

    job_id: str = Field(alias="jobId")
    state: JobState


class DataAnswer(AnswerModel):
    """A shared input."""

    name: str
    digest: str = Field(description="sha256 of the content")
    size: int = Field(description="bytes")
    stored_at: datetime | None = None
    owner: str | None = Field(default=None, description=OWNER)


class DataList(AnswerModel):
    """The shared inputs of the caller; for `admin`, of every owner."""

    data: list[DataAnswer]


class CapacityAnswer(AnswerModel):
    """Load of the grid."""

    slots: int = Field(description="slots of nodes that take new attempts")
    running: int = Field(description="attempts that run now")
    free: int = Field(description="slots without an attempt")
    queued: int = Field(description="jobs that wait for a slot")


class NodeTrafficAnswer(AnswerModel):
    """Payload bytes that nodes have moved since their agents started."""

    inputs: int = Field(description="inputs read from the blob store; small inputs travel with their jobs instead")
    data: int = Field(description="shared data read from the blob store")
    results: int = Field(description="results written to the blob store")
    served: int = Field(description="results read by parents from the node's cache")


class SandboxAnswer(AnswerModel):
    """What keeps pricers from harming the grid, other jobs and the machine."""

    mode: str = Field(description="`protect`, `strict` or `off`")
    active: tuple[str, ...] = Field(description="mechanisms that are active, such as `landlock`")
    open: tuple[str, ...] = Field(description="what stays open, as sentences")


class GroupAnswer(CapacityAnswer):
    """Load of a group; `state` is ok, no_nodes (no node takes jobs), silent (its leader does not answer) or lost.

    A lost group has had no leader for a while; other groups take its jobs.
    """

    group: str
    site: str | None
    nodes: int
    leader: str = Field(description="name of the candidate that leads the group")
    term: int = Field(description="increases with every change of leader")
    state: str
    lost_since: datetime | None = Field(description="for a lost group, when the lease of its last leader expired")
    unfinished: int | None = Field(description="for a lost group, number of jobs still to be moved or cancelled")
    handed_over_at: datetime | None = Field(description="when its lead was last handed over on request")
    handed_over_by: str | None = Field(description="owner of the key that requested it")
    traffic: NodeTrafficAnswer = Field(description="total of its nodes")


class GridCapacity(CapacityAnswer):
    """Load of the grid and of each group."""

    groups: list[GroupAnswer]


class GroupList(AnswerModel):
    """All groups."""

    groups: list[GroupAnswer]


class NodeAnswer(AnswerModel):
    """A node; `state` is ok, draining, drained (draining, and no job runs there), unhealthy, probation or lost.

    A node is `lost` if no leader sees it: its group is lost or silent, or the node left while it was being drained.
    """

    node: str
    group: str
    slots: int
    running: int
    state: str
    why: str | None = Field(description="reason for the state, if there is one")
    traffic: NodeTrafficAnswer
    drain_deadline_at: datetime | None = Field(description="when jobs that still run on a draining node are moved")
    drained_by: str | None = Field(description="owner of the key that requested the drain")
    sandbox: SandboxAnswer | None = Field(description="null if no leader sees the node")


class NodeList(AnswerModel):
    """All nodes."""

    nodes: list[NodeAnswer]


class GroupTraffic(AnswerModel):
    """Payload bytes between one parent and one group."""

    group: str
    site: str | None
    inline: int = Field(description="small inputs sent to the group with their jobs")
    from_cache: int = Field(description="results read from the caches of the group's nodes")
    from_blobs: int = Field(description="results of the group read from the blob store")


class Traffic(AnswerModel):
    """Payload bytes that the answering parent has moved since it started; several parents may share one address."""

    parent: str = Field(description="id of this parent, new at each start")
    home: str | None = Field(description="group of the parent's rack; null outside racks")
    since: datetime
    received: int = Field(description="files and shared data received from clients")
    stored: int = Field(description="part of `received` that was written to the blob store")
    groups: list[GroupTraffic]


class PricerAnswer(AnswerModel):
    """A configured pricer."""

    name: str
    version: str
    takes_args: bool
    result: str
    definition: str = Field(description="digest of the definition that newly submitted jobs run")
    reuse: str = Field(description="`content`: equal jobs share a stored result; `off`: every job runs")
    sandbox: str = Field(description="`protect`, `strict` or `off`: what keeps it from harming the grid")
    default: bool = Field(description="whether submits that name no pricer use this one")


class PricerList(AnswerModel):
    """All pricers."""

    pricers: list[PricerAnswer]


class Health(AnswerModel):
    """Health of a parent: `live` or `ready`."""

    status: str


def status_url(job_id: str) -> str:
    """The path of a job's status."""
    return f"/status/{quote(job_id)}"


def result_url(job_id: str) -> str:
    """The path of a job's result."""
    return f"/result/{quote(job_id)}"


def batch_status(summary: BatchSummary) -> BatchStatus:
    """The answer for a batch."""
    return BatchStatus(
        batch_id=summary.batch_id,
        total=summary.total,
        finished=summary.finished,
        counts={state: summary.counts.get(state, 0) for state in JobState},
        reused=summary.reused,
        submitted_at=summary.submitted_at,
        owner=summary.owner or None,
    )


def job_status(job: StoredJob, position: int | None = None, batches: Sequence[str] = ()) -> JobStatus:
    """The answer for a job."""
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
        owner=job.owner or None,
        cancelled_by=job.cancelled_by,
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
    """The sum of the traffic of nodes."""
    total = NodeTraffic(*map(sum, zip(*traffic, strict=True))) if (traffic := list(traffic)) else NodeTraffic()
    return NodeTrafficAnswer(**total._asdict())


def group_answer(view: GroupView) -> GroupAnswer:
    """The answer for a group."""
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
        handed_over_at=view.hand_over.requested_at if view.hand_over else None,
        handed_over_by=(view.hand_over.requested_by if view.hand_over else "") or None,
        traffic=traffic_answer(node.traffic for node in group.nodes),
    )


def data_answer(stored: StoredData) -> DataAnswer:
    """The answer for a shared input."""
    data = stored.data
    return DataAnswer(
        name=data.name, digest=data.digest, size=data.size, stored_at=stored.stored_at, owner=stored.owner or None
    )


def node_answer(node: NodeView, drain: Drain | None = None, *, drained_by: str = "") -> NodeAnswer:
    """The answer for a node, and who has requested its drain."""
    return NodeAnswer(
        node=node.node_id,
        group=node.group_id,
        slots=node.slots,
        running=node.running,
        state=node.state,
        why=node.why,
        traffic=traffic_answer([node.traffic]),
        drain_deadline_at=node.drain_deadline_at,
        drained_by=drained_by or (drain.requested_by if drain is not None else "") or None,
        sandbox=SandboxAnswer(**node.sandbox._asdict()) if node.sandbox is not None else None,
    )
