"""The tables of the job store. Migrations in `migrations/versions` create them; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    false,
    text,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Instant(TypeDecorator[datetime]):
    """An aware UTC instant, stored as whole microseconds since the epoch: equal order and precision in any database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Convert a value for the database."""
        return None if value is None else to_micros(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Convert a value from the database."""
        return None if value is None else from_micros(value)


def to_micros(instant: datetime) -> int:
    """Convert to whole microseconds since the epoch."""
    return (instant - EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """Convert to an aware UTC instant."""
    return EPOCH + timedelta(microseconds=micros)


metadata = MetaData()

# One row per job. `state` changes as in core/lifecycle.py: a parent inserts the row as queued (or as done, if the job
# reuses a result); after that only the leader of `group_id` with the current term changes it, or the moves of a group
# without a leader. The row of an ended job stays as it is until a purge empties it (`purged_at`).
jobs = Table(
    "jobs",
    metadata,
    Column("job_id", String(128), primary_key=True),
    Column("seq", BigInteger, nullable=False),  # revision at insertion: the order of arrival
    Column("revision", BigInteger, nullable=False),  # revision of the latest change
    Column("group_id", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("fingerprint", String(64), nullable=False),
    Column("pricer", String(64), nullable=False),
    Column("version", String(128), nullable=False),
    Column("args", Text, nullable=False),  # JSON list
    Column("priority", Integer, nullable=False),
    Column("affinity", Text),
    Column("site", Text),
    Column("timeout_s", Float),
    Column("filename", Text, nullable=False),
    Column("data", Text, nullable=False),  # JSON list of [name, digest, size]
    Column("input_key", Text, nullable=False),  # empty if the input is inline
    Column("input_offset", BigInteger, nullable=False),
    Column("input_size", BigInteger, nullable=False),
    Column("input_digest", String(64), nullable=False),
    Column("inline", LargeBinary),
    Column("attempts", Integer, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),  # attempts that count towards the limit
    Column("losses", Integer, nullable=False, default=0, server_default="0"),  # failures in which the node was lost
    Column("recalled", Integer, nullable=False, default=0, server_default="0"),  # attempts that ended for other reasons
    Column("unstarted", Integer, nullable=False, default=0, server_default="0"),  # attempts that never began
    Column("node_id", Text),
    Column("reason", String(32)),
    Column("message", Text),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("stderr_tail", Text),
    Column("result_key", Text),
    Column("result_offset", BigInteger),
    Column("result_size", BigInteger),
    Column("result_digest", String(64)),
    Column("result_chunks", LargeBinary),  # digests of the result's chunks, if it is larger than one
    Column("submitted_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    Column("purged_at", Instant),
    Column("content", String(64)),  # of a done job whose result may be reused: its content key
    Column("reused_from", String(128)),  # the job that ran, if this one reuses its result; `*` if another owner's
    Column("definition", String(64)),  # digest of its definition; null if an older release stored the job
    Column("owner", String(128), nullable=False, server_default=""),  # '' if an older release stored the job
    Column("cancelled_by", String(128)),  # the owner of the key that requested the cancellation
)
Index("jobs_by_owner", jobs.c.owner, jobs.c.job_id)
Index("jobs_by_turn", jobs.c.group_id, jobs.c.state, jobs.c.priority.desc(), jobs.c.seq)
Index("jobs_by_end", jobs.c.purged_at, jobs.c.ended_at)
Index("jobs_by_input", jobs.c.input_key)
Index("jobs_by_result", jobs.c.result_key)
_REUSABLE = text("content IS NOT NULL AND purged_at IS NULL")
Index("jobs_by_content", jobs.c.content, jobs.c.seq, sqlite_where=_REUSABLE, postgresql_where=_REUSABLE)

batches = Table(
    "batches",
    metadata,
    Column("batch_id", String(128), primary_key=True),
    Column("submitted_at", Instant, nullable=False),
    Column("owner", String(128), nullable=False, server_default=""),
)
Index("batches_by_age", batches.c.submitted_at, batches.c.batch_id)

# The jobs of a batch; `position` is the order of submission. `revision` is that of the job's latest change, or of its
# joining the batch if that was later; readers of the batch use it as their cursor.
batch_jobs = Table(
    "batch_jobs",
    metadata,
    Column("batch_id", String(128), primary_key=True),
    Column("job_id", String(128), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False, server_default="0"),  # revision at which the job joined the batch
)
Index("batch_jobs_by_position", batch_jobs.c.batch_id, batch_jobs.c.position)
Index("batch_jobs_by_revision", batch_jobs.c.batch_id, batch_jobs.c.revision)
Index("batch_jobs_by_job", batch_jobs.c.job_id)

# One row: the latest revision given out. Writers lock it until they commit, so that revisions become visible in order.
revisions = Table(
    "revisions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("latest", BigInteger, nullable=False),
)

shared_data = Table(
    "shared_data",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("stored_at", Instant, nullable=False),
    Column("owner", String(128), nullable=False, server_default=""),
)

# Every content of shared data that is stored, also after its name refers to other content or is removed.
data_contents = Table(
    "data_contents",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("used_at", Instant, nullable=False),  # when a name last began or ceased to refer to it
    Column("going", Boolean, nullable=False, server_default=false()),  # its blob is being removed
)

leases = Table(
    "leases",
    metadata,
    Column("group_id", String(128), primary_key=True),
    Column("holder", Text, nullable=False),
    Column("term", BigInteger, nullable=False),
    Column("expires_at", Instant, nullable=False),
    # The last hand-over that was requested; the lease may have changed hands since.
    Column("handed_over_at", Instant),
    Column("handed_over_by", String(128), nullable=False, server_default=""),
)

# Definitions, each stored once for all jobs that run it; the body may have secrets. `limits` are the pricer's latest.
definitions = Table(
    "definitions",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("body", Text, nullable=False),  # JSON
    Column("limits", Text, nullable=False),  # JSON
    Column("stored_at", Instant, nullable=False),  # when a parent last stored it for later jobs
)

# Draining nodes, which take no new jobs. Node names are unique in the grid and outlive Ray nodes.
drains = Table(
    "drains",
    metadata,
    Column("node_id", String(255), primary_key=True),
    Column("requested_at", Instant, nullable=False),
    Column("deadline_at", Instant),
    Column("requested_by", String(128), nullable=False, server_default=""),
)

# API keys, of which only a digest is stored; see core/access.py. Rows stay, because audit logs name them.
api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", String(16), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("owner", String(128), nullable=False),
    Column("roles", Text, nullable=False),  # JSON list
    Column("pricers", Text),  # JSON list; null for all
    Column("limits", Text, nullable=False),  # JSON object
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("expires_at", Instant),
    Column("revoked_at", Instant),
    Column("replaces", String(16)),
    Column("lifetime_ms", BigInteger),  # for which it was made; null for ever. A rotation changes expires_at
)

# Values that the whole grid agrees on, by name: the first proposal stays.
agreements = Table(
    "agreements",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
