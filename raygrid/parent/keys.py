"""The API keys that a parent accepts: those of the settings, and those of the job store, read twice per second.

A key that is revoked at any parent is refused by all others within a second. While the job store cannot be read, the
keys that were read last stay valid: a parent that cannot read the store cannot start anything either.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Sequence

from raygrid.core.access import ALL_ROLES, Caller, StoredKey, digest_of, id_of
from raygrid.errors import NotAuthorizedError, UnavailableError
from raygrid.settings.sections import ApiKey
from raygrid.store import JobStore

logger = logging.getLogger(__name__)

READ_EVERY_S = 0.5
ENDED = "the API key has expired or was revoked"


class KeyRing:
    """The keys of a grid. The owner opens and closes it.

    Args:
        store: has the keys that admins made.
        settings_keys: the keys of the settings, which may do everything; the name of a key is its owner.
    """

    def __init__(self, store: JobStore, settings_keys: Sequence[ApiKey]) -> None:
        self._store = store
        self._of_settings = [(key.digest, Caller(key.name, key.name, ALL_ROLES)) for key in settings_keys]
        self._stored: dict[str, StoredKey] = {}  # the valid ones, by id
        self._ended: dict[str, StoredKey] = {}  # the others
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read the keys, and go on reading them.

        Raises:
            UnavailableError: the job store cannot be read.
        """
        await self.read()
        self._task = asyncio.get_running_loop().create_task(self._forever(), name="keys")

    async def close(self) -> None:
        """Stop reading keys."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def read(self) -> None:
        """Read the keys of the store, now.

        Raises:
            UnavailableError: the job store cannot be read.
        """
        book = await self._store.keys()
        self._stored = {key.key_id: key for key in book.keys if key.is_valid(book.now)}
        self._ended = {key.key_id: key for key in book.keys if not key.is_valid(book.now)}

    def caller_of(self, key: str) -> Caller | None:
        """Who uses a key; None if it is not valid. Takes the same time whichever key of the grid is nearest."""
        digest = digest_of(key)
        key_id = id_of(key)
        if key_id is not None:
            stored = self._stored.get(key_id)
            if stored is not None and hmac.compare_digest(stored.digest, digest):
                return stored.caller
        found = None
        for known, caller in self._of_settings:  # every key is compared, so that the time does not tell which matches
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    def has_ended(self, key: str) -> bool:
        """Whether a key was one of this grid's, and has expired or was revoked."""
        ended = self._ended.get(id_of(key) or "")
        return ended is not None and hmac.compare_digest(ended.digest, digest_of(key))

    def accepts(self, caller: Caller) -> bool:
        """Whether requests of a caller whose key was valid when its request came are still accepted."""
        if not caller.key or caller.key in self._stored:
            return True
        return any(caller is each for _, each in self._of_settings)

    def require(self, caller: Caller) -> None:
        """Refuse to go on with a request that took long.

        Raises:
            NotAuthorizedError: its key has expired or was revoked meanwhile.
        """
        if not self.accepts(caller):
            raise NotAuthorizedError(ENDED)

    @property
    def has_stored_keys(self) -> bool:
        """Whether admins have made keys, valid or not."""
        return bool(self._stored or self._ended)

    async def _forever(self) -> None:
        while True:
            await asyncio.sleep(READ_EVERY_S)
            try:
                await self.read()
            except UnavailableError as error:
                logger.info("cannot read the API keys; those read last stay valid: %s", error)
            except Exception:
                logger.exception("cannot read the API keys; those read last stay valid")
