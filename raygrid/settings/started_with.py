"""What a grid on this machine was started with, so that a second start can be compared with the first one.

Settings are kept in readable form, because the error names what differs. Of a secret only a slow, salted digest is
kept, which shows that it was changed and nothing else. The settings model is imported for type checks only: clients
import this file to read the file of a grid.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shlex
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from raygrid.settings.model import GridSettings

# What stands for a dot in a part of a setting's name, so that the parts can be told apart: a pricer may be named `a.b`.
_DOT = "\x1f"
# Which grid it is, not how it was started: the file lies there.
_PLACE = {("name",), ("storage", "state_dir")}
_NOTHING = "nothing"
_API_KEYS = ("http", "api_keys")
_SECRETS = {_API_KEYS, ("storage", "database"), ("storage", "blobs")}


@dataclass(frozen=True, slots=True)
class StartedWith:
    """How a grid was started.

    Attributes:
        racks: number of groups.
        nodes: Ray nodes in each.
        settings: name (see `_name_of`) to value, for people; no secrets.
        salt: of the digests.
        digests: name to digest, of the secrets that are set.
    """

    racks: int
    nodes: int
    settings: dict[str, str]
    salt: str
    digests: dict[str, str]

    @classmethod
    def of(cls, settings: GridSettings, racks: int, nodes: int, salt: str | None = None) -> Self:
        """Take down how a grid is being started."""
        salt = salt or secrets.token_hex(16)
        shown = {_name_of(path): _shown(value) for path, value in _leaves(settings) if not _is_secret(path)}
        return cls(racks, nodes, shown, salt, _digests(settings, salt))

    def differences(
        self,
        settings: GridSettings,
        racks: int | None,
        nodes: int | None,
        said: Collection[str] | None = None,
    ) -> list[str]:
        """What is asked for and is not so, in words.

        Args:
            settings: as asked for.
            racks: as asked for; None for any.
            nodes: as asked for; None for any.
            said: dotted names of the settings and sections that are asked for, in small letters, whatever the others
                are; None where all are.
        """
        asked = StartedWith.of(settings, racks or self.racks, nodes or self.nodes, self.salt)
        found = [
            f"{name}: it runs with {mine}, asked for are {theirs}"
            for name, mine, theirs in (("racks", self.racks, asked.racks), ("nodes", self.nodes, asked.nodes))
            if mine != theirs
        ]
        here, there = _pricers(self.settings), _pricers(asked.settings)
        wanted = _pricers(name for name in asked.settings if _is_said(_dotted(name), said))
        found += [f"pricer {name}: it has none of that name" for name in sorted(wanted - here)]
        if said is None:
            found += [f"pricer {name}: it has it, but it was not asked for" for name in sorted(here - there)]
        for name in _compared(self.settings.keys() | asked.settings.keys(), said, here & there):
            mine, theirs = self.settings.get(name, _NOTHING), asked.settings.get(name, _NOTHING)
            if mine != theirs:
                found.append(f"{_dotted(name)}: it runs with {mine}, asked for is {theirs}")
        found += [
            f"a secret: {_dotted(name)} is not what it runs with"
            for name in _compared(self.digests.keys() | asked.digests.keys(), said, here & there)
            if self.digests.get(name) != asked.digests.get(name)
        ]
        return found

    def changes_to(self, newer: StartedWith) -> list[str]:
        """What differs in newer settings, a line each; of secrets only that they differ. Both have the same salt."""
        found = []
        for name in sorted(self.settings.keys() | newer.settings.keys()):
            before, after = self.settings.get(name, _NOTHING), newer.settings.get(name, _NOTHING)
            if before != after:
                found.append(f"{_dotted(name)}: {before} -> {after}")
        found += [
            f"{_dotted(name)} changed"
            for name in sorted(self.digests.keys() | newer.digests.keys())
            if self.digests.get(name) != newer.digests.get(name)
        ]
        return found


def _is_said(name: str, said: Collection[str] | None) -> bool:
    """Whether a setting, a part of it or a section that it is in is among those that are asked for."""
    name = f"{name.lower()}."
    return said is None or any(name.startswith(f"{each}.") or each.startswith(name) for each in said)


def _compared(names: Iterable[str], said: Collection[str] | None, pricers: Collection[str]) -> Iterator[str]:
    """The names to compare: those that were said, apart from pricers that only one side has."""
    for name in sorted(names):
        pricer = _pricer_of(name)
        if _is_said(_dotted(name), said) and (pricer is None or pricer in pricers):
            yield name


def _dotted(name: str) -> str:
    """A setting's name for people."""
    return name.replace(_DOT, ".")


def _name_of(path: tuple[str, ...]) -> str:
    """A setting's name: the parts of its path with dots between, and another character for a dot within a part."""
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

    yield from walk((), settings.model_dump())


def _is_secret(path: tuple[str, ...]) -> bool:
    return path in _SECRETS or (len(path) == 3 and path[0] == "pricers" and path[2] == "env")


def _digests(settings: GridSettings, salt: str) -> dict[str, str]:
    """A digest of each secret, made slowly: a short password cannot be found out by trying."""
    hidden = {path: value for path, value in _leaves(settings) if _is_secret(path) and value}
    if settings.http.api_keys:
        hidden[_API_KEYS] = [[key.name, key.key.get_secret_value()] for key in settings.http.api_keys]
    return {_name_of(path): _digest(salt + _name_of(path), value) for path, value in hidden.items()}


def _digest(salt: str, value: Any) -> str:
    text = json.dumps(value, sort_keys=True).encode()
    return hashlib.scrypt(text, salt=salt.encode(), n=2**14, r=8, p=1, dklen=16).hex()


def _shown(value: Any) -> str:
    if isinstance(value, tuple) and all(isinstance(word, str) for word in value):
        # As shlex.join, but {input} stays as it was written.
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
