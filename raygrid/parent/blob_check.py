"""Whether this parent works with the blob store that the whole grid has agreed on.

The first parent ever leaves a marker in its blob store and has the job store keep it. A parent that sees another
marker, or none, would take inputs that no node finds: it takes no jobs, says why, and keeps looking, so that it
recovers by itself once the share is mounted.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable

from uuid_utils import uuid4

from raygrid.blobs import BlobStore
from raygrid.core.blob_marker import wrong_blob_store_message
from raygrid.errors import UnavailableError
from raygrid.store import BLOBS, JobStore

logger = logging.getLogger(__name__)

LOOK_S = 10.0  # at an object store; a directory is looked at as often as one that is not the grid's
LOOK_AGAIN_S = 1.0
ANSWER_S = 10.0
RETRY_AFTER_S = 1.0  # other parents may be well, and the next try may reach one


class BlobCheck:
    """Agrees on the blob store, and looks at it now and then. The owner opens and closes it.

    Args:
        store: the job store, which keeps what was agreed.
        blobs: this parent's blob store; told which marker to expect.
        is_default: whether it is the directory of a grid of which nobody has said where blobs should be.
    """

    def __init__(self, store: JobStore, blobs: BlobStore, *, is_default: bool) -> None:
        self._store = store
        self._blobs = blobs
        self._is_default = is_default
        self._agreed: str | None = None
        self._call: asyncio.Future[str | None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._refusal: str | None = "this parent has not looked at its blob store yet"
        self._away: str | None = None

    async def open(self) -> None:
        """Look once, then begin to look again and again."""
        await self._look()
        self._task = asyncio.get_running_loop().create_task(self._look_forever(), name="blob check")

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def require(self) -> None:
        """Refuse to take jobs where this is not the grid's blob store, as far as anybody knows.

        Raises:
            UnavailableError: it is not.
        """
        if self._refusal is not None:
            raise UnavailableError(f"this parent takes no jobs: {self._refusal}", retry_after_s=RETRY_AFTER_S)

    def require_answer(self) -> None:
        """As `require`, and also where the blob store did not answer at the latest look.

        Raises:
            UnavailableError: says why.
        """
        self.require()
        if self._away is not None:
            raise UnavailableError(self._away, retry_after_s=RETRY_AFTER_S)

    async def _look_forever(self) -> None:
        while True:
            is_dear = self._refusal is None and self._away is None and not self._blobs.is_directory
            await asyncio.sleep(LOOK_S if is_dear else LOOK_AGAIN_S)
            await self._look()

    async def _look(self) -> None:
        before = self._refusal or self._away
        try:
            self._refusal = await self._compare()
            self._away = None
        except UnavailableError as error:
            # A store that is away is still the grid's, if it was so before: what needs no blob goes on.
            self._away = str(error)
            if self._agreed is None or self._refusal is not None:
                self._refusal = self._away
        except Exception as error:
            logger.exception("looking at the blob store failed unexpectedly; trying again")
            self._away = f"looking at the blob store failed: {error}"
        said = self._refusal or self._away
        if said is not None and said != before:
            logger.error("%s", said)
        elif said is None and before is not None:
            logger.warning("the blob store %s is the grid's", self._blobs.shown)

    async def _compare(self) -> str | None:
        """Why this is not the grid's blob store; None where it is."""
        if self._agreed is None:
            self._agreed = await self._store.agreed(BLOBS) or await self._agree()
        self._blobs.expect(self._agreed)
        seen = await self._ask(self._blobs.read_marker_now)
        if seen is None and self._store.is_single_machine:
            # Somebody has emptied it. All tiers of one machine see the same place, so it can be begun anew.
            seen = await self._place(self._agreed)
        if seen == self._agreed:
            self._blobs.trouble = None
            return None
        why = wrong_blob_store_message(self._agreed, seen, self._blobs.shown)
        return f"{why}. Had it been moved or emptied on purpose, put {self._agreed} into grid/marker there"

    async def _agree(self) -> str:
        """Propose this parent's blob store; gives whatever the grid takes in the end."""
        seen = await self._ask(self._blobs.read_marker_now) or await self._place(uuid4().hex)
        if seen is None:
            raise UnavailableError(f"the blob store {self._blobs.shown} does not keep what is put there")
        return await self._store.agree(BLOBS, seen)

    async def _place(self, marker: str) -> str | None:
        may_make = self._is_default or self._store.is_single_machine
        return await self._ask(functools.partial(self._blobs.create_marker_now, marker, make_directory=may_make))

    async def _ask(self, question: Callable[[], str | None]) -> str | None:
        """Ask the blob store in a thread, one question at a time: one that hangs must not use up all threads."""
        if self._call is None:
            self._call = asyncio.ensure_future(asyncio.to_thread(question))
        call = self._call
        await asyncio.wait({call}, timeout=ANSWER_S)
        if not call.done():
            raise UnavailableError(f"the blob store {self._blobs.shown} has not answered for {ANSWER_S:g} s")
        self._call = None
        return call.result()
