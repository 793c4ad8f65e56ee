"""What jobs run, as a leader passes it on to nodes: read from the job store once, however many nodes need it.

A job store that was restored in part may have lost some. What the settings define is stored again under the same
digest; of anything else nodes learn that it is lost, so that its jobs fail at once where no node has it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Collection, Mapping

from raygrid.config import Pricer
from raygrid.definition import define
from raygrid.errors import UnavailableError
from raygrid.models import Definition
from raygrid.store import JobStore

logger = logging.getLogger(__name__)

KEPT = 256  # in memory; what is older is read again


class Definitions:
    """Reads definitions.

    Args:
        store: the job store.
        pricers: the configured pricers.
    """

    def __init__(self, store: JobStore, pricers: Mapping[str, Pricer]) -> None:
        self._store = store
        self._pricers = pricers
        self._configured: dict[str, Definition] | None = None  # what they run, by digest; made when it is first needed
        self._known: OrderedDict[str, Definition] = OrderedDict()
        self._missed: set[str] = set()  # logged already

    async def get(self, digests: Collection[str]) -> list[Definition]:
        """These definitions; those that the job store does not have, and the settings neither, as lost ones.

        Raises:
            UnavailableError: the job store cannot be asked.
        """
        missing = sorted(digest for digest in digests if digest not in self._known)
        if missing:
            found = await self._store.definitions(missing)
            if lost := [digest for digest in missing if digest not in found]:
                found |= await self._stored_again(lost)
            self._known.update(found)
            for digest in missing:
                if digest not in found and digest not in self._missed:
                    self._missed.add(digest)
                    logger.error("the job store has no definition %s; jobs that run it will fail", digest)
        given = [self._known.get(digest) or Definition(digest, body="") for digest in digests]
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return given

    def follow(self, pricers: Mapping[str, Pricer]) -> None:
        """Newer settings have come. Read all anew: their limits may be others now."""
        self._pricers, self._configured = pricers, None
        self._known.clear()

    async def _stored_again(self, lost: Collection[str]) -> dict[str, Definition]:
        """Those of the lost definitions that the settings have, digest for digest; they are put back into the store."""
        configured = self._configured
        if configured is None:
            pricers = self._pricers
            configured = await asyncio.to_thread(_defined, pricers)  # slow where a pricer has variables
            if pricers is self._pricers:
                self._configured = configured
        again = {digest: configured[digest] for digest in lost if digest in configured}
        if again:
            logger.warning("the job store has lost %d definitions that are configured; storing them again", len(again))
            try:
                await self._store.put_definitions(list(again.values()))
            except UnavailableError as error:
                logger.warning("they are used, but not stored: %s", error)  # the next leader will try again
        return again


def _defined(pricers: Mapping[str, Pricer]) -> dict[str, Definition]:
    definitions = (define(name, pricer) for name, pricer in pricers.items())
    return {each.digest: each for each in definitions}
