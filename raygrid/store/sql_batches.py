"""Batches in SQL: the jobs of a batch, their order and their progress."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from raygrid.errors import ConflictError
from raygrid.models import JobState, NewJob, StoredJob
from raygrid.store import rows
from raygrid.store.port import MOST_COUNTED, BatchSummary, BatchSummaryPage, Changed
from raygrid.store.rows import no_such_cursor
from raygrid.store.sql_database import SqlDatabase, threaded_read
from raygrid.store.sql_revisions import chunks
from raygrid.store.tables import batch_jobs, batches, jobs


class SqlBatches:
    """The tables of batches, and pages of jobs."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database

    async def require_owner(
        self, connection: AsyncConnection, batch_id: str, owner: str, jobs_: Sequence[NewJob]
    ) -> None:
        """Refuse to add jobs to a batch of another owner.

        Raises:
            ConflictError: the batch is another owner's.
        """
        found = (await connection.execute(select(batches.c.owner).where(batches.c.batch_id == batch_id))).scalars()
        for other in found:
            if other != owner and (other or not all(job.may_join_unowned for job in jobs_)):
                raise ConflictError(f"the batchId {batch_id!r} is taken by another owner; choose another batchId")

    async def join(
        self, connection: AsyncConnection, batch_id: str, owner: str, members: list[tuple[str, int]], now: datetime
    ) -> None:
        """Add jobs, each with its revision, to a batch, within the transaction that inserts them."""
        values: dict[str, Any] = {"batch_id": batch_id, "submitted_at": now, "owner": owner}
        await connection.execute(self._database.insert_ignoring(batches), values)
        if members:
            joining = [
                {"batch_id": batch_id, "job_id": job_id, "revision": revision, "position": revision}
                for job_id, revision in members
            ]
            await connection.execute(self._database.insert_ignoring(batch_jobs), joining)

    @threaded_read
    async def jobs(
        self,
        *,
        state: JobState | None = None,
        batch_id: str | None = None,
        after: str | None = None,
        limit: int = 100,
        owner: str | None = None,
    ) -> list[StoredJob]:
        """A page of jobs; see `JobStore.jobs`."""
        statement = select(*rows.JOB_COLUMNS).limit(limit)
        if state is not None:
            statement = statement.where(jobs.c.state == state.value)
        if owner is not None:
            statement = statement.where(jobs.c.owner == owner)
        async with self._database.read() as connection:
            if batch_id is None:
                statement = statement.order_by(jobs.c.job_id)
                statement = statement if after is None else statement.where(jobs.c.job_id > after)
            else:
                statement = statement.join(batch_jobs, batch_jobs.c.job_id == jobs.c.job_id)
                statement = statement.where(batch_jobs.c.batch_id == batch_id).order_by(batch_jobs.c.position)
                if after is not None:
                    position = await self._position(connection, batch_id, after, owner)
                    statement = statement.where(batch_jobs.c.position > position)
            return [rows.job(row) for row in await connection.execute(statement)]

    async def _position(self, connection: AsyncConnection, batch_id: str, job_id: str, owner: str | None) -> int:
        found = select(batch_jobs.c.position).where(batch_jobs.c.batch_id == batch_id, batch_jobs.c.job_id == job_id)
        if owner is not None:  # a cursor must not tell that another owner's job exists
            found = found.join(jobs, jobs.c.job_id == batch_jobs.c.job_id).where(jobs.c.owner == owner)
        position: int | None = (await connection.execute(found)).scalar_one_or_none()
        if position is None:
            raise no_such_cursor(job_id, f"job of batch {batch_id}")
        return position

    @threaded_read
    async def batch(self, batch_id: str) -> BatchSummary | None:
        """How far a batch is."""
        async with self._database.read() as connection:
            found = select(batches.c.submitted_at, batches.c.owner).where(batches.c.batch_id == batch_id)
            row = (await connection.execute(found)).one_or_none()
            return None if row is None else await self._counted(connection, batch_id, *row)

    async def _counted(
        self, connection: AsyncConnection, batch_id: str, submitted_at: datetime, owner: str
    ) -> BatchSummary:
        statement = (
            select(jobs.c.state, func.count(), func.count(jobs.c.reused_from))
            .join(batch_jobs, batch_jobs.c.job_id == jobs.c.job_id)
            .where(batch_jobs.c.batch_id == batch_id)
            .group_by(jobs.c.state)
        )
        states = (await connection.execute(statement)).all()
        counts = {JobState(state): count for state, count, _ in states}
        return BatchSummary(batch_id, submitted_at, counts, sum(reused for _, _, reused in states), owner)

    @threaded_read
    async def batches(
        self,
        *,
        after: str | None = None,
        limit: int = 20,
        most_jobs: int = MOST_COUNTED,
        owner: str | None = None,
    ) -> BatchSummaryPage:
        """A page of batches; see `JobStore.batches`."""
        age = (batches.c.submitted_at, batches.c.batch_id)
        statement = select(batches.c.batch_id, batches.c.submitted_at, batches.c.owner).limit(limit + 1)
        statement = statement.order_by(*(column.desc() for column in age))
        if owner is not None:
            statement = statement.where(batches.c.owner == owner)
        page: list[BatchSummary] = []
        async with self._database.read() as connection:
            if after is not None:
                found = select(*age).where(batches.c.batch_id == after)
                if owner is not None:
                    found = found.where(batches.c.owner == owner)
                last = (await connection.execute(found)).one_or_none()
                if last is None:
                    raise no_such_cursor(after, "batch")
                statement = statement.where(
                    tuple_(*age)
                    < tuple_(*(literal(value, column.type) for value, column in zip(last, age, strict=True)))
                )
            listed = (await connection.execute(statement)).all()
            for row in listed[:limit]:
                page.append(await self._counted(connection, *row))
                if sum(each.total for each in page) >= most_jobs:
                    break
        return BatchSummaryPage(page, len(page) < len(listed))

    @threaded_read
    async def batches_of(self, job_ids: Sequence[str]) -> dict[str, list[str]]:
        """The batches of jobs; see `JobStore.batches_of`."""
        found: dict[str, list[str]] = {}
        async with self._database.read() as connection:
            for chunk in chunks(list(dict.fromkeys(job_ids))):
                statement = select(batch_jobs.c.job_id, batch_jobs.c.batch_id).where(batch_jobs.c.job_id.in_(chunk))
                for job_id, batch_id in await connection.execute(statement.order_by(batch_jobs.c.position)):
                    found.setdefault(job_id, []).append(batch_id)
        return found

    @threaded_read
    async def unfinished_of_batch(self, batch_id: str, limit: int | None = None) -> list[str]:
        """Ids of the jobs of a batch that have not ended."""
        # In this order the first ones are found fast: waiting jobs have changed before all jobs that have ended.
        statement = (
            select(jobs.c.job_id)
            .join(batch_jobs, batch_jobs.c.job_id == jobs.c.job_id)
            .where(batch_jobs.c.batch_id == batch_id, jobs.c.ended_at.is_(None))
            .order_by(batch_jobs.c.revision)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return list((await connection.execute(statement)).scalars())

    @threaded_read
    async def changed(self, batch_id: str, after: int, limit: int, *, ended_only: bool = False) -> list[Changed]:
        """The jobs of a batch that changed after a cursor."""
        statement = (
            select(*rows.JOB_COLUMNS, batch_jobs.c.revision.label("cursor"))
            .join(jobs, batch_jobs.c.job_id == jobs.c.job_id)
            .where(batch_jobs.c.batch_id == batch_id, batch_jobs.c.revision > after)
            .order_by(batch_jobs.c.revision)
            .limit(limit)
        )
        if ended_only:
            statement = statement.where(jobs.c.ended_at.is_not(None))
        async with self._database.read() as connection:
            return [Changed(row[-1], rows.job(row[:-1])) for row in await connection.execute(statement)]
