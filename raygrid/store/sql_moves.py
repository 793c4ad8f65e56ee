"""Jobs of groups without a leader in SQL: listing, moving to other groups, cancelling.

A write here locks the group's lease row and then the row of revisions, in the same order as a leader's write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Update, bindparam, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from raygrid.models import JobState, QueuedJob
from raygrid.store import rows
from raygrid.store.port import NO_HOLDER, Unfinished
from raygrid.store.sql_database import SqlDatabase, shielded_write, threaded_read
from raygrid.store.sql_revisions import chunks, next_revisions, touch_batches
from raygrid.store.tables import jobs, leases


def _moving(states: Sequence[str]) -> Update:
    return (
        update(jobs)
        .where(
            jobs.c.job_id == bindparam("the_job"),
            jobs.c.group_id == bindparam("the_group"),
            or_(*(jobs.c.state == state for state in states)),  # `in_` does not work with executemany
        )
        .values(
            group_id=bindparam("new_group"),
            state=JobState.QUEUED.value,
            node_id=None,
            revision=bindparam("new_revision"),
        )
    )


_END = (
    update(jobs)
    .where(
        jobs.c.job_id == bindparam("the_job"),
        jobs.c.group_id == bindparam("the_group"),
        jobs.c.ended_at.is_(None),
    )
    .values(
        state=JobState.CANCELLED.value,
        reason="cancelled",
        message=rows.UNLED,
        ended_at=bindparam("new_ended_at"),
        revision=bindparam("new_revision"),
    )
)


def _states(*, running: bool) -> list[str]:
    return [JobState.RUNNING.value, JobState.QUEUED.value] if running else [JobState.QUEUED.value]


class SqlMoves:
    """Reads and writes the jobs of a group without a leader."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database

    @threaded_read
    async def unfinished(
        self, group_id: str, limit: int, *, running: bool = True, to_cancel: bool = False
    ) -> list[Unfinished]:
        """The first unfinished jobs of a group; see `JobStore.unfinished`."""
        found: list[Unfinished] = []
        async with self._database.read() as connection:
            for state in _states(running=running):  # one query per state, because the index has this order
                statement = (
                    select(jobs.c.job_id, jobs.c.affinity, jobs.c.site)
                    .where(jobs.c.group_id == group_id, jobs.c.state == state)
                    .order_by(jobs.c.priority.desc(), jobs.c.seq)
                    .limit(limit - len(found))
                )
                if to_cancel:
                    statement = statement.where(jobs.c.cancel_requested)
                found += [Unfinished(*row) for row in await connection.execute(statement)]
        return found

    @threaded_read
    async def count_unfinished(self, group_ids: Sequence[str]) -> dict[str, int]:
        """By group, the number of jobs that have not ended."""
        statement = (
            select(jobs.c.group_id, func.count())
            .where(jobs.c.group_id.in_(group_ids), jobs.c.state.in_(_states(running=True)))
            .group_by(jobs.c.group_id)
        )
        async with self._database.read() as connection:
            return {row[0]: row[1] for row in await connection.execute(statement)}

    @shielded_write
    async def move(self, from_group: str, to: Mapping[str, str], *, unled: bool = False) -> dict[str, list[QueuedJob]]:
        """Move jobs of a group to other groups; see `JobStore.move`."""
        wanted = [(job_id, group_id) for job_id, group_id in to.items() if group_id != from_group]
        moved: dict[str, list[QueuedJob]] = {}
        if not wanted:
            return moved
        async with self._database.write() as connection:
            if unled and not await self._take_from_leaders(connection, from_group):
                return moved
            revision = await next_revisions(connection, len(wanted))
            values = [
                {"the_job": job_id, "the_group": from_group, "new_group": group_id, "new_revision": revision + i}
                for i, (job_id, group_id) in enumerate(wanted)
            ]
            await connection.execute(_moving(_states(running=unled)), values)
            await touch_batches(connection, list(to))
            for chunk in chunks([job_id for job_id, _ in wanted]):
                # A job with one of the new revisions was moved in this transaction.
                columns = (*rows.HELD_COLUMNS, jobs.c.group_id)
                found = select(*columns).where(jobs.c.job_id.in_(chunk), jobs.c.revision >= revision)
                for row in await connection.execute(found):
                    moved.setdefault(row.group_id, []).append(rows.queued_job(row[:-1]))
        return moved

    @shielded_write
    async def cancel_unled(
        self, group_id: str, job_ids: Sequence[str] | None = None, *, running: bool = False, limit: int = 1_000
    ) -> list[str] | None:
        """End jobs of a group without a leader; see `JobStore.cancel_unled`."""
        ended: list[str] = []
        async with self._database.write() as connection:
            if not await self._take_from_leaders(connection, group_id):
                return None
            to_cancel = select(jobs.c.job_id).where(
                jobs.c.group_id == group_id, jobs.c.state.in_(_states(running=running)), jobs.c.cancel_requested
            )
            if job_ids is None:
                ended += (await connection.execute(to_cancel.limit(limit))).scalars()
            else:
                for chunk in chunks(job_ids[:limit]):
                    ended += (await connection.execute(to_cancel.where(jobs.c.job_id.in_(chunk)))).scalars()
            if ended:
                now = await self._database.now(connection)
                revision = await next_revisions(connection, len(ended))
                values = [
                    {"the_job": job_id, "the_group": group_id, "new_ended_at": now, "new_revision": revision + i}
                    for i, job_id in enumerate(ended)
                ]
                await connection.execute(_END, values)
                await touch_batches(connection, ended)
        return ended

    async def _take_from_leaders(self, connection: AsyncConnection, group_id: str) -> bool:
        """Raise the term, so that writes of earlier leaders are refused; False if the group has a leader.

        The lease stays expired, so that any candidate can take it.
        """
        statement = select(leases).where(leases.c.group_id == group_id).with_for_update()
        row = (await connection.execute(statement)).one_or_none()
        if row is not None and row.expires_at > await self._database.now(connection):
            return False
        if row is not None and row.holder != NO_HOLDER:
            taken = update(leases).where(leases.c.group_id == group_id).values(holder=NO_HOLDER, term=row.term + 1)
            await connection.execute(taken)
        return True
