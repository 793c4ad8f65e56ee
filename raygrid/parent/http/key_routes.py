"""The routes of API keys, for admins."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BeforeValidator, ConfigDict, Field

from raygrid.core.access import OWNER, Caller, KeyLimits, Role, StoredKey, digest_of, id_of, new_key, without_secrets
from raygrid.errors import KeyNotFoundError
from raygrid.parent.http.auth import Admin
from raygrid.parent.http.openapi import problem_responses
from raygrid.parent.http.schemas import AnswerModel
from raygrid.parent.http.small_body import SmallBodyRoute
from raygrid.parent.service import Parent
from raygrid.settings.values import NAME

logger = logging.getLogger(__name__)

LONGEST_S = 10 * 366 * 86_400.0
OVERLAP_S = 86_400.0

_PricerName = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]


def _number(value: object) -> object:
    """A number of JSON, as it is; pydantic would read `true` as 1 and texts as numbers."""
    if isinstance(value, bool | str):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic lets a TypeError through
    return value


_Count = Annotated[int, Field(ge=1, le=2**53), BeforeValidator(_number)]
_Lifetime = Annotated[float, Field(gt=0, le=LONGEST_S, allow_inf_nan=False), BeforeValidator(_number)]
_Overlap = Annotated[float, Field(ge=0, le=LONGEST_S, allow_inf_nan=False), BeforeValidator(_number)]


class Limits(AnswerModel):
    """What a key may use at most; null is no limit."""

    model_config = ConfigDict(extra="forbid")

    queued_jobs: _Count | None = Field(default=None, description="unfinished jobs of its owner")
    bytes: _Count | None = Field(
        default=None, description="bytes of the inputs of unfinished jobs and of the shared data of its owner"
    )
    requests_per_minute: _Count | None = Field(default=None, description="requests per minute at each parent")


class WantedKey(AnswerModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid")

    owner: str = Field(pattern=f"^{OWNER.pattern}$", description="who owns what is made with the key")
    roles: list[Role] = Field(min_length=1, description="what the key may do")
    pricers: list[_PricerName] | None = Field(
        default=None, max_length=1_000, description="pricers for which it may submit jobs; null for all"
    )
    lifetime_s: _Lifetime | None = Field(default=None, description="seconds for which it is valid")
    limits: Limits = Limits()


class Rotation(AnswerModel):
    """How to rotate a key."""

    model_config = ConfigDict(extra="forbid")

    overlap_s: _Overlap = Field(default=OVERLAP_S, description="seconds for which both keys are valid")


_ROTATION = Rotation()


class KeyAnswer(AnswerModel):
    """A key, without its secret."""

    id: str
    owner: str
    roles: list[Role]
    pricers: list[str] | None
    limits: Limits
    created_at: datetime
    created_by: str = Field(description="owner of the key that made it")
    expires_at: datetime | None
    revoked_at: datetime | None
    replaces: str | None = Field(description="id of the key whose rotation made it")
    valid: bool = Field(description="whether requests with it are accepted now")


class MadeKey(KeyAnswer):
    """A new key. Its text is shown this once and stored nowhere."""

    key: str = Field(description="the key, of the form rg_ID_SECRET")


class KeyList(AnswerModel):
    """All keys of the job store, the oldest first."""

    keys: list[KeyAnswer]


def _members(key: StoredKey, *, valid: bool) -> dict[str, object]:
    caller = key.caller
    return {
        "id": key.key_id,
        "owner": caller.owner,
        "roles": sorted(caller.roles),
        "pricers": None if caller.pricers is None else sorted(caller.pricers),
        "limits": Limits(**caller.limits.as_dict()),
        "created_at": key.created_at,
        "created_by": key.created_by,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "replaces": key.replaces,
        "valid": valid,
    }


def key_routes(parent: Parent) -> APIRouter:
    """The routes of keys."""
    router = APIRouter(tags=["keys"], route_class=SmallBodyRoute)

    def unknown(key_id: str) -> KeyNotFoundError:
        shown = without_secrets(key_id)[:40]
        return KeyNotFoundError(f"there is no valid key with the id {shown!r}; `raygrid keys list` shows all")

    @router.post(
        "/keys",
        summary="Make an API key",
        status_code=201,
        responses=problem_responses("too-large", "invalid-request", "unavailable"),
    )
    async def add(wanted: WantedKey, by: Admin) -> MadeKey:
        text, key_id = new_key()
        caller = Caller(
            key_id,
            wanted.owner,
            frozenset(wanted.roles),
            None if wanted.pricers is None else frozenset(wanted.pricers),
            KeyLimits.of(wanted.limits.model_dump()),
        )
        made = await parent.store.add_key(caller, digest_of(text), by.owner, wanted.lifetime_s)
        await parent.keys.read()
        logger.info("%s has made the key %s for %s", by.owner, key_id, wanted.owner)
        return MadeKey.model_validate({**_members(made, valid=True), "key": text})

    @router.get("/keys", summary="List API keys, without their secrets")
    async def keys(_by: Admin) -> KeyList:
        book = await parent.store.keys()
        return KeyList.model_validate({"keys": [_members(key, valid=key.is_valid(book.now)) for key in book.keys]})

    @router.post(
        "/keys/{id}/rotate",
        summary="Make a successor with the same rights; for a while, both keys are valid",
        status_code=201,
        responses=problem_responses("key-not-found", "too-large", "invalid-request", "unavailable"),
    )
    async def rotate(id: str, by: Admin, how: Rotation = _ROTATION) -> MadeKey:
        id = id_of(id) or id  # some give the whole key
        text, successor_id = new_key()
        made = await parent.store.rotate_key(id, successor_id, digest_of(text), by.owner, how.overlap_s)
        if made is None:
            raise unknown(id)
        await parent.keys.read()
        logger.info("%s has rotated the key %s to %s", by.owner, id, successor_id)
        return MadeKey.model_validate({**_members(made, valid=True), "key": text})

    @router.delete(
        "/keys/{id}",
        summary="Revoke an API key: within a second, every parent refuses it",
        responses=problem_responses("key-not-found", "invalid-request", "unavailable"),
    )
    async def revoke(id: str, by: Admin) -> KeyAnswer:
        id = id_of(id) or id  # some give the whole key
        revoked = await parent.store.revoke_key(id)
        if revoked is None:
            raise unknown(id)
        await parent.keys.read()
        logger.info("%s has revoked the key %s of %s", by.owner, id, revoked.caller.owner)
        return KeyAnswer.model_validate(_members(revoked, valid=False))

    return router
