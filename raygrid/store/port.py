"""The port of the job store. The store is the truth; messages between tiers only save time.

Adapters: `SqlStore` (SQLite on one machine, PostgreSQL for a cluster) and `MemoryStore` (tests and simulation).
`tests/contract/test_job_store.py` tests all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from raygrid.core.access import Caller, StoredKey
from raygrid.core.lease import HandOver, Lease
from raygrid.models import (
    BlobSlice,
    Definition,
    Drain,
    JobState,
    JobUpdate,
    NewJob,
    QueuedJob,
    SharedData,
    StoredJob,
)

BLOBS = "blobs"  # name of the agreement on the blob store's marker
MOST_COUNTED = 20_000  # jobs; counting them takes about 80 ms
NO_HOLDER = "~nobody"  # holder of the expired lease of a group whose jobs were taken away; its term is a new one


@dataclass(frozen=True, slots=True)
class Inserted:
    """The outcome of inserting one job.

    Attributes:
        created: whether the job is new.
        existing: the stored job with the same id, if any; None if the other job is in the same call.
        conflict: whether the other job has another fingerprint or owner, so that the submit must be refused.
        foreign: whether that is so because the other job is another owner's.
        reused_from: the job that ran, if the new one reuses a stored result and is done.
    """

    created: bool
    existing: StoredJob | None = None
    conflict: bool = False
    reused_from: str | None = None
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """The progress of a batch; `reused` of its jobs reuse the results of other jobs."""

    batch_id: str
    submitted_at: datetime
    counts: dict[JobState, int] = field(default_factory=dict)
    reused: int = 0
    owner: str = ""

    @property
    def total(self) -> int:
        """Number of jobs in the batch."""
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
    """A changed job of a batch, and the cursor after which a reader continues."""

    cursor: int
    job: StoredJob


@dataclass(frozen=True, slots=True)
class StoredData:
    """A shared input as stored; its name may refer to other content later."""

    data: SharedData
    stored_at: datetime
    owner: str = ""


@dataclass(frozen=True, slots=True)
class LeaseState:
    """A lease, and the seconds until it expires by the store's clock (negative after that).

    `hand_over` is the last request that its holder step down, None if there was none.
    """

    lease: Lease
    left_s: float
    hand_over: HandOver | None = None


class Reusable(NamedTuple):
    """A job whose result other jobs may reuse, and the place of the result."""

    job_id: str
    result: BlobSlice


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An unfinished job with the fields that routing needs."""

    job_id: str
    affinity: str | None = None
    site: str | None = None


@dataclass(frozen=True, slots=True)
class Purged:
    """The number of jobs that `purge` has marked, and the blobs that no job needs any more."""

    jobs: int
    blob_keys: tuple[str, ...]


class OwnerUsage(NamedTuple):
    """What an owner uses: unfinished jobs, and the bytes of their inputs and of its shared data."""

    unfinished: int
    bytes: int


class KeyBook(NamedTuple):
    """All API keys, the oldest first, and the time of the store's clock, which decides whether they are valid."""

    keys: list[StoredKey]
    now: datetime


