"""The options and settings that a grid on this machine was started with, to compare a second start with the first.

Settings are kept as readable text, because an error names the differences. Of a secret only a slow, salted digest is
kept, which shows only whether it changed. The settings model is imported for type checks only, because clients import
this file.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from raygrid.settings.model import GridSettings

# Replaces a dot within a part of a setting's name, so that the parts stay separate: a pricer may be named `a.b`.
_DOT = "\x1f"
# These identify a grid and the place of its file, so they are equal in both starts.
_PLACE = {("name",), ("storage", "state_dir")}
_NOTHING = "nothing"
_OF_GRID = ("sandbox", "sandbox_required", "sandbox_user")  # settings of pricers whose default is the grid's
_API_KEYS = ("http", "api_keys")
_SECRETS = {_API_KEYS, ("storage", "database"), ("storage", "blobs")}


@dataclass(frozen=True, slots=True)
class StartedWith:
    """How a grid was started.

    Attributes:
        racks: number of groups.
        nodes: Ray nodes in each.
        settings: name (see `_name_of`) to readable value; without secrets.
        salt: salt of the digests.
        digests: name to digest of each secret that is set.
    """

    racks: int
    nodes: int
    settings: dict[str, str]
    salt: str
    digests: dict[str, str]

    @classmethod
    def of(cls, settings: GridSettings, racks: int, nodes: int, salt: str | None = None) -> Self:
        """Record how a grid is started."""
        salt = salt or secrets.token_hex(16)
        shown = {_name_of(path): _shown(value) for path, value in _leaves(settings) if not _is_secret(path)}
        return cls(racks, nodes, shown, salt, _digests(settings, salt))

    def differences(
        self,
        settings: GridSettings,
        racks: int | None,
        nodes: int | None,
        only: Collection[str] | None = None,
    ) -> list[str]:
        """The differences between the running grid and a second start, one line each.

        Args:
            settings: settings of the second start.
            racks: its number of groups; None for any.
            nodes: its number of nodes in each; None for any.
            only: dotted names, in lower case, of the settings and sections to compare; None for all.
        """
        asked = StartedWith.of(settings, racks or self.racks, nodes or self.nodes, self.salt)
        found = [
            f"{name}: the grid uses {mine}, you asked for {theirs}"
            for name, mine, theirs in (("racks", self.racks, asked.racks), ("nodes", self.nodes, asked.nodes))
            if mine != theirs
        ]
        here, there = _pricers(self.settings), _pricers(asked.settings)
        wanted = _pricers(name for name in asked.settings if _is_named(name, only))
        found += [f"pricer {name}: the grid does not have it" for name in sorted(wanted - here)]
        if only is None:
            found += [f"pricer {name}: the grid has it, you did not ask for it" for name in sorted(here - there)]

        def is_compared(name: str) -> bool:
            return _is_named(name, only) and _pricer_of(name) in {None, *(here & there)}

        found += [
            f"{_dotted(name)}: the grid uses {mine}, you asked for {theirs}"
            for name, mine, theirs in _differing(self.settings, asked.settings)
            if is_compared(name)
        ]
        found += [
            f"{_dotted(name)}: the grid uses another secret"
            for name, _, _ in _differing(self.digests, asked.digests)
            if is_compared(name)
        ]
        return found

    def changes_to(self, newer: StartedWith) -> list[str]:
        """The differences to newer settings with the same salt, one line each; values of secrets are not shown."""
        return [
            *(f"{_dotted(name)}: {old} -> {new}" for name, old, new in _differing(self.settings, newer.settings)),
            *(f"{_dotted(name)} changed" for name, _, _ in _differing(self.digests, newer.digests)),
        ]


def _is_named(name: str, only: Collection[str] | None) -> bool:
    """Whether `only` has a setting, a part of it or a section that contains it; None has all."""
    name = f"{_dotted(name).lower()}."
    return only is None or any(name.startswith(f"{each}.") or each.startswith(name) for each in only)


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Each name whose values differ, with both values, an empty one as `nothing`; sorted by name."""
    for name in sorted(one.keys() | other.keys()):
        mine, theirs = one.get(name, _NOTHING), other.get(name, _NOTHING)
        if mine != theirs:
            yield name, mine or _NOTHING, theirs or _NOTHING


def _dotted(name: str) -> str:
    """A setting's name as users write it."""
    return name.replace(_DOT, ".")


def _name_of(path: tuple[str, ...]) -> str:
    """A setting's name: the parts of its path joined by dots; `_DOT` replaces a dot within a part."""
    return ".".join(part.replace(".", _DOT) for part in path)


def _leaves(settings: GridSettings) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each setting with the path to it."""

    def walk(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        for key, inner in value.items():
            where = (*path, str(key))
            if isinstance(inner, dict) and not _is_secret(where):
                yield from walk(where, inner)
            elif where not in _PLACE:
                yield where, inner

    dumped = settings.model_dump()
    for pricer in dumped["pricers"].values():
        for name in _OF_GRID:
            if pricer[name] == dumped[name]:
                pricer[name] = None  # so that a change of the grid's value is one difference, not one for each pricer
    yield from walk((), dumped)


def _is_secret(path: tuple[str, ...]) -> bool:
    return path in _SECRETS or (len(path) == 3 and path[0] == "pricers" and path[2] == "env")


def _digests(settings: GridSettings, salt: str) -> dict[str, str]:
    """A digest of each secret. Slow on purpose: a short password must not be found by trying."""
    hidden = {path: value for path, value in _leaves(settings) if _is_secret(path) and value}
    if settings.http.api_keys:
        hidden[_API_KEYS] = [[key.name, key.digest] for key in settings.http.api_keys]
    return {_name_of(path): _digest(salt + _name_of(path), value) for path, value in hidden.items()}


def _digest(salt: str, value: Any) -> str:
    text = json.dumps(value, sort_keys=True).encode()
    return hashlib.scrypt(text, salt=salt.encode(), n=2**14, r=8, p=1, dklen=16).hex()


def _shown(value: Any) -> str:
    if isinstance(value, tuple) and all(isinstance(word, str) for word in value):
        # Like shlex.join, but {input} is not quoted.
        return " ".join(word if word and not set(word) & set(" \t\n'\"\\") else shlex.quote(word) for word in value)
    if isinstance(value, frozenset):
        return json.dumps(sorted(value))
    if value is None:
        return _NOTHING
    return str(value) if isinstance(value, str | Path) else json.dumps(value)


def _pricer_of(name: str) -> str | None:
    section, *inner = name.split(".")
    return _dotted(inner[0]) if section == "pricers" else None


def _pricers(names: Iterable[str]) -> set[str]:
    return {pricer for name in names if (pricer := _pricer_of(name)) is not None}
