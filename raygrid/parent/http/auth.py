"""Checks the API keys of requests."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from raygrid.errors import NotAuthorizedError
from raygrid.settings.sections import ApiKey

_scheme = HTTPBearer(auto_error=False, description="An API key of the grid's settings")


def require_key(keys: tuple[ApiKey, ...]) -> Callable[..., Awaitable[None]]:
    """A dependency that accepts requests with one of the keys; without keys it accepts every request.

    Keys are compared as digests in constant time, and no error contains one.
    """
    digests = [sha256(key.key.get_secret_value().encode()).digest() for key in keys]

    # A coroutine, although it waits for nothing: FastAPI runs other functions in a thread, which costs a good part of a
    # millisecond per request.
    async def check(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]) -> None:
        if not digests:
            return
        if credentials is None:
            raise NotAuthorizedError("this grid requires an API key: send the header 'Authorization: Bearer YOUR_KEY'")
        given = sha256(credentials.credentials.encode()).digest()
        # Every key is compared, so that the time does not depend on which one matches.
        if sum(hmac.compare_digest(given, digest) for digest in digests) == 0:
            raise NotAuthorizedError("the API key is not one of this grid's")

    return check
