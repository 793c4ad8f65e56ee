"""What a parent does, without HTTP: takes submits, waits for jobs, cancels them, and answers queries.

Stateless: everything that must survive is in the job store and the blob store before a client gets an answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from raygrid.blobs import BlobStore, data_key
from raygrid.core.access import Caller
from raygrid.core.routing.lost_groups import LostGroupTimeouts
from raygrid.errors import (
    ConflictError,
    DataNotFoundError,
    InvalidRequestError,
    JobNotFoundError,
    UnavailableError,
)
from raygrid.models import DoneJob, GroupCapacity, JobState, NewJob, QueuedJob, SharedData, StoredJob
from raygrid.parent.batch_inserts import BatchInserts
from raygrid.parent.blob_check import BlobCheck
from raygrid.parent.definitions import SubmittedDefinitions
from raygrid.parent.groups import Groups
from raygrid.parent.keys import KeyRing
from raygrid.parent.nodes import Nodes
from raygrid.parent.outflow import Outflow
from raygrid.parent.quotas import Quotas
from raygrid.parent.results import ResultReader
from raygrid.parent.reuse import Reuse
from raygrid.parent.store_check import StoreCheck
from raygrid.parent.submission import checked_id
from raygrid.parent.sweeper import Sweeper
from raygrid.parent.traffic import ParentTraffic
from raygrid.parent.waiters import Waiters
from raygrid.parent.whole_blob import started, whole_blob
from raygrid.settings.model import GridSettings
from raygrid.store import BatchSummary, Inserted, JobStore, StoredData
from raygrid.transport.batching import Coalescer
from raygrid.transport.ports import GroupDiscovery, JobChange, ResultCaches

logger = logging.getLogger(__name__)

OPEN_AGAIN_S = 1.0
NODE_SLACK_S = 2.0  # in addition to `node_timeout_s`, because a silent node may come back at once
LOOK_AGAIN_S = 2.0  # a waiter reads the store this often, in case a wake-up was lost


@dataclass(frozen=True, slots=True)
class Submitted:
    """The outcome of a submit: the job's state, whether the job is new, and the job whose result it took over."""

    job_id: str
    state: JobState
    created: bool
    reused_from: str | None = None

    @property
    def runs(self) -> bool:
        """Whether the job is new and has to run."""
        return self.created and self.reused_from is None


