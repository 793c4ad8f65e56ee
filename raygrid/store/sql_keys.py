"""API keys in SQL. Only digests of keys are stored."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from raygrid.core.access import Caller, KeyLimits, Role, StoredKey
from raygrid.store.port import KeyBook
from raygrid.store.sql_database import SqlDatabase, shielded_write, threaded_read
from raygrid.store.tables import api_keys


class SqlKeys:
    """The table of API keys."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database

    @threaded_read
    async def keys(self) -> KeyBook:
        """All keys, the oldest first; see `JobStore.keys`."""
        async with self._database.read() as connection:
            now = await self._database.now(connection)
            rows = await connection.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.key_id))
            return KeyBook([_key(row) for row in rows], now)

    @shielded_write
    async def add_key(self, caller: Caller, digest: str, by: str, lifetime_s: float | None = None) -> StoredKey:
        """Store a new key; see `JobStore.add_key`."""
        async with self._database.write() as connection:
            return await self._insert(connection, caller, digest, by, lifetime_s)

    @shielded_write
    async def rotate_key(
        self, key_id: str, successor_id: str, digest: str, by: str, overlap_s: float
    ) -> StoredKey | None:
        """Store a successor with the same rights; see `JobStore.rotate_key`."""
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            found = (
                await connection.execute(select(api_keys).where(api_keys.c.key_id == key_id).with_for_update())
            ).one_or_none()
            if found is None or not (old := _key(found)).is_valid(now):
                return None
            caller = Caller(successor_id, old.caller.owner, old.caller.roles, old.caller.pricers, old.caller.limits)
            lifetime_s = None if found.lifetime_ms is None else found.lifetime_ms / 1000
            new = await self._insert(connection, caller, digest, by, lifetime_s, key_id)
            until = now + timedelta(seconds=overlap_s)
            ends = until if old.expires_at is None else min(until, old.expires_at)
            await connection.execute(update(api_keys).where(api_keys.c.key_id == key_id).values(expires_at=ends))
            return new

    @shielded_write
    async def revoke_key(self, key_id: str) -> StoredKey | None:
        """Make a key invalid; see `JobStore.revoke_key`."""
        this = api_keys.c.key_id == key_id
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            first = update(api_keys).where(this, api_keys.c.revoked_at.is_(None))
            await connection.execute(first.values(revoked_at=now))
            row = (await connection.execute(select(api_keys).where(this))).one_or_none()
            return None if row is None else _key(row)

    async def _insert(
        self,
        connection: AsyncConnection,
        caller: Caller,
        digest: str,
        by: str,
        lifetime_s: float | None,
        replaces: str | None = None,
    ) -> StoredKey:
        now = await self._database.now(connection)
        ends: datetime | None = None if lifetime_s is None else now + timedelta(seconds=lifetime_s)
        limits = {name: value for name, value in caller.limits.as_dict().items() if value is not None}
        values: dict[str, Any] = {
            "key_id": caller.key,
            "digest": digest,
            "owner": caller.owner,
            "roles": json.dumps(sorted(caller.roles)),
            "pricers": None if caller.pricers is None else json.dumps(sorted(caller.pricers)),
            "limits": json.dumps(limits),
            "created_at": now,
            "created_by": by,
            "expires_at": ends,
            "replaces": replaces,
            "lifetime_ms": None if lifetime_s is None else round(lifetime_s * 1000),
        }
        await connection.execute(insert(api_keys), values)
        return StoredKey(caller, digest, now, by, ends, None, replaces)


def _key(row: Any) -> StoredKey:
    caller = Caller(
        row.key_id,
        row.owner,
        frozenset(Role(each) for each in json.loads(row.roles) if each in set(Role)),
        None if row.pricers is None else frozenset(json.loads(row.pricers)),
        KeyLimits.of(json.loads(row.limits)),
    )
    return StoredKey(caller, row.digest, row.created_at, row.created_by, row.expires_at, row.revoked_at, row.replaces)
