"""The blocking client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self, Unpack

import httpx

from raygrid.client.calls import Call
from raygrid.client.connection import BlockingConnection
from raygrid.client.endpoint import Endpoint, one_url
from raygrid.client.flows import CONTACT_S
from raygrid.client.jobs import BatchJobs, Job
from raygrid.client.options import JobOptions, SubmitKeywords, checked_id, new_id
from raygrid.client.posting import entries, post
from raygrid.client.retry import RetryPolicy
from raygrid.client.status import BatchStatus, Capacity, DataInfo, GroupStatus, JobStatus, NodeStatus, PricerInfo
from raygrid.client.upload import Input, InputUpload


class Client:
    """Speaks HTTP to the parents of a grid.

    Every call is tried again after a lost connection and when the grid is busy, for up to `retry_s` seconds;
    that is safe, because a job is known by its id. Jobs and batches that it made share its connections, and
    threads may share it.

    Args:
        url: where the grid's parents listen, such as `http://localhost:8000`. Several entries, as a list or with
            commas between, are used one at a time: one that fails is left for the next.
        api_key: the key, where the grid wants one.
        timeout: seconds without a byte after which a request counts as lost, on top of any wait that was
            asked for.
        transport: what carries the requests; tests put the grid itself or a fake here.
        retry_s: seconds after its first failure in which a call is tried again; 0 for never.
        retry: the retry policy in full, instead of `retry_s`.

    Raises:
        SettingsError: the URL or the key cannot be right.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        retry_s: float = 60.0,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._endpoint = Endpoint(one_url(url), api_key, retry or RetryPolicy(retry_s=retry_s))
        self._connection = BlockingConnection(self._endpoint, timeout, transport)
        self._flows = self._connection.flows

    @property
    def url(self) -> str:
        """Where the grid's parents listen; several entries with commas between."""
        return self._endpoint.url

    @property
    def has_key(self) -> bool:
        """Whether it sends an API key."""
        return self._endpoint.api_key is not None

    def submit(
        self,
        file_or_bytes: Input,
        *,
        job_id: str | None = None,
        filename: str | None = None,
        **options: Unpack[SubmitKeywords],
    ) -> Job:
        """Submit one job; when this returns, the grid will not lose it.

        Args:
            file_or_bytes: the input: a path (any str is one), bytes, or a file opened in binary mode.
            job_id: the job's id; a fresh UUIDv7 by default. The same id with the same input is the same job.
            filename: name of the input in the job directory.
            **options: pricer, args, priority, affinity, site, timeout_s, data: see `JobOptions`.

        Raises:
            ConflictError: the id belongs to a job with another input, pricer, args or data.
            InvalidRequestError: the grid refuses the job as it stands.
            BusyError: the grid cannot take the job now, in spite of retries.
            ConnectionFailedError: the grid did not answer, in spite of retries.
        """
        job_id = new_id() if job_id is None else job_id
        self._connection.run(self._flows.submit(InputUpload.of(file_or_bytes, filename), job_id, JobOptions(**options)))
        return Job(self._connection, job_id)

    def map(
        self,
        files: Iterable[Input] | Mapping[str, Input],
        *,
        job_ids: Iterable[str] | None = None,
        batch_id: str | None = None,
        **options: Unpack[SubmitKeywords],
    ) -> BatchJobs:
        """Submit many inputs as one batch, in few requests.

        Args:
            files: the inputs, or a mapping from job id to input.
            job_ids: one id per input; fresh UUIDv7s by default.
            batch_id: add to this batch; a fresh one by default.
            **options: for all jobs: pricer, args, priority, affinity, site, timeout_s, data: see
                `JobOptions`.

        Raises:
            RaygridError: as `submit`. A job that the grid refuses alone does not stop the others: see
                `refused`.
        """
        batch_id = new_id() if batch_id is None else checked_id(batch_id, "batch id")
        jobs = entries(files, job_ids)
        refused = self._connection.run(post(self._flows, batch_id, jobs, JobOptions(**options)))
        names = {job_id: upload.filename for job_id, upload in jobs}
        return BatchJobs(self._connection, batch_id, names, refused, names)

    def job(self, job_id: str) -> Job:
        """Attach to a job that was submitted before; asks the grid nothing."""
        return Job(self._connection, checked_id(job_id))

    def batch(self, batch_id: str, *, ended_only: bool = False) -> BatchJobs:
        """Attach to a batch that was submitted before, or to those of its jobs that have ended by now.

        Its jobs are in the order in which they were submitted.

        Raises:
            JobNotFoundError: the grid has no such batch.
        """
        self._connection.run(self._flows.batch_status(batch_id))
        found = self.jobs(batch=batch_id)
        names = {
            status.job_id: status.input_name or "" for status in found if status.state.is_terminal or not ended_only
        }
        return BatchJobs(self._connection, batch_id, names, names=names)

    def batch_status(self, batch_id: str) -> BatchStatus:
        """Ask for the counts of a batch.

        Raises:
            JobNotFoundError: the grid has no such batch.
        """
        return self._connection.run(self._flows.batch_status(batch_id))

    def cancel_batch(self, batch_id: str) -> int:
        """Ask the grid to cancel all jobs of a batch that have not ended; gives how many there are."""
        return self._connection.run(self._flows.cancel_batch(batch_id))

    def jobs(self, *, state: str | None = None, batch: str | None = None) -> Iterator[JobStatus]:
        """Go through the grid's jobs, page by page: those of a batch as they were submitted, others by id.

        Args:
            state: only jobs in this state: queued, running, done, failed or cancelled.
            batch: only jobs of this batch.
        """
        cursor: str | None = None
        while True:
            page, cursor = self._connection.run(self._flows.jobs_page(state, batch, cursor))
            yield from page
            if cursor is None:
                return

    def batches(self) -> Iterator[BatchStatus]:
        """Go through the grid's batches, the newest first, page by page."""
        cursor: str | None = None
        while True:
            page, cursor = self._connection.run(self._flows.batches_page(cursor))
            yield from page
            if cursor is None:
                return

    def put_data(self, name: str, file_or_bytes: Input) -> DataInfo:
        """Store data under a name, for many jobs to read; storing again changes it for new jobs."""
        return self._connection.run(self._flows.put_data(name, InputUpload.of(file_or_bytes)))

    def data(self) -> list[DataInfo]:
        """List the shared data."""
        return self._connection.run(self._flows.values(DataInfo, "/data", "data"))

    def pricers(self) -> list[PricerInfo]:
        """List the pricers that the grid is configured for."""
        return self._connection.run(self._flows.values(PricerInfo, "/pricers", "pricers"))

    def capacity(self) -> Capacity:
        """Ask for the slots of the whole grid."""
        return self._connection.run(self._flows.value(Capacity, Call("GET", "/capacity")))

    def groups(self) -> list[GroupStatus]:
        """List the groups and their load."""
        return self._connection.run(self._flows.values(GroupStatus, "/groups", "groups"))

    def nodes(self) -> list[NodeStatus]:
        """List the nodes."""
        return self._connection.run(self._flows.values(NodeStatus, "/nodes", "nodes"))

    def drain(self, node: str, deadline_s: float | None = None) -> NodeStatus:
        """Give a node no new jobs; those that run there finish. Asking again changes the deadline.

        The wish is kept until `undrain`, whatever is restarted meanwhile. A leader acts on it within about a second;
        the node's state in `nodes()` is then `draining`, and `drained` when nothing runs there any more.

        Args:
            node: name of the node.
            deadline_s: seconds after which what still runs there is stopped and run on other nodes, which costs
                the jobs none of their attempts; None lets everything finish.

        Raises:
            NodeNotFoundError: the grid has no such node.
        """
        return self._connection.run(self._flows.drain(node, deadline_s))

    def undrain(self, node: str) -> NodeStatus:
        """Let a node work again.

        Raises:
            NodeNotFoundError: the grid has no such node.
        """
        return self._connection.run(self._flows.undrain(node))

    def hand_over(self, group: str) -> GroupStatus:
        """Have a group's leader hand over to another candidate; returns when that one leads.

        What runs goes on, and what waits goes on waiting; no job costs an attempt.

        Raises:
            GroupNotFoundError: the grid has no such group.
            HandOverError: the group has no other candidate, or none took over in time.
        """
        return self._connection.run(self._flows.hand_over(group))

    def contact(self, within_s: float = CONTACT_S) -> None:
        """See that a grid is there and takes the API key; returns at once if so.

        Args:
            within_s: seconds in which to try again, and for which to wait for an answer.

        Raises:
            ConnectionFailedError: nothing answers there.
            NotAuthorizedError: the key is missing or wrong.
            RaygridError: what answers there is no grid, or cannot answer now.
        """
        self._connection.run(self._flows.contact(within_s))

    def require_ready(self) -> None:
        """Ask whether the grid can take jobs and have them run; returns if it can.

        Raises:
            UnavailableError: it cannot yet; says what is missing.
        """
        self._connection.run(self._flows.members(Call("GET", "/health/ready")))

    def close(self) -> None:
        """Give the sockets back; what was submitted goes on."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of the grid at {self.url}>"