class JobStore(Protocol):
    """Jobs, batches, shared data names and leases, in transactions.

    Every method is one transaction. A write gives each changed job a new revision (a purge does not). Revisions become
    visible in order, so that a reader that has seen revision N misses nothing when it reads only higher ones.
    """

    @property
    def is_single_machine(self) -> bool:
        """Whether only processes of one machine can share this store."""

    async def open(self) -> None:
        """Connect and update the schema."""

    async def close(self) -> None:
        """Close every connection."""

    async def probe(self) -> None:
        """Check with a minimal write whether jobs can be written now.

        Raises:
            UnavailableError: they cannot; the message has the reason.
            LockedError: unknown, because other writers hold a lock for a long time.
        """

    async def insert(
        self, jobs: Sequence[NewJob], batch_id: str | None = None, batch_owner: str = ""
    ) -> list[Inserted]:
        """Insert jobs as queued, atomically; with a batch, add all of them that are not in conflict to it.

        A job that exists with the same fingerprint and owner stays as it is. A new job whose `source` still has a
        reusable result is done at once and shares that result, which is kept as long as either job needs it.

        Raises:
            ConflictError: the batch is another owner's; nothing was inserted.
        """

    async def reusable(self, contents: Sequence[str]) -> dict[str, Reusable]:
        """By content key, the latest job that is done with it and not purged; keys without one are left out."""

    async def result_chunks(self, job_id: str) -> bytes | None:
        """The digests of the chunks of a job's result (`blobs/chunks.py`).

        None if the result fits into one chunk, was made by a release that recorded none, or is gone.
        """

    async def stop_reuse(self, result: BlobSlice) -> int:
        """Stop the reuse of a result that was found damaged; return the number of jobs that offered it.

        Jobs that have the result already stay as they are.
        """

    async def get(self, job_ids: Sequence[str]) -> dict[str, StoredJob]:
        """The given jobs that exist, by id."""

    async def record(self, group_id: str, term: int, updates: Sequence[JobUpdate]) -> bool:
        """Write a leader's updates. A job that has ended, or belongs to another group, stays as it is.

        Returns whether every update was applied; also False if the database does not report it.

        Raises:
            StaleTermError: `term` is not the group's current one; nothing was written.
        """

    async def queued(self, group_id: str, limit: int) -> list[QueuedJob]:
        """The first queued jobs of a group in the order in which they should run, with inline inputs."""

    async def running(self, group_id: str) -> list[QueuedJob]:
        """The jobs of a group that are recorded as running, with inline inputs."""

    async def unfinished_of(self, group_id: str, job_ids: Sequence[str]) -> list[QueuedJob]:
        """The given jobs that belong to a group and have not ended, with inline inputs, in any order."""

    async def count_queued(self, group_id: str) -> int:
        """Number of queued jobs of a group."""

    async def queue_position(self, job: StoredJob) -> int:
        """Number of queued jobs of the same group that come before a queued job."""

    async def request_cancel(self, job_ids: Sequence[str], by: str = "") -> list[StoredJob]:
        """Request the cancellation of jobs for an owner; return those that were unfinished."""

    async def usage(self, owner: str) -> OwnerUsage:
        """What an owner uses now."""

    async def jobs(
        self,
        *,
        state: JobState | None = None,
        batch_id: str | None = None,
        after: str | None = None,
        limit: int = 100,
        owner: str | None = None,
    ) -> list[StoredJob]:
        """A page of jobs after the job `after`: those of a batch in the order of submission, others by id.

        With `owner`, only jobs of that owner.

        Raises:
            InvalidRequestError: `after` is not a job of the batch.
        """

    async def batches(
        self,
        *,
        after: str | None = None,
        limit: int = 20,
        most_jobs: int = MOST_COUNTED,
        owner: str | None = None,
    ) -> BatchSummaryPage:
        """A page of batches after the batch `after`, the newest first; with `owner`, only that owner's.

        A page ends before it has `limit` batches if these have more than `most_jobs` jobs together.

        Raises:
            InvalidRequestError: there is no batch `after`.
        """

    async def batches_of(self, job_ids: Sequence[str]) -> dict[str, list[str]]:
        """By job, its batches in the order in which it joined them; jobs without a batch are left out."""

    async def batch(self, batch_id: str) -> BatchSummary | None:
        """The progress of a batch; None if it does not exist."""

    async def unfinished_of_batch(self, batch_id: str, limit: int | None = None) -> list[str]:
        """Ids of the jobs of a batch that have not ended, at most `limit`, the least recently changed first."""

    async def changed(self, batch_id: str, after: int, limit: int, *, ended_only: bool = False) -> list[Changed]:
        """The jobs of a batch that changed after a cursor, in the order of their latest change."""

    async def put_data(self, data: SharedData, owner: str = "", *, may_take_unowned: bool = False) -> None:
        """Make a name of an owner refer to stored content.

        With `may_take_unowned`, a name that an older release stored becomes that owner's.

        Raises:
            ConflictError: the name is another owner's.
            UnavailableError: the content is just being removed, because nothing needed it; store it again.
        """

    async def delete_data(self, name: str, owner: str = "", *, any_owner: bool = False) -> bool:
        """Remove a name; return whether it existed. Its content is removed later.

        Raises:
            ConflictError: the name is another owner's, and not `any_owner`.
        """

    async def start_purge_of_data(self, used_before: datetime) -> list[str]:
        """Mark contents of shared data that no name (since an instant) and no unfinished job needs.

        A marked content cannot be stored again before `end_purge_of_data`.

        Returns:
            The digests of all marked contents, whose blobs the caller removes.
        """

    async def end_purge_of_data(self, digests: Sequence[str]) -> None:
        """Forget marked contents whose blobs are removed."""

    async def get_data(self, names: Sequence[str] | None = None) -> dict[str, StoredData]:
        """The content that names refer to; all names if none are given."""

    async def acquire_lease(self, group_id: str, holder: str, ttl_s: float) -> Lease | None:
        """Take or renew the lease of a group; None while another candidate holds it."""

    async def release_lease(self, lease: Lease) -> None:
        """Give a lease back, so that another candidate can take it at once."""

    async def note_hand_over(self, group_id: str, by: str) -> HandOver:
        """Record that an owner requests a hand-over of a group's lead; the lease stays as it is."""

    async def leases(self) -> dict[str, LeaseState]:
        """Every lease that was ever taken, by group; reads without a lock."""

    async def unfinished(
        self, group_id: str, limit: int, *, running: bool = True, to_cancel: bool = False
    ) -> list[Unfinished]:
        """The first unfinished jobs of a group: the running ones (with `running`), then the queued ones in order.

        With `to_cancel`, only those whose cancellation was requested.
        """

    async def count_unfinished(self, group_ids: Sequence[str]) -> dict[str, int]:
        """By group, the number of jobs that have not ended; groups without any are left out."""

    async def move(self, from_group: str, to: Mapping[str, str], *, unled: bool = False) -> dict[str, list[QueuedJob]]:
        """Move queued jobs of a group to other groups, `to` by job id; return the moved jobs by their new group.

        A move does not change the counts of attempts. With `unled`, running jobs are moved too, and are queued again.
        This happens only while no candidate holds the group's lease, and it raises the term: a leader that returns must
        start again, and its pending writes are refused.
        """

    async def cancel_unled(
        self, group_id: str, job_ids: Sequence[str] | None = None, *, running: bool = False, limit: int = 1_000
    ) -> list[str] | None:
        """End jobs of a group without a leader whose cancellation was requested (all, or `job_ids`); return the ended.

        Only queued jobs, unless `running` is set because the running attempts are lost. The term rises as with `move`:
        the next leader finds all other requests in the store. None if the group has a leader.
        """

    async def put_definitions(self, definitions: Sequence[Definition]) -> None:
        """Store definitions for later jobs. An existing one gets the new limits and is kept for longer."""

    async def definitions(self, digests: Sequence[str]) -> dict[str, Definition]:
        """The given definitions that exist, by digest."""

    async def purge_definitions(self, stored_before: datetime) -> int:
        """Remove definitions that no unfinished job runs and that were stored before an instant; return how many."""

    async def put_drain(self, node_id: str, deadline_s: float | None = None, by: str = "") -> Drain:
        """Start draining a node for an owner, or change its deadline: `deadline_s` from now by the store's clock."""

    async def delete_drain(self, node_id: str) -> bool:
        """Stop draining a node; return whether it was being drained."""

    async def drains(self) -> dict[str, Drain]:
        """All drains, by node."""

    async def keys(self) -> KeyBook:
        """All API keys."""

    async def add_key(self, caller: Caller, digest: str, by: str, lifetime_s: float | None = None) -> StoredKey:
        """Store a new key, made by the owner `by`; it is valid for `lifetime_s` seconds, None for ever."""

    async def rotate_key(
        self, key_id: str, successor_id: str, digest: str, by: str, overlap_s: float
    ) -> StoredKey | None:
        """Store a successor with the same rights and lifetime; the old key stays valid for `overlap_s` seconds.

        None if there is no valid key of that id.
        """

    async def revoke_key(self, key_id: str) -> StoredKey | None:
        """Make a key invalid at once and for ever; None if there is none of that id."""

    async def agree(self, name: str, proposal: str) -> str:
        """Propose a value for a name; return the first value ever proposed, which all callers get."""

    async def agreed(self, name: str) -> str | None:
        """The agreed value of a name; None if there is no proposal yet."""

    async def purge(self, ended_before: datetime, limit: int = 1_000) -> Purged:
        """Mark jobs that ended before an instant as purged; return the blobs that no job needs any more."""

    async def blobs_in_use(self, keys: Sequence[str]) -> set[str]:
        """The given blobs that a job refers to that is not purged."""
