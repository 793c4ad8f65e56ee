"""API keys: who may talk to the grid."""

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
    """A dependency that lets a request pass if it brings one of the keys; all pass where there are none.

    Keys are compared as digests in constant time, and never stand in an error.
    """
    digests = [sha256(key.key.get_secret_value().encode()).digest() for key in keys]

    # A coroutine though it waits for nothing: FastAPI gives any other function to a thread, at a good part of a
    # millisecond for each request.
    async def check(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]) -> None:
        if not digests:
            return
        if credentials is None:
            raise NotAuthorizedError("this grid wants an API key: send the header 'Authorization: Bearer YOUR_KEY'")
        given = sha256(credentials.credentials.encode()).digest()
        # Every key is compared, so that the time taken tells nothing.
        if sum(hmac.compare_digest(given, digest) for digest in digests) == 0:
            raise NotAuthorizedError("the API key is not one of this grid's")

    return check
