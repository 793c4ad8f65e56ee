"""Reuse of results in SQL: finding the job whose result a new job can reuse, and locking it during the insert.

Only rows of done jobs have a `content` (see `rows.update_values`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import JSON, cast, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from raygrid.models import BlobSlice
from raygrid.store.port import Reusable
from raygrid.store.sql_database import SqlDatabase, shielded_write, threaded_read
from raygrid.store.sql_revisions import chunks
from raygrid.store.tables import jobs

_KEPT = jobs.c.purged_at.is_(None)
# The columns that a job takes over; `reused_from` refers to the job that ran.
_RESULT = [jobs.c.result_key, jobs.c.result_offset, jobs.c.result_size, jobs.c.result_digest]
_TAKEN = [
    *(jobs.c.job_id, jobs.c.owner, jobs.c.content, jobs.c.reused_from, jobs.c.exit_code),
    *(*_RESULT, jobs.c.result_chunks),
]


class SqlReuse:
    """The results in the table of jobs that other jobs can reuse."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database

    @threaded_read
    async def reusable(self, contents: Sequence[str]) -> dict[str, Reusable]:
        """By content key, the latest job: one index lookup each, however many jobs share it."""
        text = json.dumps(list(contents))
        if self._database.is_sqlite:
            wanted = func.json_each(text).table_valued("value", name="wanted")
        else:
            wanted = func.json_array_elements_text(cast(literal(text), JSON)).table_valued("value", name="wanted")
        newest = (
            select(jobs.c.job_id)
            .where(jobs.c.content == wanted.c.value, _KEPT)
            .order_by(jobs.c.seq.desc())
            .limit(1)
            .correlate(wanted)
            .scalar_subquery()
        )
        found: dict[str, Reusable] = {}
        async with self._database.read() as connection:
            ids = (await connection.execute(select(newest).select_from(wanted))).scalars()
            for chunk in chunks([job_id for job_id in ids if job_id is not None]):
                statement = select(jobs.c.content, jobs.c.job_id, *_RESULT).where(jobs.c.job_id.in_(chunk))
                for content, job_id, *result in await connection.execute(statement):
                    found[content] = Reusable(job_id, BlobSlice(*result))
        return found

    async def lock_sources(self, connection: AsyncConnection, job_ids: Sequence[str]) -> dict[str, Mapping[Any, Any]]:
        """Read and lock the given jobs that have a reusable result; none is purged before the transaction ends.

        A job that is being purged at this moment is left out, without waiting for its lock.
        """
        found: dict[str, Mapping[Any, Any]] = {}
        for chunk in chunks(job_ids):
            statement = select(*_TAKEN).where(jobs.c.job_id.in_(chunk), jobs.c.content.is_not(None), _KEPT)
            for row in (await connection.execute(statement.with_for_update(read=True, skip_locked=True))).mappings():
                found[row["job_id"]] = row
        return found

    @shielded_write
    async def stop_reuse(self, result: BlobSlice) -> int:
        """Stop the reuse of a result; see `JobStore.stop_reuse`."""
        offers = update(jobs).where(
            jobs.c.result_key == result.key, jobs.c.result_offset == result.offset, jobs.c.content.is_not(None)
        )
        async with self._database.write() as connection:
            return (await connection.execute(offers.values(content=None))).rowcount

    @threaded_read
    async def result_chunks(self, job_id: str) -> bytes | None:
        """The digests of the chunks of a job's result; see `JobStore.result_chunks`."""
        statement = select(jobs.c.result_chunks).where(jobs.c.job_id == job_id)
        async with self._database.read() as connection:
            found: bytes | None = (await connection.execute(statement)).scalar_one_or_none()
            return found
