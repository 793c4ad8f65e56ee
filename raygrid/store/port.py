"""The job store as the tiers see it. The store is the truth; every message between tiers is only fast.

Adapters: `SqlStore` (SQLite on one machine, PostgreSQL for a cluster) and `MemoryStore` (tests and simulation).
One contract suite, `tests/contract/test_job_store.py`, runs over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from raygrid.core.lease import Lease
from raygrid.models import BlobSlice, Definition, Drain, JobState, JobUpdate, NewJob, QueuedJob, SharedData, StoredJob

BLOBS = "blobs"  # the agreement on the blob store: its marker
MOST_COUNTED = 20_000  # jobs, which takes some 80 ms
NOBODY = "~nobody"  # holds the run-out lease of a group whose jobs were taken away, so that its term is a new one


@dataclass(frozen=True, slots=True)
class Inserted:
    """What came of inserting one job.

    Attributes:
        created: whether the job is new.
        existing: the job that had the id already, if any; none where the other one is earlier in the same call.
        conflict: whether that one has another fingerprint, so that the submit must be refused.
        reused_from: the job that ran, where the new one took over a stored result and is done.
    """

    created: bool
    existing: StoredJob | None = None
    conflict: bool = False
    reused_from: str | None = None


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """How far a batch is; `reused` of its jobs took over the results of others."""

    batch_id: str
    submitted_at: datetime
    counts: dict[JobState, int] = field(default_factory=dict)
    reused: int = 0

    @property
    def total(self) -> int:
        """Jobs in the batch."""
        return sum(self.counts.values())

    @property
    def finished(self) -> bool:
        """Whether every job has ended."""
        return all(state.is_terminal for state, count in self.counts.items() if count)


class BatchSummaryPage(NamedTuple):
    """Some batches, and whether more come after them."""

    batches: list[BatchSummary]
    more: bool


@dataclass(frozen=True, slots=True)
class Changed:
    """A job of a batch at the revision where a reader resumes after it."""

    cursor: int
    job: StoredJob


@dataclass(frozen=True, slots=True)
class StoredData:
    """A shared input as stored: a name points at content, and may point elsewhere later."""

    data: SharedData
    stored_at: datetime


@dataclass(frozen=True, slots=True)
class LeaseState:
    """A lease as it stands, and how many seconds it lives on by the store's clock; negative once it has run out."""

    lease: Lease
    left_s: float