class Parent:
    """One parent. The owner opens and closes it. `home` is the group of its rack, if it runs in one."""

    def __init__(
        self,
        settings: GridSettings,
        store: JobStore,
        blobs: BlobStore,
        discovery: GroupDiscovery,
        caches: ResultCaches,
        home: str | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.blobs = blobs
        self.waiters = Waiters()
        self.traffic = ParentTraffic()
        self.groups = Groups(discovery, settings, self.waiters, home)
        self.groups.polls.give_back = store.release_lease
        patience = LostGroupTimeouts(settings.routing.lost_after_s, settings.placement.node_timeout_s + NODE_SLACK_S)
        self.sweeper = Sweeper(store, self.groups, self.waiters, patience)
        self.nodes = Nodes(store, partial(self.groups.capacities, silent_too=True))
        self.blob_check = BlobCheck(store, blobs, is_default=settings.storage.blobs is None)
        self.store_check = StoreCheck(store)
        self.results = ResultReader(
            blobs,
            caches,
            self.groups.place_of,
            self.traffic,
            home,
            blobs_are_here=settings.storage.blobs is None,  # a grid with the default directory has one machine
            chunks_of=store.result_chunks,
            on_damage=store.stop_reuse,
        )
        self.reuse = Reuse(settings, store, blobs)
        self.keys = KeyRing(store, settings.http.api_keys)
        self.quotas = Quotas(store)
        self.outflow = Outflow()
        self.definitions = SubmittedDefinitions(settings, store)
        self._inserts: Coalescer[NewJob, Inserted] = Coalescer(store.insert, name="inserts")
        self._batch_inserts = BatchInserts(store)
        self._hand_over = asyncio.Lock()
        self._looks: Coalescer[str, StoredJob | None] = Coalescer(self._look, name="looks")

    async def open(self) -> None:
        """Open all parts; waits until the job store can be reached.

        Raises:
            SettingsError: the job store refuses these settings.
        """
        while True:
            try:
                await self.store.open()
                break
            except UnavailableError as error:
                # Waiting is better than ending: the parent serves requests as soon as the store is back.
                logger.warning("cannot open the job store; trying again: %s", error)
                await asyncio.sleep(OPEN_AGAIN_S)
        await self.keys.open()
        await self.blob_check.open()
        await self.groups.open()
        await self.sweeper.open()

    async def close(self) -> None:
        """Finish writes that have begun and close all parts."""
        await self.reuse.close()
        await self._inserts.close()
        await self._batch_inserts.close()
        await self._looks.close()
        await self.sweeper.close()
        await self.groups.close()
        await self.blob_check.close()
        await self.store_check.close()
        await self.keys.close()
        await self.store.close()

    # --- submitting ---------------------------------------------------------------------------------------------

    async def submit(self, job: NewJob, caller: Caller) -> Submitted:
        """Store a job and hand it to a group; the job is durable when this returns.

        Raises:
            ConflictError: another job has the jobId.
            BusyError: no group can take the job now, or the key has reached a limit.
        """
        self.blob_check.require()
        admission = await self.quotas.admit(caller, [job])
        try:
            await self.definitions.require([job.spec.definition])
            [job] = await self.reuse.with_sources([job])
            routed = replace(job, group_id=self.groups.routing.choose(job.affinity, job.site))
            try:
                inserted = await self._inserts.put(routed)
            except BaseException:
                self._release([routed])
                raise
        finally:
            if admission is not None:
                admission.stored()
        [submitted] = self._settle([routed], [inserted])
        if isinstance(submitted, ConflictError):
            raise submitted
        return submitted

    async def submit_batch(
        self, batch_id: str, jobs: Sequence[NewJob], caller: Caller
    ) -> tuple[list[Submitted], list[tuple[str, ConflictError]]]:
        """Store jobs in one transaction; returns the accepted ones, and the ids of the others with the reason.

        Raises:
            ConflictError: another owner has the batchId.
            BusyError: no group can take the jobs now, or the key has reached a limit.
        """
        self.blob_check.require()
        admission = await self.quotas.admit(caller, jobs)
        try:
            await self.definitions.require({job.spec.definition for job in jobs})
            routed = await self.reuse.with_sources(jobs)
            for index, group_id in self.groups.routing.choose_many(routed):
                routed[index] = replace(routed[index], group_id=group_id)
            try:
                inserted = await self._batch_inserts.insert(routed, batch_id, caller.owner)
            except BaseException:
                self._release(routed)
                raise
        finally:
            if admission is not None:
                admission.stored()
        outcomes = self._settle(routed, inserted)
        accepted = [each for each in outcomes if isinstance(each, Submitted)]
        refused = [
            (job.spec.job_id, each)
            for job, each in zip(routed, outcomes, strict=True)
            if isinstance(each, ConflictError)
        ]
        return accepted, refused

    def _release(self, jobs: Sequence[NewJob]) -> None:
        """Withdraw jobs that were promised to groups."""
        for job in jobs:
            self.groups.routing.release(job.group_id)

    def _settle(self, jobs: Sequence[NewJob], inserted: Sequence[Inserted]) -> list[Submitted | ConflictError]:
        """Announce jobs that have to run to their leaders, and withdraw the others from their groups."""
        by_group: dict[str, list[NewJob]] = {}
        outcomes = [_outcome(job, each) for job, each in zip(jobs, inserted, strict=True)]
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, Submitted) and outcome.runs:
                by_group.setdefault(job.group_id, []).append(job)
            else:
                self._release([job])
        for group_id, fresh in by_group.items():
            self.traffic.handed_over(group_id, fresh)
            self.groups.announce(group_id, [QueuedJob(job.spec) for job in fresh])
        self.waiters.changed(
            JobChange(each.job_id, each.state)
            for each in outcomes
            if isinstance(each, Submitted) and each.created and each.reused_from
        )
        return outcomes

    # --- waiting and queries ------------------------------------------------------------------------------------

    async def _look(self, job_ids: Sequence[str]) -> list[StoredJob | None]:
        found = await self.store.get(list(dict.fromkeys(job_ids)))
        return [found.get(job_id) for job_id in job_ids]

    async def job(self, job_id: str, caller: Caller | None = None) -> StoredJob:
        """A job; with `caller`, only if that caller sees it.

        Raises:
            JobNotFoundError: there is no job with that id, or the caller does not see it.
        """
        job = await self._looks.put(checked_id(job_id))
        if job is None or (caller is not None and not caller.sees(job.owner)):
            raise _no_job(job_id, hides=job is not None)
        return job

    async def job_to_change(self, job_id: str, caller: Caller) -> StoredJob:
        """A job that a caller wants to change.

        Raises:
            JobNotFoundError: there is no job with that id.
            ConflictError: the caller may not change it.
        """
        job = await self.job(job_id)
        if not caller.sees(job.owner):
            raise ConflictError(f"the jobId {job_id!r} is taken by another owner, who alone can cancel the job")
        return job

    async def wait(
        self, job_id: str, wait_s: float, caller: Caller | None = None, *, is_new: bool = False
    ) -> StoredJob | DoneJob:
        """The job once it has ended, or its state at the end of the wait; with `caller`, only if it owns the job.

        `is_new`: this parent has just stored the job and it has to run, so it is not read at once.

        Raises:
            JobNotFoundError: there is no job with that id, or the caller does not own it.
        """
        if caller is not None and not caller.owns((await self.job(job_id)).owner):
            raise _no_job(job_id, hides=True)
        changed = self.waiters.watch_job(job_id)
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        try:
            while True:
                changed.clear()
                if changed.done is not None:
                    return changed.done
                left = until - loop.time()
                if not is_new or left <= 0:
                    job = await self.job(job_id)
                    left = until - loop.time()
                    if job.state.is_terminal or left <= 0:
                        return job
                is_new = False
                try:
                    async with asyncio.timeout(min(left, LOOK_AGAIN_S)):
                        await changed.wait()
                except TimeoutError:
                    continue
        finally:
            self.waiters.forget(changed, job_id)

    async def position(self, job: StoredJob) -> int | None:
        """The number of jobs before a queued job; None for other jobs."""
        return await self.store.queue_position(job) if job.state is JobState.QUEUED else None

    async def batch(self, batch_id: str, caller: Caller | None = None, *, results: bool = False) -> BatchSummary:
        """The progress of a batch; with `caller`, only if that caller sees it, or with `results` owns it.

        Raises:
            JobNotFoundError: there is no batch with that id, or the caller may not see it.
        """
        summary = await self.store.batch(checked_id(batch_id, "batchId"))
        may = caller is None or summary is None or (caller.owns if results else caller.sees)(summary.owner)
        if summary is None or not may:
            missing = JobNotFoundError(f"there is no batch {batch_id!r}")
            missing.hides = summary is not None
            raise missing
        return summary

    async def batch_to_change(self, batch_id: str, caller: Caller) -> BatchSummary:
        """A batch that a caller wants to change.

        Raises:
            JobNotFoundError: there is no batch with that id.
            ConflictError: the caller may not change it.
        """
        summary = await self.batch(batch_id)
        if not caller.sees(summary.owner):
            raise ConflictError(f"the batchId {batch_id!r} is taken by another owner, who alone can cancel its jobs")
        return summary

    # --- cancelling ---------------------------------------------------------------------------------------------

    async def cancel(self, job_ids: Sequence[str], caller: Caller) -> int:
        """Request the cancellation of unfinished jobs in the store and at their leaders; returns how many there are."""
        requested = await asyncio.shield(asyncio.ensure_future(self.store.request_cancel(job_ids, caller.owner)))
        by_group: dict[str, list[str]] = {}
        for job in requested:
            by_group.setdefault(job.group_id, []).append(job.job_id)
        for group_id, ids in by_group.items():
            try:
                await self.groups.cancel(group_id, ids)
            except UnavailableError:
                self.sweeper.cancel(group_id, ids)  # the next leader also finds the request in the store
        return len(requested)

    # --- shared data --------------------------------------------------------------------------------------------

    async def put_data(self, name: str, chunks: AsyncIterator[bytes], caller: Caller) -> StoredData:
        """Store a shared input under its hash, and assign the name to it.

        Raises:
            ConflictError: the name is another owner's.
            BusyError: the key has reached a limit.
        """
        checked_id(name, "data name")
        self.blob_check.require()
        await self._require_own_data(name, caller)  # before a long upload
        admission = await self.quotas.admit_upload(caller)
        try:
            blob = await self.blobs.upload(chunks if admission is None else admission.limited(chunks), data_key)
            if blob.size == 0:
                raise InvalidRequestError(f"the shared data {name!r} is empty")
            data = SharedData(name, blob.digest, blob.size)
            self.traffic.count("received", "", blob.size)
            self.traffic.count("stored", "", blob.size)
            await self.store.put_data(data, caller.owner, may_take_unowned=caller.owns(""))
        finally:
            if admission is not None:
                admission.stored()
        return StoredData(data, datetime.now(UTC), caller.owner)

    async def hand_over(self, group_id: str, by: str, term: int | None = None) -> GroupCapacity:
        """Hand a group's lead over for an owner, and record it; see `Groups.hand_over`."""
        async with self._hand_over:  # one after the other, so that who asks meanwhile also finds the record
            load, is_done = await self.groups.hand_over(group_id, term)
            if is_done:
                logger.info("group %s: %s has handed its lead over to %s", group_id, by, load.leader)
                self.sweeper.note_hand_over(group_id, await self.store.note_hand_over(group_id, by))
            return load

    async def data(self, caller: Caller, names: Sequence[str] | None = None) -> dict[str, StoredData]:
        """The caller's shared inputs by name; all of them if `names` is None."""
        if names is not None and not names:
            return {}
        found = await self.store.get_data(names)
        return {name: each for name, each in found.items() if caller.owns(each.owner)}

    async def data_content(self, name: str, caller: Caller) -> tuple[StoredData, AsyncIterator[bytes]]:
        """A shared input and its content, in pieces; a damaged content ends with an error before its last piece.

        Raises:
            DataNotFoundError: the caller has no shared input of that name.
        """
        found = (await self.store.get_data([checked_id(name, "data name")])).get(name)
        if found is None or not caller.owns(found.owner):
            raise _no_data(name, hides=found is not None)
        pieces = whole_blob(self.blobs, data_key(found.data.digest), found.data.size, found.data.digest)
        return found, await started(pieces)

    async def delete_data(self, name: str, caller: Caller) -> None:
        """Remove the name of a shared input; jobs that were submitted with it keep its content.

        Raises:
            DataNotFoundError: there is no shared input of that name.
            ConflictError: it is another owner's.
        """
        checked_id(name, "data name")
        if not await self.store.delete_data(name, caller.owner, any_owner=caller.owns("")):
            raise _no_data(name, hides=False)

    async def _require_own_data(self, name: str, caller: Caller) -> None:
        found = (await self.store.get_data([name])).get(name)
        if found is not None and found.owner != caller.owner and (found.owner or not caller.owns("")):
            raise ConflictError(f"the data name {name!r} is taken by another owner; choose another name")


def _no_job(job_id: str, *, hides: bool) -> JobNotFoundError:
    error = JobNotFoundError(f"there is no job {job_id!r}")
    error.hides = hides
    return error


def _no_data(name: str, *, hides: bool) -> DataNotFoundError:
    error = DataNotFoundError(f"there is no shared data {name!r}; store it with PUT /data/{name}")
    error.hides = hides
    return error


def _outcome(job: NewJob, inserted: Inserted) -> Submitted | ConflictError:
    job_id, before = job.spec.job_id, inserted.existing
    if inserted.foreign:
        return ConflictError(f"the jobId {job_id!r} is taken by a job of another owner; choose another jobId")
    if inserted.conflict:
        return ConflictError(
            f"the jobId {job_id!r} is taken by a job with another input, pricer, args or shared data; choose another "
            "jobId, or send exactly what was sent before"
        )
    if before is not None:
        return Submitted(job_id, before.state, False, before.reused_from)
    state = JobState.QUEUED if inserted.reused_from is None else JobState.DONE
    return Submitted(job_id, state, inserted.created, inserted.reused_from)
