"""API keys, as a grid describes them and as an admin asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class KeyLimitInfo:
    """What a key may use at most; None is no limit.

    Attributes:
        queued_jobs: unfinished jobs of its owner.
        bytes: bytes of the inputs of unfinished jobs and of the shared data of its owner.
        requests_per_minute: requests per minute at each parent.
    """

    queued_jobs: int | None = None
    bytes: int | None = None
    requests_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """An API key to make.

    Attributes:
        owner: who owns what is made with it.
        roles: what it may do: read, submit, data, operate, admin.
        pricers: pricers for which it may submit jobs; None for all.
        lifetime_s: seconds for which it is valid; None for ever.
        limits: what it may use at most.
    """

    owner: str
    roles: Sequence[str]
    pricers: Sequence[str] | None = None
    lifetime_s: float | None = None
    limits: KeyLimitInfo = KeyLimitInfo()

    def members(self) -> dict[str, Any]:
        """The JSON of a request for it."""
        limits = {name: getattr(self.limits, name) for name in ("queued_jobs", "bytes", "requests_per_minute")}
        return {
            "owner": self.owner,
            "roles": list(self.roles),
            "pricers": None if self.pricers is None else list(self.pricers),
            "lifetime_s": self.lifetime_s,
            "limits": limits,
        }


@dataclass(frozen=True, slots=True)
class ApiKeyInfo:
    """An API key of a grid.

    Attributes:
        id: its public part.
        owner, roles, pricers, limits: as for `NewKey`.
        created_by: owner of the key that made it.
        expires_at: when it stops being valid; None for never.
        revoked_at: when it was revoked.
        replaces: id of the key whose rotation made it.
        valid: whether requests with it are accepted now.
        key: the key itself, only in the answer that makes it.
    """

    id: str
    owner: str
    roles: tuple[str, ...] = ()
    pricers: tuple[str, ...] | None = None
    limits: KeyLimitInfo = KeyLimitInfo()
    created_at: datetime | None = None
    created_by: str = ""
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    replaces: str | None = None
    valid: bool = False
    key: str | None = field(default=None, repr=False)
