"""Results that a job may take over from an earlier one: how they are found, and held on to while a job is inserted.

Called by `SqlStore`, inside its transactions. Only rows that ended as done have a `content` (see `rows.update_values`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import JSON, cast, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from raygrid.models import BlobSlice
from raygrid.store.port import Reusable
from raygrid.store.sql_revisions import chunks
from raygrid.store.tables import jobs

_KEPT = jobs.c.purged_at.is_(None)
# What a job takes over; `reused_from` leads to the job that really ran.
_RESULT = [jobs.c.result_key, jobs.c.result_offset, jobs.c.result_size, jobs.c.result_digest]
_TAKEN = [jobs.c.job_id, jobs.c.content, jobs.c.reused_from, jobs.c.exit_code, *_RESULT, jobs.c.result_chunks]


async def latest(connection: AsyncConnection, contents: Sequence[str], *, is_sqlite: bool) -> dict[str, Reusable]:
    """The latest job of each content that has one: one look into the index, however many jobs share it."""
    text = json.dumps(list(contents))
    if is_sqlite:
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
    ids = (await connection.execute(select(newest).select_from(wanted))).scalars()
    found: dict[str, Reusable] = {}
    for chunk in chunks([job_id for job_id in ids if job_id is not None]):
        statement = select(jobs.c.content, jobs.c.job_id, *_RESULT).where(jobs.c.job_id.in_(chunk))
        for content, job_id, *result in await connection.execute(statement):
            found[content] = Reusable(job_id, BlobSlice(*result))
    return found


async def held(connection: AsyncConnection, job_ids: Sequence[str]) -> dict[str, Mapping[Any, Any]]:
    """What those of these jobs left that still have their results; none is purged before the transaction ends.

    One that is being purged at this moment is left out rather than waited for.
    """
    found: dict[str, Mapping[Any, Any]] = {}
    for chunk in chunks(job_ids):
        statement = select(*_TAKEN).where(jobs.c.job_id.in_(chunk), jobs.c.content.is_not(None), _KEPT)
        for row in (await connection.execute(statement.with_for_update(read=True, skip_locked=True))).mappings():
            found[row["job_id"]] = row
    return found


async def stop(connection: AsyncConnection, result: BlobSlice) -> int:
    """Take a result out of what is found by content, for the job that ran and those that took it over."""
    statement = update(jobs).where(
        jobs.c.result_key == result.key, jobs.c.result_offset == result.offset, jobs.c.content.is_not(None)
    )
    return (await connection.execute(statement.values(content=None))).rowcount


async def chunks_of(connection: AsyncConnection, job_id: str) -> bytes | None:
    """The digests of the chunks of a job's result."""
    found: bytes | None = (
        await connection.execute(select(jobs.c.result_chunks).where(jobs.c.job_id == job_id))
    ).scalar_one_or_none()
    return found
