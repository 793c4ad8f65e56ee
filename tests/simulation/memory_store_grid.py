"""What the job store in plain dicts keeps besides jobs; `sql_grid_tables.py` does the same in SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from raygrid.core.lease import Lease, next_lease
from raygrid.models import Definition, Drain, SharedData
from raygrid.store.port import LeaseState, StoredData


class MemoryGridTables:
    """Shared data names, leases, drains, agreements and definitions of pricers."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._data: dict[str, StoredData] = {}
        self._leases: dict[str, Lease] = {}
        self._drains: dict[str, Drain] = {}
        self._agreements: dict[str, str] = {}
        self._definitions: dict[str, Definition] = {}
        self._definitions_stored_at: dict[str, datetime] = {}

    # --- shared data ----------------------------------------------------------------------------------------

    async def put_data(self, data: SharedData) -> None:
        """Let a name point at stored content."""
        self._data[data.name] = StoredData(data, self._clock())

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

    async def leases(self) -> dict[str, LeaseState]:
        """Every lease that was ever taken."""
        now = self._clock()
        return {
            group_id: LeaseState(lease, (lease.expires_at - now).total_seconds())
            for group_id, lease in self._leases.items()
        }

    async def probe(self) -> None:
        """It can always be written."""

    # --- drains and agreements ------------------------------------------------------------------------------

    async def put_drain(self, node_id: str, deadline_s: float | None = None) -> Drain:
        """Begin to drain a node, or change its deadline; see `JobStore.put_drain`."""
        now = self._clock()
        deadline_at = None if deadline_s is None else now + timedelta(seconds=deadline_s)
        drain = self._drains[node_id] = Drain(node_id, now, deadline_at)
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

    # --- definitions of pricers -----------------------------------------------------------------------------

    async def put_definitions(self, definitions: Sequence[Definition]) -> None:
        """Keep what jobs to come will run; see `JobStore.put_definitions`."""
        for each in definitions:
            self._definitions[each.digest] = each
            self._definitions_stored_at[each.digest] = self._clock()

    async def definitions(self, digests: Sequence[str]) -> dict[str, Definition]:
        """Those of these definitions that are there."""
        return {digest: self._definitions[digest] for digest in digests if digest in self._definitions}
