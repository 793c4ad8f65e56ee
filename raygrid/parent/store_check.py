"""Checks for the readiness of a parent whether the job store can be written.

Reading is no test: reads work on a full disk and on a removed file. So the check writes a row, at most once in a few
seconds however often readiness is queried. A slow store passes.
"""

from __future__ import annotations

import asyncio
import logging

from raygrid.errors import UnavailableError
from raygrid.store import JobStore, LockedError

logger = logging.getLogger(__name__)

FRESH_S = 10.0  # how long a success counts
AGAIN_S = 1.0  # how long a failure counts
WAIT_S = 1.0  # longest wait for a new result; after it, the previous one counts


class StoreCheck:
    """Checks the job store on demand. The owner closes it."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._trouble: UnavailableError | None = None
        self._looked_at = -FRESH_S
        self._look: asyncio.Task[None] | None = None

    async def require(self) -> None:
        """Check that the job store can be written.

        Raises:
            UnavailableError: the latest check failed; with the reason.
        """
        loop = asyncio.get_running_loop()
        fresh_s = FRESH_S if self._trouble is None else AGAIN_S
        if self._look is None and loop.time() - self._looked_at >= fresh_s:
            self._look = loop.create_task(self._probe(), name="store check")
        if self._look is not None:
            await asyncio.wait({self._look}, timeout=WAIT_S)
        if self._trouble is not None:
            raise UnavailableError(str(self._trouble), retry_after_s=self._trouble.retry_after_s)

    async def close(self) -> None:
        """Cancel a check that is running."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)

    async def _probe(self) -> None:
        try:
            await self._store.probe()
            self._trouble = None
        except LockedError:
            pass  # other writers hold the lock: the store is slow, and the previous result counts
        except UnavailableError as error:
            self._trouble = error
        except Exception as error:
            logger.exception("the check of the job store failed unexpectedly; checking again at the next request")
            self._trouble = UnavailableError(f"writing to the job store failed: {error}")
        finally:
            self._looked_at = asyncio.get_running_loop().time()
            self._look = None
