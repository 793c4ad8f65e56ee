"""Revisions in SQL: numbers that order all changes of all jobs; and statements that many transactions share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import BigInteger, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from raygrid.store.prepared import prepared
from raygrid.store.tables import batch_jobs, jobs, revisions

CHUNK = 500  # below SQLite's limit of bound variables, with room for others in the statement

# These statements are built once: building one costs more than a short transaction.
_NEXT_REVISIONS = prepared(
    update(revisions)
    .values(latest=revisions.c.latest + bindparam("wanted", type_=BigInteger()))
    .returning(revisions.c.latest)
)
_NEWEST = select(jobs.c.revision).where(jobs.c.job_id == batch_jobs.c.job_id).scalar_subquery()
_TOUCH_BATCHES = prepared(
    update(batch_jobs)
    .where(batch_jobs.c.job_id == bindparam("the_job"), batch_jobs.c.revision < _NEWEST)
    .values(revision=_NEWEST)
)


def chunks(items: Sequence[str]) -> Iterable[Sequence[str]]:
    """Split items into parts that fit into one statement."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


async def next_revisions(connection: AsyncConnection, count: int) -> int:
    """Reserve `count` revisions and return the first. The row stays locked until the transaction ends."""
    latest: int = (await connection.execute(_NEXT_REVISIONS, {"wanted": count})).scalar_one()
    return latest - count + 1


async def touch_batches(connection: AsyncConnection, job_ids: Sequence[str]) -> None:
    """Set the revisions of changed jobs in their batches."""
    if job_ids:
        await connection.execute(_TOUCH_BATCHES, [{"the_job": job_id} for job_id in job_ids])
