"""Who may do what: roles, the caller of a request, and the forms of API keys. Pure: no store and no HTTP.

A job, a batch and a name of shared data belong to the owner of the key that made them. Only that owner sees them,
except that `operate` sees and cancels jobs and batches of every owner, and `admin` may do everything with them.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum

KEY = re.compile(r"rg_([a-z0-9]{10})_([A-Za-z0-9]{43})")
OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
LOCAL_OWNER = "local"
NOBODY = "~nobody"  # not the name of an owner
_ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_SECRET_ALPHABET = string.ascii_letters + string.digits  # 43 of these are 256 bits


class Role(StrEnum):
    """What a key may do; a key has one or several."""

    READ = "read"  # see own jobs, batches, results and shared data
    SUBMIT = "submit"  # submit jobs, and cancel own ones
    DATA = "data"  # store, see and remove own shared data
    OPERATE = "operate"  # drain nodes, hand over leads; see and cancel jobs of every owner
    ADMIN = "admin"  # everything, for every owner; and make and revoke keys


ALL_ROLES = frozenset(Role)


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may use at most; None is no limit.

    Attributes:
        queued_jobs: unfinished jobs of its owner.
        bytes: inputs of unfinished jobs and shared data of its owner, bytes.
        requests_per_minute: requests at one parent.
    """

    queued_jobs: int | None = None
    bytes: int | None = None
    requests_per_minute: int | None = None

    @classmethod
    def of(cls, values: Mapping[str, int | None]) -> KeyLimits:
        """The limits by name; names of a newer release are ignored."""
        return cls(**{each.name: values.get(each.name) for each in fields(cls)})

    def as_dict(self) -> dict[str, int | None]:
        """The limits by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @property
    def need_usage(self) -> bool:
        """Whether a submit has to know what the owner uses already."""
        return self.queued_jobs is not None or self.bytes is not None


NO_LIMITS = KeyLimits()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request.

    Attributes:
        key: id or name of the API key; empty without one.
        owner: to whom what the request makes belongs.
        roles: what it may do.
        pricers: which pricers it may use; None for all.
        limits: what it may use at most.
    """

    key: str
    owner: str
    roles: frozenset[Role]
    pricers: frozenset[str] | None = None
    limits: KeyLimits = NO_LIMITS

    def may(self, *roles: Role) -> bool:
        """Whether it has one of these roles, or may do everything."""
        return Role.ADMIN in self.roles or not self.roles.isdisjoint(roles)

    def may_use(self, pricer: str) -> bool:
        """Whether it may submit jobs for a pricer."""
        return self.pricers is None or pricer in self.pricers

    def owns(self, owner: str) -> bool:
        """Whether it may read and change everything of an owner. Jobs of older releases have the owner ''."""
        return owner == self.owner or Role.ADMIN in self.roles

    def sees(self, owner: str) -> bool:
        """Whether it may see state and progress of an owner's jobs and batches, and cancel them."""
        return self.owns(owner) or Role.OPERATE in self.roles

    @property
    def sees_all(self) -> bool:
        """Whether it sees jobs and batches of every owner."""
        return self.may(Role.OPERATE)


LOCAL = Caller("", LOCAL_OWNER, ALL_ROLES)
"""The user who started a grid without keys."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key as the job store has it.

    Attributes:
        caller: who makes a request with it; `caller.key` is the public part of the key.
        digest: sha256 of the whole key, hexadecimal; the key itself is stored nowhere.
        created_at: when it was made (UTC).
        created_by: the owner of the key that made it.
        expires_at: when it stops being valid (UTC); None for never.
        revoked_at: when it was revoked (UTC).
        replaces: id of the key whose rotation made it.
    """

    caller: Caller
    digest: str = field(repr=False)
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    replaces: str | None = None

    @property
    def key_id(self) -> str:
        """The public part of the key."""
        return self.caller.key

    def is_valid(self, now: datetime) -> bool:
        """Whether requests with it are accepted at an instant."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def new_key() -> tuple[str, str]:
    """A new random key, and its id."""
    key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(10))
    secret = "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(43))
    return f"rg_{key_id}_{secret}", key_id


def digest_of(key: str) -> str:
    """The form in which a key is stored. It is fast on purpose: a key has 256 random bits, which nobody can try."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def without_secrets(text: str) -> str:
    """The text with the secrets of keys in it masked."""
    return KEY.sub(r"rg_\1_***", text)


def id_of(key: str) -> str | None:
    """The id in a key; None if it does not have the form of one."""
    found = KEY.fullmatch(key)
    return found[1] if found is not None else None
