"""Finds out who makes a request, and refuses what that caller may not do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from raygrid.core.access import LOCAL, Caller, Role
from raygrid.core.rates import RateLimit
from raygrid.errors import BusyError, ForbiddenError, NotAuthorizedError
from raygrid.parent.http.scope import ANOTHER_USER, CALLER
from raygrid.parent.keys import ENDED, KeyRing

MOST_FAILURES = 300  # wrong keys per minute and address; after that they get 429

_scheme = HTTPBearer(auto_error=False, description="An API key: of the form rg_ID_SECRET, or of the grid's settings")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]


class Access:
    """The access to a parent.

    Args:
        ring: the keys.
        key_required: whether a request without a key is refused. Without this, whoever reaches the parent is the user
            who started the grid: its listener refuses everybody else.
    """

    def __init__(self, ring: KeyRing, *, key_required: bool) -> None:
        self._ring = ring
        self._key_required = key_required
        self._rates = RateLimit()
        self._failures = RateLimit()

    async def authenticate(self, request: Request, credentials: Credentials) -> None:
        """A dependency that finds out who makes a request; all other dependencies come after it.

        A coroutine, although it waits for nothing: FastAPI runs other functions in a thread, which costs a good part of
        a millisecond per request.

        Raises:
            NotAuthorizedError: the request has no key and needs one, or another one than those of this grid.
            BusyError: too many requests of this address have a wrong key, or the key has used up its requests.
        """
        caller = request.scope[CALLER] = self._caller(request, credentials)
        limit = caller.limits.requests_per_minute
        if limit is not None:
            wait_s = self._rates.take(caller.key, limit, asyncio.get_running_loop().time())
            if wait_s:
                why = f"the key {caller.key} may make {limit} requests per minute at each parent; try again later"
                raise BusyError(why, retry_after_s=wait_s)

    async def admits(self, request: Request) -> bool:
        """Whether a request has a caller: a valid key, or no need of one."""
        try:
            self._caller(request, await _scheme(request))
        except (NotAuthorizedError, BusyError):
            return False
        return True

    def _caller(self, request: Request, credentials: HTTPAuthorizationCredentials | None) -> Caller:
        """Who makes a request.

        Raises:
            NotAuthorizedError: it has no key and needs one, or another one than those of this grid.
            BusyError: too many requests of this address have a wrong key.
        """
        found = self._ring.caller_of(credentials.credentials) if credentials is not None else None
        if found is not None:
            return found
        if credentials is not None and self._ring.has_ended(credentials.credentials):
            raise NotAuthorizedError(ENDED)
        # A key of another grid does no harm at the user's own grid, which needs none. But if the grid has keys, one of
        # them may have been mistyped, and what it may not do would be allowed.
        is_own_user = not self._key_required and ANOTHER_USER not in request.scope
        if is_own_user and (credentials is None or not self._ring.has_stored_keys):
            return LOCAL
        if credentials is None:
            raise NotAuthorizedError("this grid requires an API key: send the header 'Authorization: Bearer YOUR_KEY'")
        address = request.client.host if request.client is not None else ""
        wait_s = self._failures.take(address, MOST_FAILURES, asyncio.get_running_loop().time())
        if wait_s:
            why = f"too many requests from {address or 'this address'} have a wrong API key; try again later"
            raise BusyError(why, retry_after_s=wait_s)
        raise NotAuthorizedError("the API key is not one of this grid's")


def requires(*roles: Role) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency that gives the caller of a request if it has one of the roles; without roles, any caller.

    It belongs to a route whose router authenticates callers.
    """

    async def caller(request: Request) -> Caller:
        found: Caller = request.scope[CALLER]
        if roles and not found.may(*roles):
            wanted = " or ".join(sorted(roles))
            has = ", ".join(sorted(found.roles)) or "none"
            raise ForbiddenError(f"this needs a key with the role {wanted}; the key {found.key} has {has}")
        return found

    return caller


# Who may make a request, as parameters of routes.
AnyCaller = Annotated[Caller, Depends(requires())]
Reader = Annotated[Caller, Depends(requires(Role.READ))]
Viewer = Annotated[Caller, Depends(requires(Role.READ, Role.OPERATE))]
Submitter = Annotated[Caller, Depends(requires(Role.SUBMIT))]
Canceller = Annotated[Caller, Depends(requires(Role.SUBMIT, Role.OPERATE))]
DataReader = Annotated[Caller, Depends(requires(Role.READ, Role.DATA))]
DataWriter = Annotated[Caller, Depends(requires(Role.DATA))]
Operator = Annotated[Caller, Depends(requires(Role.OPERATE))]
Admin = Annotated[Caller, Depends(requires(Role.ADMIN))]
