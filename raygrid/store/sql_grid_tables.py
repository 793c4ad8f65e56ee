"""The small tables of the SQL job store: shared data names, leases, drains and agreements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from raygrid.core.lease import HandOver, Lease, next_lease
from raygrid.errors import ConflictError, UnavailableError
from raygrid.models import Drain, SharedData
from raygrid.store.port import LeaseState, StoredData
from raygrid.store.sql_database import SqlDatabase, cancellable_write, shielded_write, threaded_read
from raygrid.store.sql_revisions import chunks
from raygrid.store.tables import agreements, data_contents, drains, jobs, leases, shared_data

PROBE = "~probe"  # name of a row in the agreements that is only written
# Uses the index on ends: reads as many rows as there are unfinished jobs.
_DATA_OF_JOBS = (
    select(jobs.c.data).where(jobs.c.purged_at.is_(None), jobs.c.ended_at.is_(None), jobs.c.data != "[]").distinct()
)


class SqlGridTables:
    """The small tables of a grid."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database

    # --- shared data --------------------------------------------------------------------------------------------

    @shielded_write
    async def put_data(self, data: SharedData, owner: str = "", *, may_take_unowned: bool = False) -> None:
        """Make a name refer to stored content; see `JobStore.put_data`."""
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            content = {"digest": data.digest, "size": data.size, "used_at": now}
            await connection.execute(self._database.insert_ignoring(data_contents), content)
            this = data_contents.c.digest == data.digest
            used = update(data_contents).where(this, data_contents.c.going.is_(False)).values(used_at=now)
            if not (await connection.execute(used)).rowcount:
                raise UnavailableError(f"the old content of the data {data.name!r} is being removed; try again")
            values = {"name": data.name, "digest": data.digest, "size": data.size, "stored_at": now, "owner": owner}
            created = (await connection.execute(self._database.insert_ignoring(shared_data), values)).rowcount
            if not created:
                before = await self._own_data(connection, data.name, owner, may_take_unowned=may_take_unowned)
                await self._unnamed(connection, before, now)
                await connection.execute(update(shared_data).where(shared_data.c.name == data.name).values(**values))

    @shielded_write
    async def delete_data(self, name: str, owner: str = "", *, any_owner: bool = False) -> bool:
        """Remove a name; see `JobStore.delete_data`."""
        async with self._database.write() as connection:
            before = await self._own_data(connection, name, owner, any_owner=any_owner)
            await self._unnamed(connection, before, await self._database.now(connection))
            return (await connection.execute(delete(shared_data).where(shared_data.c.name == name))).rowcount > 0

    async def _own_data(
        self,
        connection: AsyncConnection,
        name: str,
        owner: str,
        *,
        may_take_unowned: bool = False,
        any_owner: bool = False,
    ) -> str | None:
        """The digest of a name, whose row stays locked until the transaction ends; refuses another owner's name."""
        found = select(shared_data.c.owner, shared_data.c.digest).where(shared_data.c.name == name).with_for_update()
        row = (await connection.execute(found)).one_or_none()
        if row is None:
            return None
        if not (any_owner or row.owner == owner or (not row.owner and may_take_unowned)):
            raise ConflictError(f"the data name {name!r} is taken by another owner; choose another name")
        digest: str = row.digest
        return digest

    @staticmethod
    async def _unnamed(connection: AsyncConnection, digest: str | None, now: datetime) -> None:
        """Note that a name ceases to refer to a content, which a submit may just have looked up."""
        await connection.execute(update(data_contents).where(data_contents.c.digest == digest).values(used_at=now))

    @shielded_write
    async def start_purge_of_data(self, used_before: datetime) -> list[str]:
        """Mark contents that nothing needs any more; see `JobStore.start_purge_of_data`."""
        named = select(shared_data.c.digest)
        marked = select(data_contents.c.digest).where(data_contents.c.going)
        unnamed = select(data_contents.c.digest).where(
            data_contents.c.used_at < used_before, data_contents.c.digest.not_in(named)
        )
        async with self._database.write() as connection:
            # On PostgreSQL the rows stay locked: nobody stores the contents again meanwhile.
            found = set((await connection.execute(unnamed.with_for_update(skip_locked=True))).scalars())
            if found:  # otherwise there is no need to read the unfinished jobs
                for text in (await connection.execute(_DATA_OF_JOBS)).scalars():
                    found.difference_update(digest for _, digest, _ in json.loads(text))
            for chunk in chunks(sorted(found)):
                going = update(data_contents).where(data_contents.c.digest.in_(chunk)).values(going=True)
                await connection.execute(going)
            return sorted((await connection.execute(marked)).scalars())

    @shielded_write
    async def end_purge_of_data(self, digests: Sequence[str]) -> None:
        """Forget contents whose blobs are removed."""
        async with self._database.write() as connection:
            for chunk in chunks(digests):
                gone = delete(data_contents).where(data_contents.c.digest.in_(chunk), data_contents.c.going)
                await connection.execute(gone)

    @threaded_read
    async def get_data(self, names: Sequence[str] | None = None) -> dict[str, StoredData]:
        """The content that names refer to; see `JobStore.get_data`."""
        statement = select(shared_data)
        if names is not None:
            statement = statement.where(shared_data.c.name.in_(names))
        async with self._database.read() as connection:
            return {
                row.name: StoredData(SharedData(row.name, row.digest, row.size), row.stored_at, row.owner)
                for row in await connection.execute(statement)
            }

    # --- leases -------------------------------------------------------------------------------------------------

    @cancellable_write
    async def acquire_lease(self, group_id: str, holder: str, ttl_s: float) -> Lease | None:
        """Take or renew a lease; None while another candidate holds it."""
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            statement = select(leases).where(leases.c.group_id == group_id).with_for_update()
            row = (await connection.execute(statement)).one_or_none()
            current = Lease(row.group_id, row.holder, row.term, row.expires_at) if row else None
            lease = next_lease(current, group_id, holder, now, now + timedelta(seconds=ttl_s))
            if lease is None:
                return None
            values = {"holder": lease.holder, "term": lease.term, "expires_at": lease.expires_at}
            if current is None:
                first = self._database.insert_ignoring(leases).values(group_id=group_id, **values)
                if (await connection.execute(first)).rowcount == 0:
                    return None  # another candidate was faster
            else:
                await connection.execute(update(leases).where(leases.c.group_id == group_id).values(**values))
            return lease

    @cancellable_write
    async def release_lease(self, lease: Lease) -> None:
        """Give a lease back; no effect if another candidate has it now."""
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            statement = update(leases).where(
                leases.c.group_id == lease.group_id,
                leases.c.term == lease.term,
                leases.c.holder == lease.holder,
            )
            await connection.execute(statement.values(expires_at=now))

    @shielded_write
    async def note_hand_over(self, group_id: str, by: str) -> HandOver:
        """Record a request for a hand-over; see `JobStore.note_hand_over`."""
        async with self._database.write() as connection:
            asked = HandOver(await self._database.now(connection), by)
            statement = update(leases).where(leases.c.group_id == group_id)
            await connection.execute(statement.values(handed_over_at=asked.requested_at, handed_over_by=by))
            return asked

    @threaded_read
    async def leases(self) -> dict[str, LeaseState]:
        """Every lease that was ever taken, by group."""
        async with self._database.read() as connection:
            now = await self._database.now(connection)
            rows = (await connection.execute(select(leases))).all()
        return {
            row.group_id: LeaseState(
                Lease(row.group_id, row.holder, row.term, row.expires_at),
                (row.expires_at - now).total_seconds(),
                None if row.handed_over_at is None else HandOver(row.handed_over_at, row.handed_over_by),
            )
            for row in rows
        }

    # --- drains -------------------------------------------------------------------------------------------------

    @shielded_write
    async def put_drain(self, node_id: str, deadline_s: float | None = None, by: str = "") -> Drain:
        """Start draining a node, or change its deadline; see `JobStore.put_drain`."""
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            drain = Drain(node_id, now, None if deadline_s is None else now + timedelta(seconds=deadline_s), by)
            values = {"node_id": node_id, "requested_at": now, "deadline_at": drain.deadline_at, "requested_by": by}
            await connection.execute(self._database.insert_or_replace(drains, values))
            return drain

    @shielded_write
    async def delete_drain(self, node_id: str) -> bool:
        """Stop draining a node; return whether it was being drained."""
        async with self._database.write() as connection:
            return (await connection.execute(delete(drains).where(drains.c.node_id == node_id))).rowcount > 0

    @threaded_read
    async def drains(self) -> dict[str, Drain]:
        """All drains, by node."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(drains))
            return {row.node_id: Drain(*row) for row in rows}

    @shielded_write
    async def probe(self) -> None:
        """Write one small row; see `JobStore.probe`."""
        if (why := self._database.why_no_room()) is not None:
            raise UnavailableError(why)
        async with self._database.write() as connection:
            values = {"name": PROBE, "value": (await self._database.now(connection)).isoformat()}
            await connection.execute(self._database.insert_or_replace(agreements, values))

    # --- agreements ---------------------------------------------------------------------------------------------

    @shielded_write
    async def agree(self, name: str, proposal: str) -> str:
        """Propose a value for a name; see `JobStore.agree`."""
        async with self._database.write() as connection:
            first = self._database.insert_ignoring(agreements).values(name=name, value=proposal)
            await connection.execute(first)
            found = select(agreements.c.value).where(agreements.c.name == name)
            value: str = (await connection.execute(found)).scalar_one()
            return value

    @threaded_read
    async def agreed(self, name: str) -> str | None:
        """The agreed value of a name; None if there is no proposal yet."""
        async with self._database.read() as connection:
            found = select(agreements.c.value).where(agreements.c.name == name)
            value: str | None = (await connection.execute(found)).scalar_one_or_none()
            return value
