"""The small tables of the SQL job store: shared data names, leases, drains and agreements."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, select, update

from raygrid.core.lease import Lease, next_lease
from raygrid.errors import UnavailableError
from raygrid.models import Drain, SharedData
from raygrid.store.port import LeaseState, StoredData
from raygrid.store.sql_database import SqlDatabase, cancellable_write, shielded_write, threaded_read
from raygrid.store.tables import agreements, drains, leases, shared_data

PROBE = "~probe"  # name of a row in the agreements that is only written


class SqlGridTables:
    """The small tables of a grid."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database

    # --- shared data --------------------------------------------------------------------------------------------

    @shielded_write
    async def put_data(self, data: SharedData) -> None:
        """Make a name refer to stored content."""
        async with self._database.write() as connection:
            stored_at = await self._database.now(connection)
            values = {"name": data.name, "digest": data.digest, "size": data.size, "stored_at": stored_at}
            await connection.execute(self._database.insert_or_replace(shared_data, values))

    @threaded_read
    async def get_data(self, names: Sequence[str] | None = None) -> dict[str, StoredData]:
        """The content that names refer to; see `JobStore.get_data`."""
        statement = select(shared_data)
        if names is not None:
            statement = statement.where(shared_data.c.name.in_(names))
        async with self._database.read() as connection:
            return {
                row.name: StoredData(SharedData(row.name, row.digest, row.size), row.stored_at)
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

    @threaded_read
    async def leases(self) -> dict[str, LeaseState]:
        """Every lease that was ever taken, by group."""
        async with self._database.read() as connection:
            now = await self._database.now(connection)
            rows = (await connection.execute(select(leases))).all()
        return {
            row.group_id: LeaseState(
                Lease(row.group_id, row.holder, row.term, row.expires_at), (row.expires_at - now).total_seconds()
            )
            for row in rows
        }

    # --- drains -------------------------------------------------------------------------------------------------

    @shielded_write
    async def put_drain(self, node_id: str, deadline_s: float | None = None) -> Drain:
        """Start draining a node, or change its deadline; see `JobStore.put_drain`."""
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            drain = Drain(node_id, now, None if deadline_s is None else now + timedelta(seconds=deadline_s))
            values = {"node_id": node_id, "requested_at": now, "deadline_at": drain.deadline_at}
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
            return {row.node_id: Drain(row.node_id, row.requested_at, row.deadline_at) for row in rows}

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