class Reusable(NamedTuple):
    """A job whose result others may take over, and where that lies."""

    job_id: str
    result: BlobSlice


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An unfinished job with what another group is chosen by."""

    job_id: str
    affinity: str | None = None
    site: str | None = None


@dataclass(frozen=True, slots=True)
class Purged:
    """Blobs that no job needs any more, after `purge` has marked their jobs."""

    jobs: int
    blob_keys: tuple[str, ...]


class JobStore(Protocol):
    """Jobs, batches, shared data names and leases, in transactions.

    Every method is one transaction. Writes to jobs give each changed job a new revision (a purge does not); revisions
    become visible in their order, so that a reader that has seen revision N misses nothing by asking for what is above.
    """

    @property
    def is_single_machine(self) -> bool:
        """Whether only processes of one machine can share this store."""
        ...

    async def open(self) -> None:
        """Connect and bring the schema up to date."""
        ...

    async def close(self) -> None:
        """Let go of every connection."""
        ...

    async def probe(self) -> None:
        """See whether jobs could be written now, by writing next to nothing.

        Raises:
            UnavailableError: they could not; the message names the reason.
            LockedError: it is unknown, because others write for a long time.
        """
        ...

    async def insert(self, jobs: Sequence[NewJob], batch_id: str | None = None) -> list[Inserted]:
        """Insert jobs as queued, atomically; with a batch, all that are not in conflict belong to it afterwards.

        A job that exists with the same fingerprint is left as it is. A new one whose `source` is a job that still has
        a reusable result is done at once and shares that result, which is kept as long as any of the two needs it.
        """
        ...

    async def reusable(self, contents: Sequence[str]) -> dict[str, Reusable]:
        """For each of these contents the latest job that was recorded as done under it and is not purged, if any."""
        ...

    async def result_chunks(self, job_id: str) -> bytes | None:
        """The digests of the chunks of a job's result (`blobs/chunks.py`).

        None where the result is no larger than one chunk, was made by a release that recorded none, or is gone.
        """
        ...

    async def stop_reuse(self, result: BlobSlice) -> int:
        """Let no further job take over a stored result that was found damaged; gives how many offered it.

        The jobs that have it already stay as they are.
        """
        ...

    async def get(self, job_ids: Sequence[str]) -> dict[str, StoredJob]:
        """The jobs that exist among these."""
        ...

    async def record(self, group_id: str, term: int, updates: Sequence[JobUpdate]) -> bool:
        """Write a leader's updates. A job that has ended, or is another group's, stays as it is.

        Gives whether every job is now as in its update. False where some stayed as they were, and where the database
        does not report it.

        Raises:
            StaleTermError: `term` is not the group's current one; nothing was written.
        """
        ...

    async def queued(self, group_id: str, limit: int) -> list[QueuedJob]:
        """The first queued jobs of a group in the order in which they should run, inputs included."""
        ...

    async def running(self, group_id: str) -> list[QueuedJob]:
        """The jobs of a group that are recorded as running, inputs included."""
        ...

    async def unfinished_of(self, group_id: str, job_ids: Sequence[str]) -> list[QueuedJob]:
        """Those of these jobs that are a group's and have not ended, inputs included, in any order."""
        ...

    async def count_queued(self, group_id: str) -> int:
        """How many jobs of a group are queued."""
        ...

    async def queue_position(self, job: StoredJob) -> int:
        """How many queued jobs of its group stand before a queued job."""
        ...

    async def request_cancel(self, job_ids: Sequence[str]) -> list[StoredJob]:
        """Mark unfinished jobs as to be cancelled; gives those that were unfinished."""
        ...

    async def jobs(
        self,
        *,
        state: JobState | None = None,
        batch_id: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[StoredJob]:
        """A page of jobs that come after the job `after`: those of a batch as they were submitted to it, others by id.

        Raises:
            InvalidRequestError: `after` is no job of the batch.
        """
        ...

    async def batches(
        self, *, after: str | None = None, limit: int = 20, most_jobs: int = MOST_COUNTED
    ) -> BatchSummaryPage:
        """A page of batches, the newest first, those that come after the batch `after`.

        Jobs are counted: with more than `most_jobs` of them together, a page ends before it has `limit` batches.

        Raises:
            InvalidRequestError: there is no batch `after`.
        """
        ...

    async def batches_of(self, job_ids: Sequence[str]) -> dict[str, list[str]]:
        """The batches that these jobs belong to, in the order in which they joined; jobs of none are left out."""
        ...

    async def batch(self, batch_id: str) -> BatchSummary | None:
        """How far a batch is; None where it does not exist."""
        ...

    async def unfinished_of_batch(self, batch_id: str, limit: int | None = None) -> list[str]:
        """Ids of the jobs of a batch that have not ended, at most `limit`, the longest unchanged first."""
        ...

    async def changed(self, batch_id: str, after: int, limit: int, *, ended_only: bool = False) -> list[Changed]:
        """The jobs of a batch that changed after a cursor, in the order of their latest change."""
        ...

    async def put_data(self, data: SharedData) -> None:
        """Let a name point at stored content."""
        ...

    async def get_data(self, names: Sequence[str] | None = None) -> dict[str, StoredData]:
        """What names point at; all of them where none are given."""
        ...

    async def acquire_lease(self, group_id: str, holder: str, ttl_s: float) -> Lease | None:
        """Take or renew the lease of a group; None while another holds it."""
        ...

    async def release_lease(self, lease: Lease) -> None:
        """Give a lease back, so that another may take it at once."""
        ...

    async def leases(self) -> dict[str, LeaseState]:
        """Every lease that was ever taken, by group; takes no lock."""
        ...

    async def unfinished(
        self, group_id: str, limit: int, *, running: bool = True, wished: bool = False
    ) -> list[Unfinished]:
        """The first unfinished jobs of a group: those that run (with `running`), then the queued ones in their order.

        With `wished`, only those that are to be cancelled.
        """
        ...

    async def count_unfinished(self, group_ids: Sequence[str]) -> dict[str, int]:
        """How many jobs of these groups have not ended; groups without any are left out."""
        ...

    async def move(self, from_group: str, to: Mapping[str, str], *, unled: bool = False) -> dict[str, list[QueuedJob]]:
        """Give queued jobs of a group to others, `to` by job id; gives those moved, by their new group.

        A move costs a job nothing: attempts and failures stay. With `unled` running ones are moved, too, and are queued
        again. That is done only while no candidate holds the group's lease, and its term rises: a leader that is back
        must begin anew, and what it has not written yet counts no more.
        """
        ...

    async def cancel_unled(
        self, group_id: str, job_ids: Sequence[str] | None = None, *, running: bool = False, limit: int = 1_000
    ) -> list[str] | None:
        """End jobs of a group without a leader that are to be cancelled (all, or these); gives those ended.

        Queued ones only, unless `running` is set because what runs there is lost. The term rises as with `move`: the
        next leader finds all other wishes in the store. None if the group has a leader.
        """
        ...

    async def put_definitions(self, definitions: Sequence[Definition]) -> None:
        """Keep what jobs to come will run. One that is there already gets these limits, and is kept for longer."""
        ...

    async def definitions(self, digests: Sequence[str]) -> dict[str, Definition]:
        """Those of these definitions that are there, by digest."""
        ...

    async def purge_definitions(self, stored_before: datetime) -> int:
        """Remove definitions that no unfinished job runs and none has needed since an instant; gives how many."""
        ...

    async def put_drain(self, node_id: str, deadline_s: float | None = None) -> Drain:
        """Begin to drain a node, or change its deadline: `deadline_s` from now by the store's clock, None for none."""
        ...

    async def delete_drain(self, node_id: str) -> bool:
        """Let a node work again; gives whether it was being drained."""
        ...

    async def drains(self) -> dict[str, Drain]:
        """All drains, by node."""
        ...

    async def agree(self, name: str, proposal: str) -> str:
        """What the whole grid takes a name for: the first proposal ever made, the same for every caller."""
        ...

    async def agreed(self, name: str) -> str | None:
        """What was agreed on; None where nothing was proposed yet."""
        ...

    async def purge(self, ended_before: datetime, limit: int = 1_000) -> Purged:
        """Mark jobs that ended before an instant as purged; gives the blobs that are needed no more."""
        ...

    async def blobs_in_use(self, keys: Sequence[str]) -> set[str]:
        """Which of these blobs a job that is not purged refers to."""
        ...
