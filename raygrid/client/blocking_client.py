"""The blocking client."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import httpx

from raygrid.client.calls import Call
from raygrid.client.connection import BlockingConnection
from raygrid.client.endpoint import Endpoint, GridClient, one_url
from raygrid.client.flows import CONTACT_S
from raygrid.client.jobs import BatchJobs, Job
from raygrid.client.keys import ApiKeyInfo, NewKey
from raygrid.client.options import JobOptions, SubmitKeywords, checked_id, new_id
from raygrid.client.posting import job_inputs, post
from raygrid.client.retry import RetryPolicy
from raygrid.client.status import BatchStatus, Capacity, DataInfo, GroupStatus, JobStatus, NodeStatus, PricerInfo
from raygrid.client.upload import Input, InputUpload


class Client(GridClient):
    """Calls the parents of a grid over HTTP.

    Every call is tried again after a lost connection and while the grid is busy, for up to `retry_s` seconds. This is
    safe, because the grid knows a job by its id. Jobs and batches use the connections of the client that made them.
    Threads may share a client.

    Args:
        url: URL of the grid's parents, such as `http://localhost:8000`. Several entries, as a list or separated by
            commas, are used one at a time: after a failure the next one is used.
        api_key: the API key, if the grid requires one.
        timeout: seconds without a byte after which a request counts as lost, in addition to any requested wait.
        transport: httpx transport for the requests; tests pass the grid itself or a fake.
        retry_s: seconds after its first failure in which a call is tried again; 0 for never.
        retry: the complete retry policy, instead of `retry_s`.
        plain_http: whether the key may go over plain HTTP to other machines, where others on the way can read it. By
            default only if the environment variable `RAYGRID_PLAIN_HTTP` is 1.

    Raises:
        SettingsError: the URL or the key is not valid, or the key would be sent without encryption.
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
        plain_http: bool | None = None,
    ) -> None:
        policy = retry or RetryPolicy(retry_s=retry_s)
        self._endpoint = Endpoint(one_url(url), api_key, policy, plain_http=plain_http)
        self._connection = BlockingConnection(self._endpoint, timeout, transport)
        self._flows = self._connection.flows

    def submit(
        self,
        file_or_bytes: Input,
        *,
        job_id: str | None = None,
        filename: str | None = None,
        **options: Unpack[SubmitKeywords],
    ) -> Job:
        """Submit one job; once this returns, the grid does not lose the job.

        Args:
            file_or_bytes: the input: a path (every str is a path), bytes, or a file opened in binary mode.
            job_id: id of the job; by default a new UUIDv7. The same id with the same input is the same job.
            filename: name of the input in the job directory.
            **options: pricer, args, priority, affinity, site, timeout_s, data: see `JobOptions`.

        Raises:
            ConflictError: the id belongs to a job with another input, pricer, args or data.
            InvalidRequestError: the job is not valid.
            BusyError: the grid could not accept the job, despite retries.
            ConnectionFailedError: the grid did not answer, despite retries.
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
            job_ids: one id per input; by default new UUIDv7s.
            batch_id: id of the batch, which may exist; by default a new one.
            **options: for all jobs: pricer, args, priority, affinity, site, timeout_s, data: see `JobOptions`.

        Raises:
            RaygridError: as `submit`. If the grid refuses a single job, the others are submitted: see
                `BatchJobs.refused`.
        """
        batch_id = new_id() if batch_id is None else checked_id(batch_id, "batch id")
        jobs = job_inputs(files, job_ids)
        refused = self._connection.run(post(self._flows, batch_id, jobs, JobOptions(**options)))
        names = {job_id: upload.filename for job_id, upload in jobs}
        return BatchJobs(self._connection, batch_id, names, refused, names)

    def job(self, job_id: str) -> Job:
        """Attach to a job that was submitted before, without a request."""
        return Job(self._connection, checked_id(job_id))

    def batch(self, batch_id: str, *, ended_only: bool = False) -> BatchJobs:
        """Attach to a batch that was submitted before, with its jobs in the order in which they were submitted.

        Args:
            batch_id: the batch.
            ended_only: leave out the jobs that have not ended yet.

        Raises:
            JobNotFoundError: the grid has no such batch.
        """
        self._connection.run(self._flows.batch_status(batch_id))
        jobs = self.jobs(batch=batch_id)
        names = {job.job_id: job.input_name or "" for job in jobs if job.state.is_terminal or not ended_only}
        return BatchJobs(self._connection, batch_id, names, names=names)

    def batch_status(self, batch_id: str) -> BatchStatus:
        """Ask for the counts of a batch.

        Raises:
            JobNotFoundError: the grid has no such batch.
        """
        return self._connection.run(self._flows.batch_status(batch_id))

    def cancel_batch(self, batch_id: str) -> int:
        """Ask the grid to cancel all jobs of a batch that have not ended; gives their number."""
        return self._connection.run(self._flows.cancel_batch(batch_id))

    def jobs(self, *, state: str | None = None, batch: str | None = None) -> Iterator[JobStatus]:
        """Give the grid's jobs, read page by page: those of a batch in the order of their submission, others by id.

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
        """Give the grid's batches, newest first, read page by page."""
        cursor: str | None = None
        while True:
            page, cursor = self._connection.run(self._flows.batches_page(cursor))
            yield from page
            if cursor is None:
                return

    def put_data(self, name: str, file_or_bytes: Input) -> DataInfo:
        """Store data under a name, for many jobs to read; storing again changes the data for new jobs."""
        return self._connection.run(self._flows.put_data(name, InputUpload.of(file_or_bytes)))

    def data(self) -> list[DataInfo]:
        """List the shared data."""
        return self._connection.run(self._flows.values(DataInfo, "data"))

    def data_content(self, name: str) -> bytes:
        """The content of shared data.

        Raises:
            DataNotFoundError: there is no shared data of that name.
        """
        return self._connection.run(self._flows.data_content(name))

    def save_data(self, name: str, path: str | os.PathLike[str]) -> None:
        """Write the content of shared data to a file.

        Raises:
            DataNotFoundError: there is no shared data of that name.
        """
        self._connection.run(self._flows.data_content(name, Path(path)))

    def delete_data(self, name: str) -> None:
        """Remove the name of shared data; jobs that were submitted with it keep its content.

        Raises:
            DataNotFoundError: there is no shared data of that name.
        """
        self._connection.run(self._flows.delete_data(name))

    def add_key(self, key: NewKey) -> ApiKeyInfo:
        """Make an API key, for admins. Its text is in `ApiKeyInfo.key` of this answer only."""
        return self._connection.run(self._flows.add_key(key))

    def keys(self) -> list[ApiKeyInfo]:
        """List the API keys that admins made, without their secrets."""
        return self._connection.run(self._flows.values(ApiKeyInfo, "keys"))

    def rotate_key(self, key_id: str, overlap_s: float = 86_400.0) -> ApiKeyInfo:
        """Make a successor of an API key with the same rights; both are valid for `overlap_s` seconds."""
        return self._connection.run(self._flows.rotate_key(key_id, overlap_s))

    def revoke_key(self, key_id: str) -> ApiKeyInfo:
        """Make an API key invalid: every parent refuses it within a second."""
        return self._connection.run(self._flows.revoke_key(key_id))

    def pricers(self) -> list[PricerInfo]:
        """List the pricers of the grid."""
        return self._connection.run(self._flows.values(PricerInfo, "pricers"))

    def capacity(self) -> Capacity:
        """Ask for the slots of the whole grid and the number of queued jobs."""
        return self._connection.run(self._flows.value(Capacity, Call("GET", "/capacity")))

    def groups(self) -> list[GroupStatus]:
        """List the groups and their load."""
        return self._connection.run(self._flows.values(GroupStatus, "groups"))

    def nodes(self) -> list[NodeStatus]:
        """List the nodes."""
        return self._connection.run(self._flows.values(NodeStatus, "nodes"))

    def drain(self, node: str, deadline_s: float | None = None) -> NodeStatus:
        """Give a node no new jobs; jobs that run there may finish. A second call changes the deadline.

        The drain lasts until `undrain`, across restarts. A leader starts it within about a second; the node's state in
        `nodes()` is then `draining`, and `drained` once no job runs there.

        Args:
            node: name of the node.
            deadline_s: seconds after which the jobs that still run there are stopped and run on other nodes; this does
                not count as an attempt. None lets all of them finish.

        Raises:
            NodeNotFoundError: the grid has no such node.
        """
        return self._connection.run(self._flows.drain(node, deadline_s))

    def undrain(self, node: str) -> NodeStatus:
        """Give a drained node jobs again.

        Raises:
            NodeNotFoundError: the grid has no such node.
        """
        return self._connection.run(self._flows.undrain(node))

    def hand_over(self, group: str) -> GroupStatus:
        """Let another candidate lead a group; returns when it leads.

        Running and queued jobs are not affected.

        Raises:
            GroupNotFoundError: the grid has no such group.
            HandOverError: the group has no other candidate, or none took over in time.
        """
        return self._connection.run(self._flows.hand_over(group))

    def contact(self, within_s: float = CONTACT_S) -> None:
        """Check that a grid answers and accepts the API key.

        Args:
            within_s: seconds for retries, and for which to wait for an answer.

        Raises:
            ConnectionFailedError: nothing answers at the URL.
            NotAuthorizedError: the key is missing or wrong.
            RaygridError: the answer is not that of a grid, or the grid cannot answer now.
        """
        self._connection.run(self._flows.contact(within_s))

    def require_ready(self) -> None:
        """Check that the grid can accept and run jobs.

        Raises:
            UnavailableError: it cannot yet; the message names what is missing.
        """
        self._connection.run(self._flows.members(Call("GET", "/health/ready")))

    def close(self) -> None:
        """Close the connections; submitted jobs go on."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
