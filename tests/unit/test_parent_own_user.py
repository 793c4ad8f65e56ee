"""The own user of a grid on loopback needs no key, and is not mistaken for the owner of one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import Request
from fastapi.security import HTTPAuthorizationCredentials

from raygrid.core.access import ALL_ROLES, LOCAL, Caller, digest_of, new_key
from raygrid.errors import NotAuthorizedError
from raygrid.parent.http.auth import Access
from raygrid.parent.http.scope import ANOTHER_USER
from raygrid.parent.keys import KeyRing
from tests.simulation.memory_store import MemoryStore


class Grid:
    """A parent on loopback without keys in its settings."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.ring = KeyRing(self.store, ())
        self.access = Access(self.ring, key_required=False)

    async def add_key(self) -> str:
        """Make a key of the desk; gives its text."""
        text, key_id = new_key()
        await self.store.add_key(Caller(key_id, "desk", ALL_ROLES), digest_of(text), "local")
        await self.ring.read()
        return text

    def caller(self, key: str | None, *, is_own_user: bool = True) -> Caller:
        """Who makes a request with a key."""
        scope: dict[str, Any] = {} if is_own_user else {ANOTHER_USER: True}
        request = cast(Request, SimpleNamespace(scope=scope, client=SimpleNamespace(host="127.0.0.1")))
        given = None if key is None else HTTPAuthorizationCredentials(scheme="Bearer", credentials=key)
        return self.access._caller(request, given)


async def test_on_a_grid_without_keys_a_key_of_another_grid_does_no_harm() -> None:
    grid = Grid()
    assert grid.caller(None) is LOCAL
    assert grid.caller("a key of the bank's grid") is LOCAL
    with pytest.raises(NotAuthorizedError):
        grid.caller(None, is_own_user=False)


async def test_once_a_grid_has_keys_a_wrong_one_is_refused() -> None:
    """It may be a mistyped one, and what it may not do would be allowed. Without a key, the user may do all."""
    grid = Grid()
    key = await grid.add_key()
    assert grid.caller(key).owner == "desk"
    assert grid.caller(None) is LOCAL
    for wrong in (f"{key}x", key[:-1] + ("a" if key[-1] != "a" else "b"), "rates.key"):
        with pytest.raises(NotAuthorizedError):
            grid.caller(wrong)


async def test_a_revoked_key_does_not_become_that_of_the_own_user() -> None:
    grid = Grid()
    key = await grid.add_key()
    [stored] = (await grid.store.keys()).keys
    await grid.store.revoke_key(stored.key_id)
    await grid.ring.read()
    with pytest.raises(NotAuthorizedError, match="expired or was revoked"):
        grid.caller(key)
    with pytest.raises(NotAuthorizedError):
        grid.caller("another")
