"""Definitions of pricers in SQL, each stored once for all jobs that run it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select

from raygrid.models import Definition
from raygrid.store.sql_database import SqlDatabase, shielded_write, threaded_read
from raygrid.store.tables import definitions, jobs

# Uses the index on ends: reads as many rows as there are unfinished jobs.
_NEEDED = select(jobs.c.definition).where(
    jobs.c.purged_at.is_(None), jobs.c.ended_at.is_(None), jobs.c.definition.is_not(None)
)


class SqlDefinitions:
    """The table of definitions."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database

    @shielded_write
    async def put_definitions(self, definitions_: Sequence[Definition]) -> None:
        """Store definitions for later jobs; see `JobStore.put_definitions`."""
        async with self._database.write() as connection:
            stored_at = await self._database.now(connection)
            for each in sorted(definitions_, key=lambda each: each.digest):  # all callers lock rows in the same order
                values = {"digest": each.digest, "body": each.body, "limits": each.limits, "stored_at": stored_at}
                await connection.execute(self._database.insert_or_replace(definitions, values))

    @threaded_read
    async def definitions(self, digests: Sequence[str]) -> dict[str, Definition]:
        """The given definitions that exist, by digest."""
        wanted = select(definitions.c.digest, definitions.c.body, definitions.c.limits)
        async with self._database.read() as connection:
            rows = await connection.execute(wanted.where(definitions.c.digest.in_(digests)))
            return {row.digest: Definition(*row) for row in rows}

    @shielded_write
    async def purge_definitions(self, stored_before: datetime) -> int:
        """Remove definitions that no job needs any more; see `JobStore.purge_definitions`."""
        old = definitions.c.stored_at < stored_before
        async with self._database.write() as connection:
            found = set((await connection.execute(select(definitions.c.digest).where(old))).scalars())
            if found:  # otherwise there is no need to read the unfinished jobs
                found -= set((await connection.execute(_NEEDED.distinct())).scalars())
            if found:
                # `old` is checked again, because a definition may have been stored again meanwhile.
                await connection.execute(delete(definitions).where(definitions.c.digest.in_(found), old))
        return len(found)
