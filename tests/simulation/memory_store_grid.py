"""What the job store in plain dicts keeps besides jobs; `sql_grid_tables.py` does the same in SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from raygrid.core.access import Caller, StoredKey
from raygrid.core.lease import HandOver, Lease, next_lease
from raygrid.errors import ConflictError, UnavailableError
from raygrid.models import Definition, Drain, SharedData
from raygrid.store.port import KeyBook, LeaseState, StoredData


class MemoryGridTables:
    """Shared data names, leases, drains, agreements and definitions of pricers."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._data: dict[str, StoredData] = {}
        self._contents: dict[str, datetime] = {}  # digest to when a name last began or ceased to refer to it
        self._going: set[str] = set()
        self._keys: dict[str, StoredKey] = {}
        self._lifetimes: dict[str, float | None] = {}
        self._leases: dict[str, Lease] = {}
        self._hand_overs: dict[str, HandOver] = {}
        self._drains: dict[str, Drain] = {}
        self._agreements: dict[str, str] = {}
        self._definitions: dict[str, Definition] = {}
        self._definitions_stored_at: dict[str, datetime] = {}

    # --- shared data ----------------------------------------------------------------------------------------

    async def put_data(self, data: SharedData, owner: str = "", *, may_take_unowned: bool = False) -> None:
        """Let a name point at stored content; see `JobStore.put_data`."""
        before = self._data.get(data.name)
        if data.digest in self._going:
            raise UnavailableError(f"the old content of the data {data.name!r} is being removed; try again")
        if before is not None and before.owner != owner and (before.owner or not may_take_unowned):
            raise ConflictError(f"the data name {data.name!r} is taken by another owner; choose another name")
        if before is not None:
            self._contents[before.data.digest] = self._clock()
        self._data[data.name] = StoredData(data, self._clock(), owner)
        self._contents[data.digest] = self._clock()

    async def delete_data(self, name: str, owner: str = "", *, any_owner: bool = False) -> bool:
        """Remove a name; see `JobStore.delete_data`."""
        before = self._data.get(name)
        if before is not None and before.owner != owner and not any_owner:
            raise ConflictError(f"the data name {name!r} is taken by another owner; choose another name")
        if before is not None:
            self._contents[before.data.digest] = self._clock()
        return self._data.pop(name, None) is not None

    async def end_purge_of_data(self, digests: Sequence[str]) -> None:
        """Forget contents whose blobs are removed."""
        for digest in self._going.intersection(digests):
            self._going.remove(digest)
            del self._contents[digest]

    async def get_data(self, names: Sequence[str] | None = None) -> dict[str, StoredData]:
        """What names point at."""
        if names is None:
            return dict(self._data)
        return {name: self._data[name] for name in names if name in self._data}

    # --- leases ---------------------------------------------------------------------------------------------

    async def acquire_lease(self, group_id: str, holder: str, ttl_s: float) -> Lease | None:
        """Take or renew a lease; None while another holds it."""
        now = self._clock()
        current = self._leases.get(group_id)
        lease = next_lease(current, group_id, holder, now, now + timedelta(seconds=ttl_s))
        if lease is not None:
            self._leases[group_id] = lease
        return lease

    async def release_lease(self, lease: Lease) -> None:
        """Give a lease back; nothing happens where it is another's by now."""
        current = self._leases.get(lease.group_id)
        if current is not None and (current.term, current.holder) == (lease.term, lease.holder):
            self._leases[lease.group_id] = replace(current, expires_at=self._clock())

    async def note_hand_over(self, group_id: str, by: str) -> HandOver:
        """Record a request for a hand-over; see `JobStore.note_hand_over`."""
        asked = self._hand_overs[group_id] = HandOver(self._clock(), by)
        return asked

    async def leases(self) -> dict[str, LeaseState]:
        """Every lease that was ever taken."""
        now = self._clock()
        return {
            group_id: LeaseState(lease, (lease.expires_at - now).total_seconds(), self._hand_overs.get(group_id))
            for group_id, lease in self._leases.items()
        }

    async def probe(self) -> None:
        """It can always be written."""

    # --- drains and agreements ------------------------------------------------------------------------------

    async def put_drain(self, node_id: str, deadline_s: float | None = None, by: str = "") -> Drain:
        """Begin to drain a node, or change its deadline; see `JobStore.put_drain`."""
        now = self._clock()
        deadline_at = None if deadline_s is None else now + timedelta(seconds=deadline_s)
        drain = self._drains[node_id] = Drain(node_id, now, deadline_at, by)
        return drain

    async def delete_drain(self, node_id: str) -> bool:
        """Let a node work again; gives whether it was being drained."""
        return self._drains.pop(node_id, None) is not None

    async def drains(self) -> dict[str, Drain]:
        """All drains, by node."""
        return dict(self._drains)

    async def agree(self, name: str, proposal: str) -> str:
        """What the whole grid takes a name for: the first proposal ever made."""
        return self._agreements.setdefault(name, proposal)

    async def agreed(self, name: str) -> str | None:
        """What was agreed on; None where nothing was proposed yet."""
        return self._agreements.get(name)

    # --- API keys -------------------------------------------------------------------------------------------

    async def keys(self) -> KeyBook:
        """All API keys."""
        return KeyBook(list(self._keys.values()), self._clock())

    async def add_key(self, caller: Caller, digest: str, by: str, lifetime_s: float | None = None) -> StoredKey:
        """Store a new key."""
        now = self._clock()
        ends = None if lifetime_s is None else now + timedelta(seconds=lifetime_s)
        self._lifetimes[caller.key] = lifetime_s
        key = self._keys[caller.key] = StoredKey(caller, digest, now, by, ends)
        return key

    async def rotate_key(
        self, key_id: str, successor_id: str, digest: str, by: str, overlap_s: float
    ) -> StoredKey | None:
        """Store a successor with the same rights; see `JobStore.rotate_key`."""
        old, now = self._keys.get(key_id), self._clock()
        if old is None or not old.is_valid(now):
            return None
        new = await self.add_key(replace(old.caller, key=successor_id), digest, by, self._lifetimes[key_id])
        until = now + timedelta(seconds=overlap_s)
        self._keys[key_id] = replace(old, expires_at=until if old.expires_at is None else min(until, old.expires_at))
        new = self._keys[successor_id] = replace(new, replaces=key_id)
        return new

    async def revoke_key(self, key_id: str) -> StoredKey | None:
        """Make a key invalid."""
        if (key := self._keys.get(key_id)) is None:
            return None
        key = self._keys[key_id] = replace(key, revoked_at=key.revoked_at or self._clock())
        return key

    # --- definitions of pricers -----------------------------------------------------------------------------

    async def put_definitions(self, definitions: Sequence[Definition]) -> None:
        """Keep what jobs to come will run; see `JobStore.put_definitions`."""
        for each in definitions:
            self._definitions[each.digest] = each
            self._definitions_stored_at[each.digest] = self._clock()

    async def definitions(self, digests: Sequence[str]) -> dict[str, Definition]:
        """Those of these definitions that are there."""
        return {digest: self._definitions[digest] for digest in digests if digest in self._definitions}
