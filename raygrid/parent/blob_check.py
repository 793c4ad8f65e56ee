"""Checks that this parent uses the blob store that the grid agreed on.

The first parent of a grid writes a marker to its blob store and records it in the job store. A parent that finds no
marker, or another one, would store inputs that nodes cannot read: it refuses jobs with the reason and repeats the
check, so that it recovers once the share is mounted.
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

LOOK_S = 10.0  # between checks of an object store
LOOK_AGAIN_S = 1.0  # between checks of a directory, and after a failed check
ANSWER_S = 10.0
RETRY_AFTER_S = 1.0  # the next try may reach another parent


class BlobCheck:
    """Agrees on the blob store and checks it regularly. The owner opens and closes it.

    `is_default`: the blob store is the default directory, because the settings name none.
    """

    def __init__(self, store: JobStore, blobs: BlobStore, *, is_default: bool) -> None:
        self._store = store
        self._blobs = blobs
        self._is_default = is_default
        self._agreed: str | None = None
        self._call: asyncio.Future[str | None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._refusal: str | None = "this parent has not checked its blob store yet"
        self._away: str | None = None

    async def open(self) -> None:
        """Check once, then start to check regularly."""
        await self._look()
        self._task = asyncio.get_running_loop().create_task(self._look_forever(), name="blob check")

    async def close(self) -> None:
        """Stop checking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def require(self) -> None:
        """Refuse jobs unless a check has found the grid's blob store.

        Raises:
            UnavailableError: no check has, or a later one found another blob store.
        """
        if self._refusal is not None:
            raise UnavailableError(f"this parent takes no jobs: {self._refusal}", retry_after_s=RETRY_AFTER_S)

    def require_answer(self) -> None:
        """Like `require`, and also refuse if the latest check got no answer.

        Raises:
            UnavailableError: with the reason.
        """
        self.require()
        if self._away is not None:
            raise UnavailableError(self._away, retry_after_s=RETRY_AFTER_S)

    async def _look_forever(self) -> None:
        while True:
            is_rare = self._refusal is None and self._away is None and not self._blobs.is_directory
            await asyncio.sleep(LOOK_S if is_rare else LOOK_AGAIN_S)
            await self._look()

    async def _look(self) -> None:
        before = self._refusal or self._away
        try:
            self._refusal = await self._compare()
            self._away = None
        except UnavailableError as error:
            # An unreachable store that was the grid's is still the grid's: jobs with inline inputs are accepted.
            self._away = str(error)
            if self._agreed is None or self._refusal is not None:
                self._refusal = self._away
        except Exception as error:
            logger.exception("the check of the blob store failed unexpectedly; trying again")
            self._away = f"the check of the blob store failed: {error}"
        trouble = self._refusal or self._away
        if trouble is not None and trouble != before:
            logger.error("the blob store cannot be used; checking again every %g s: %s", LOOK_AGAIN_S, trouble)
        elif trouble is None and before is not None:
            logger.warning("the blob store %s is the grid's; this parent takes jobs", self._blobs.shown)

    async def _compare(self) -> str | None:
        """Why this is not the grid's blob store; None if it is."""
        if self._agreed is None:
            self._agreed = await self._store.agreed(BLOBS) or await self._agree()
        self._blobs.expect(self._agreed)
        seen = await self._ask(self._blobs.read_marker_now)
        if seen is None and self._store.is_single_machine:
            # The blob store was emptied. All tiers of one machine use the same one, so the marker can be written again.
            seen = await self._place(self._agreed)
        if seen == self._agreed:
            self._blobs.trouble = None
            return None
        why = wrong_blob_store_message(self._agreed, seen, self._blobs.shown)
        return f"{why}. If it was moved or emptied on purpose, write {self._agreed} to grid/marker there"

    async def _agree(self) -> str:
        """Propose this parent's blob store; returns the marker that the grid agreed on."""
        seen = await self._ask(self._blobs.read_marker_now) or await self._place(uuid4().hex)
        if seen is None:
            raise UnavailableError(f"the blob store {self._blobs.shown} does not keep what is written to it")
        return await self._store.agree(BLOBS, seen)

    async def _place(self, marker: str) -> str | None:
        may_make = self._is_default or self._store.is_single_machine
        return await self._ask(functools.partial(self._blobs.create_marker_now, marker, make_directory=may_make))

    async def _ask(self, function: Callable[[], str | None]) -> str | None:
        """Call the blob store in a thread, one call at a time, so that calls that hang cannot use up all threads."""
        if self._call is None:
            self._call = asyncio.ensure_future(asyncio.to_thread(function))
        call = self._call
        await asyncio.wait({call}, timeout=ANSWER_S)
        if not call.done():
            raise UnavailableError(f"the blob store {self._blobs.shown} has not answered for {ANSWER_S:g} s")
        self._call = None
        return call.result()
