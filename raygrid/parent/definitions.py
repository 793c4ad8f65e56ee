"""The definitions of a parent's pricers: pinned to each new job, and stored before the job.

A definition is stored once for many jobs. It is stored again every few hours, because the job store removes definitions
that were not stored for a while and that no unfinished job needs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from raygrid.models import Definition
from raygrid.settings.definition import define
from raygrid.settings.model import GridSettings
from raygrid.store import JobStore

STORE_AGAIN_S = 6 * 3600.0  # well within `housekeeping.DEFINITIONS_KEPT`


class SubmittedDefinitions:
    """The definitions that jobs of this parent are submitted with.

    `clock` gives seconds since the epoch; it must not stop while the machine is suspended.
    """

    def __init__(self, settings: GridSettings, store: JobStore, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._made: dict[str, Definition] = {}  # by the pricer's name
        self._stored: dict[str, float] = {}  # by digest: when it was last stored
        self._storing = asyncio.Lock()

    def digest(self, name: str) -> str:
        """The digest of a pricer's definition. The first call is slow if the pricer has variables."""
        known = self._made.get(name)
        if known is None:
            known = self._made[name] = define(name, self._settings.pricers[name])
        return known.digest

    async def require(self, digests: Iterable[str]) -> None:
        """Store definitions that the job store may lack.

        Raises:
            UnavailableError: the job store cannot be reached; jobs that need the definitions must not be inserted.
        """
        missing = [digest for digest in digests if digest and not self._is_stored(digest)]
        if not missing:
            return
        async with self._storing:
            wanted = {digest for digest in missing if not self._is_stored(digest)}
            if definitions := [each for each in self._made.values() if each.digest in wanted]:
                at = self._clock()
                await self._store.put_definitions(definitions)
                self._stored.update((each.digest, at) for each in definitions)

    def _is_stored(self, digest: str) -> bool:
        at = self._stored.get(digest)
        return at is not None and 0 <= self._clock() - at < STORE_AGAIN_S
