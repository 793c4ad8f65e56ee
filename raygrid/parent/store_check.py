"""Whether jobs can be written to the job store, for whoever asks if this parent is ready.

Reading tells little: a full disk and a removed file can be read. So a row is written, but at most every few seconds
however often somebody asks, and only then. A store that is merely slow is not called broken.
"""

from __future__ import annotations

import asyncio
import logging

from raygrid.errors import UnavailableError
from raygrid.store import JobStore, LockedError

logger = logging.getLogger(__name__)

FRESH_S = 10.0  # so long a good answer counts
AGAIN_S = 1.0  # and so long a bad one
WAIT_S = 1.0  # longest that somebody waits for a new answer, rather than be told the latest


class StoreCheck:
    """Looks when it is asked. The owner closes it."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._trouble: UnavailableError | None = None
        self._looked_at = -FRESH_S
        self._look: asyncio.Task[None] | None = None

    async def require(self) -> None:
        """Refuse to be called ready where the latest look found that nothing can be written.

        Raises:
            UnavailableError: says why.
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
        """Look no more."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)

    async def _probe(self) -> None:
        try:
            await self._store.probe()
            self._trouble = None
        except LockedError:
            pass  # others write: it is slow, and as good as it was
        except UnavailableError as error:
            self._trouble = error
        except Exception as error:
            logger.exception("writing to the job store failed unexpectedly")
            self._trouble = UnavailableError(f"writing to the job store failed: {error}")
        finally:
            self._looked_at = asyncio.get_running_loop().time()
            self._look = None
