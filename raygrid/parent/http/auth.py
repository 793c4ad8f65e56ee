"""Checks the API keys of requests."""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from raygrid.errors import NotAuthorizedError
from raygrid.settings.sections import ApiKey

_scheme = HTTPBearer(auto_error=False, description="An API key of the grid's settings")


class KnownKeys:
    """The keys of a grid. They are compared as digests in constant time, and no error contains one."""

    def __init__(self, keys: tuple[ApiKey, ...]) -> None:
        self._digests = [sha256(key.key.get_secret_value().encode()).digest() for key in keys]

    async def require(self, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]) -> None:
        """A dependency that accepts requests with one of the keys; without keys it accepts every request.

        A coroutine, although it waits for nothing: FastAPI runs other functions in a thread, which costs a good part of
        a millisecond per request.

        Raises:
            NotAuthorizedError: the request has no key, or another one.
        """
        if not self._digests:
            return
        if credentials is None:
            raise NotAuthorizedError("this grid requires an API key: send the header 'Authorization: Bearer YOUR_KEY'")
        if not self._has(credentials.credentials):
            raise NotAuthorizedError("the API key is not one of this grid's")

    async def admit(self, request: Request) -> bool:
        """Whether a request has one of the keys; without keys, every request does."""
        credentials = await _scheme(request)
        return not self._digests or (credentials is not None and self._has(credentials.credentials))

    def _has(self, key: str) -> bool:
        given = sha256(key.encode()).digest()
        # Every key is compared, so that the time does not depend on which one matches.
        return sum(hmac.compare_digest(given, digest) for digest in self._digests) > 0
