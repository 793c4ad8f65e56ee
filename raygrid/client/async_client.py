"""The client for an event loop, with the methods of `Client`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import httpx

from raygrid.client.async_jobs import AsyncBatchJobs, AsyncJob
from raygrid.client.calls import Call
from raygrid.client.connection import AsyncConnection
from raygrid.client.endpoint import Endpoint, GridClient, one_url
from raygrid.client.flows import CONTACT_S
from raygrid.client.keys import ApiKeyInfo, NewKey
from raygrid.client.options import JobOptions, SubmitKeywords, checked_id, new_id
from raygrid.client.posting import job_inputs, post
from raygrid.client.retry import RetryPolicy
from raygrid.client.status import BatchStatus, Capacity, DataInfo, GroupStatus, JobStatus, NodeStatus, PricerInfo
from raygrid.client.upload import Input, InputUpload


class AsyncClient(GridClient):
    """Calls the parents of a grid over HTTP, in an event loop; arguments and errors are those of `Client`."""

    def __init__(
        self,
        url: str | Sequence[str],
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
        retry_s: float = 60.0,
        retry: RetryPolicy | None = None,
        plain_http: bool | None = None,
    ) -> None:
        policy = retry or RetryPolicy(retry_s=retry_s)
        self._endpoint = Endpoint(one_url(url), api_key, policy, plain_http=plain_http)
        self._connection = AsyncConnection(self._endpoint, timeout, transport)
        self._flows = self._connection.flows

    async def submit(
        self,
        file_or_bytes: Input,
        *,
        job_id: str | None = None,
        filename: str | None = None,
        **options: Unpack[SubmitKeywords],
    ) -> AsyncJob:
        """Submit one job; see `Client.submit`."""
        job_id = new_id() if job_id is None else job_id
        upload = InputUpload.of(file_or_bytes, filename)
        await self._connection.run(self._flows.submit(upload, job_id, JobOptions(**options)))
        return AsyncJob(self._connection, job_id)

    async def map(
        self,
        files: Iterable[Input] | Mapping[str, Input],
        *,
        job_ids: Iterable[str] | None = None,
        batch_id: str | None = None,
        **options: Unpack[SubmitKeywords],
    ) -> AsyncBatchJobs:
        """Submit many inputs as one batch, in few requests; see `Client.map`."""
        batch_id = new_id() if batch_id is None else checked_id(batch_id, "batch id")
        jobs = job_inputs(files, job_ids)
        refused = await self._connection.run(post(self._flows, batch_id, jobs, JobOptions(**options)))
        names = {job_id: upload.filename for job_id, upload in jobs}
        return AsyncBatchJobs(self._connection, batch_id, names, refused, names)

    def job(self, job_id: str) -> AsyncJob:
        """Attach to a job that was submitted before, without a request."""
        return AsyncJob(self._connection, checked_id(job_id))

    async def batch(self, batch_id: str, *, ended_only: bool = False) -> AsyncBatchJobs:
        """Attach to a batch that was submitted before; see `Client.batch`."""
        await self._connection.run(self._flows.batch_status(batch_id))
        jobs = self.jobs(batch=batch_id)
        names = {job.job_id: job.input_name or "" async for job in jobs if job.state.is_terminal or not ended_only}
        return AsyncBatchJobs(self._connection, batch_id, names, names=names)

    async def batch_status(self, batch_id: str) -> BatchStatus:
        """Ask for the counts of a batch; see `Client.batch_status`."""
        return await self._connection.run(self._flows.batch_status(batch_id))

    async def cancel_batch(self, batch_id: str) -> int:
        """Ask the grid to cancel all jobs of a batch that have not ended; gives their number."""
        return await self._connection.run(self._flows.cancel_batch(batch_id))

    async def jobs(self, *, state: str | None = None, batch: str | None = None) -> AsyncIterator[JobStatus]:
        """Give the grid's jobs, read page by page; see `Client.jobs`."""
        cursor: str | None = None
        while True:
            page, cursor = await self._connection.run(self._flows.jobs_page(state, batch, cursor))
            for status in page:
                yield status
            if cursor is None:
                return

    async def batches(self) -> AsyncIterator[BatchStatus]:
        """Give the grid's batches, newest first; see `Client.batches`."""
        cursor: str | None = None
        while True:
            page, cursor = await self._connection.run(self._flows.batches_page(cursor))
            for status in page:
                yield status
            if cursor is None:
                return

    async def put_data(self, name: str, file_or_bytes: Input) -> DataInfo:
        """Store data under a name, for many jobs to read; see `Client.put_data`."""
        return await self._connection.run(self._flows.put_data(name, InputUpload.of(file_or_bytes)))

    async def data(self) -> list[DataInfo]:
        """List the shared data."""
        return await self._connection.run(self._flows.values(DataInfo, "data"))

    async def data_content(self, name: str) -> bytes:
        """The content of shared data.

        Raises:
            DataNotFoundError: there is no shared data of that name.
        """
        return await self._connection.run(self._flows.data_content(name))

    async def save_data(self, name: str, path: str | os.PathLike[str]) -> None:
        """Write the content of shared data to a file.

        Raises:
            DataNotFoundError: there is no shared data of that name.
        """
        await self._connection.run(self._flows.data_content(name, Path(path)))

    async def delete_data(self, name: str) -> None:
        """Remove the name of shared data; jobs that were submitted with it keep its content.

        Raises:
            DataNotFoundError: there is no shared data of that name.
        """
        await self._connection.run(self._flows.delete_data(name))

    async def add_key(self, key: NewKey) -> ApiKeyInfo:
        """Make an API key, for admins. Its text is in `ApiKeyInfo.key` of this answer only."""
        return await self._connection.run(self._flows.add_key(key))

    async def keys(self) -> list[ApiKeyInfo]:
        """List the API keys that admins made, without their secrets."""
        return await self._connection.run(self._flows.values(ApiKeyInfo, "keys"))

    async def rotate_key(self, key_id: str, overlap_s: float = 86_400.0) -> ApiKeyInfo:
        """Make a successor of an API key with the same rights; both are valid for `overlap_s` seconds."""
        return await self._connection.run(self._flows.rotate_key(key_id, overlap_s))

    async def revoke_key(self, key_id: str) -> ApiKeyInfo:
        """Make an API key invalid: every parent refuses it within a second."""
        return await self._connection.run(self._flows.revoke_key(key_id))

    async def pricers(self) -> list[PricerInfo]:
        """List the pricers of the grid."""
        return await self._connection.run(self._flows.values(PricerInfo, "pricers"))

    async def capacity(self) -> Capacity:
        """Ask for the slots of the whole grid."""
        return await self._connection.run(self._flows.value(Capacity, Call("GET", "/capacity")))

    async def groups(self) -> list[GroupStatus]:
        """List the groups and their load."""
        return await self._connection.run(self._flows.values(GroupStatus, "groups"))

    async def nodes(self) -> list[NodeStatus]:
        """List the nodes."""
        return await self._connection.run(self._flows.values(NodeStatus, "nodes"))

    async def drain(self, node: str, deadline_s: float | None = None) -> NodeStatus:
        """Give a node no new jobs; see `Client.drain`."""
        return await self._connection.run(self._flows.drain(node, deadline_s))

    async def undrain(self, node: str) -> NodeStatus:
        """Give a drained node jobs again; see `Client.undrain`."""
        return await self._connection.run(self._flows.undrain(node))

    async def hand_over(self, group: str) -> GroupStatus:
        """Let another candidate lead a group; see `Client.hand_over`."""
        return await self._connection.run(self._flows.hand_over(group))

    async def contact(self, within_s: float = CONTACT_S) -> None:
        """Check that a grid answers and accepts the API key; see `Client.contact`."""
        await self._connection.run(self._flows.contact(within_s))

    async def require_ready(self) -> None:
        """Check that the grid can accept and run jobs; see `Client.require_ready`."""
        await self._connection.run(self._flows.members(Call("GET", "/health/ready")))

    async def close(self) -> None:
        """Close the connections; submitted jobs go on."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
