"""What jobs run, as a leader passes it on to nodes: read from the job store once, however many nodes need it."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection

from raygrid.models import Definition
from raygrid.store import JobStore

logger = logging.getLogger(__name__)

KEPT = 256  # in memory; what is older is read again


class DefinitionReader:
    """Reads definitions.

    Args:
        store: the job store.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._known: OrderedDict[str, Definition] = OrderedDict()
        self._missed: set[str] = set()  # logged already

    async def get(self, digests: Collection[str]) -> list[Definition]:
        """Those of these definitions that the job store has.

        Raises:
            UnavailableError: the job store cannot be asked.
        """
        missing = sorted(digest for digest in digests if digest not in self._known)
        if missing:
            found = await self._store.definitions(missing)
            self._known.update(found)
            for digest in missing:
                if digest not in found and digest not in self._missed:
                    self._missed.add(digest)
                    logger.error("the job store has no definition %s; jobs that run it will fail", digest)
        given = [self._known[digest] for digest in digests if digest in self._known]
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return given

    def forget(self) -> None:
        """Read all anew: their limits may be others now."""
        self._known.clear()
