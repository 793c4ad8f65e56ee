"""Reads the definitions of pricers that a leader sends to nodes: each one once from the job store, for all nodes.

A job store that was restored from a backup may lack definitions. Those that the settings have are stored again under
the same digest; any other is sent to nodes as lost, so that its jobs fail at once on a node that does not have it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Collection, Mapping

from raygrid.errors import UnavailableError
from raygrid.models import Definition
from raygrid.settings.definition import define
from raygrid.settings.pricer import Pricer
from raygrid.store import JobStore

logger = logging.getLogger(__name__)

KEPT = 256  # definitions in memory; older ones are read again


class DefinitionReader:
    """Reads definitions; `pricers` are the configured ones."""

    def __init__(self, store: JobStore, pricers: Mapping[str, Pricer]) -> None:
        self._store = store
        self._pricers = pricers
        self._configured: dict[str, Definition] | None = None  # of the pricers, by digest; made when first needed
        self._known: OrderedDict[str, Definition] = OrderedDict()
        self._missed: set[str] = set()  # logged already

    async def get(self, digests: Collection[str]) -> list[Definition]:
        """Return these definitions; one that neither the job store nor the settings have is returned as lost.

        Raises:
            UnavailableError: the job store cannot be read.
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
        """Use newer settings: all definitions are read again, because their limits may have changed."""
        self._pricers, self._configured = pricers, None
        self._known.clear()

    async def _stored_again(self, lost: Collection[str]) -> dict[str, Definition]:
        """Store lost definitions again that the settings have under the same digest; return them."""
        configured = self._configured
        if configured is None:
            pricers = self._pricers
            configured = await asyncio.to_thread(_defined, pricers)  # slow if a pricer has variables
            if pricers is self._pricers:
                self._configured = configured
        again = {digest: configured[digest] for digest in lost if digest in configured}
        if again:
            logger.warning("the job store has lost %d definitions that are configured; storing them again", len(again))
            try:
                await self._store.put_definitions(list(again.values()))
            except UnavailableError as error:
                # The next leader tries again.
                logger.warning("the lost definitions could not be stored again; jobs run them all the same: %s", error)
        return again


def _defined(pricers: Mapping[str, Pricer]) -> dict[str, Definition]:
    definitions = (define(name, pricer) for name, pricer in pricers.items())
    return {each.digest: each for each in definitions}
