"""A pricer's definition: the part of its settings that is pinned to a job at submit, identified by its digest.

Every setting of a pricer is either part of its definition (`PINNED`) or a limit (`LIMITS`); a test fails for a setting
that is in neither. A job keeps the definition that it was submitted with; limits are those in force when an attempt
starts. `Definition` values travel between tiers and are stored; nothing here does I/O.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from raygrid.errors import SettingsError
from raygrid.models import Definition
from raygrid.settings.pricer import Pricer

PINNED = frozenset({"command", "mode", "env", "expect", "helpers", "version", "recycle_after", "recycle_memory"})
"""Settings that decide what runs and how its process is kept."""
LIMITS = frozenset({"result", "timeout_s", "memory", "processes", "output", "retry_exit_codes", "straggler", "reuse"})
LIMITS |= {"reuse_across_owners"}
LIMITS |= {"sandbox", "sandbox_required", "sandbox_user", "read", "write", "network"}
"""Settings that limit a run, or decide what follows its end."""

_READERS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter[Any](field.annotation)  # type: ignore[arg-type]  # a field of a model has one
    for name, field in Pricer.model_fields.items()
    if name in PINNED | LIMITS
}
# Definitions of older releases lack newer settings, which had no effect there.
_DEFAULTS = {name: Pricer.model_fields[name].default for name in PINNED if not Pricer.model_fields[name].is_required()}


def define(name: str, pricer: Pricer) -> Definition:
    """The definition of a configured pricer, with its current limits.

    Statuses and manifests show the digest. If the pricer has variables, it is slow to make (about 50 ms), so that their
    values, which may be secrets, cannot be found by trying.
    """
    pinned = {"pricer": name, **_dump(pricer, PINNED)}
    body = json.dumps(pinned, sort_keys=True)
    if pricer.env:
        digest = hashlib.scrypt(body.encode(), salt=b"raygrid definition", n=2**14, r=8, p=1, dklen=16).hex()
    else:
        digest = hashlib.sha256(body.encode()).hexdigest()[:32]
    return Definition(digest, body, json.dumps(_dump(pricer, LIMITS), sort_keys=True))


def pricer_of(definition: Definition, limits: Pricer | None) -> Pricer:
    """The pricer to run: a definition with `limits`, or with the last known limits if the pricer was removed.

    A removed pricer never runs with `sandbox: off`: the settings do not show it any more.

    The definition was checked when it was made, so only its types are checked here: this release may refuse settings
    that an older one accepted.

    Raises:
        SettingsError: the definition is damaged, or has settings that only a newer release knows.
    """
    pinned = json.loads(definition.body)
    name = pinned.pop("pricer")
    pinned = {**_DEFAULTS, **pinned}
    if unknown := pinned.keys() - PINNED:
        raise SettingsError(
            f"the definition {definition.digest} of pricer {name!r} has the setting {min(unknown)!r}, which this "
            "release of raygrid does not know; install a release that knows it on all machines"
        )
    known = {} if limits is not None else {k: v for k, v in json.loads(definition.limits).items() if k in LIMITS}
    if known.get("sandbox") == "off":
        del known["sandbox"]
    try:
        values = {name: _READERS[name].validate_python(value) for name, value in (pinned | known).items()}
    except ValidationError as error:
        # Without the error's own text, which quotes values: they may be secrets.
        where = ", ".join(str(part) for part in error.errors()[0]["loc"]) or "a value"
        raise SettingsError(f"the definition {definition.digest} of pricer {name!r} is damaged: {where}") from None
    if limits is None:
        return Pricer.model_construct(**values)
    pricer = limits.model_copy(update=values)
    return limits if pricer == limits else pricer


def same_definition(one: Pricer, other: Pricer) -> bool:
    """Whether two pricers have the same definition; their limits may differ."""
    return all(getattr(one, name) == getattr(other, name) for name in PINNED)


def _dump(pricer: Pricer, names: frozenset[str]) -> dict[str, Any]:
    dumped = pricer.model_dump(mode="json", include=set(names))
    codes = dumped.get("retry_exit_codes")
    return dumped if codes is None else {**dumped, "retry_exit_codes": sorted(codes)}
