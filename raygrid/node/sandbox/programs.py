"""Finds the files that belong to a pricer's program, which `strict` lets it read: what its command and `env` name.

These are the absolute paths in them, programs that are found in PATH, the interpreters in the first lines of scripts,
and what is installed around a program. A home directory, a directory such as /srv or /data, or all of the machine never
is part of a program: only the named file in it is. The files are looked at outside of the sandbox.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from raygrid.settings.commands import placeholders

INHERITED = ("LD_LIBRARY_PATH", "VIRTUAL_ENV")
"""Variables of the agent that pricers get, and that name files of programs."""
_NOT_OF_PROGRAMS = ("HOME", "PWD", "TMPDIR", "TMP", "TEMP")
_CODE = (".py", ".pyz", ".jar", ".class", ".dll", ".exe", ".pl", ".rb", ".r", ".js", ".jl", ".lua", ".sh", ".m")
_BINARIES = ("bin", "sbin")
_PARTS = (*_BINARIES, "lib", "lib32", "lib64", "libexec", "include", "etc", "conf")
_WHOLE = ("pyvenv.cfg", "conda-meta", "release")  # files of a virtual environment, of conda, of a JVM
_MOST_LINKED = 8
_SEPARATORS = re.compile(r"[:;=,]")
_HEAD = 256


@dataclass(frozen=True, slots=True)
class ProgramSearch:
    """Where a node looks for programs.

    Attributes:
        environment: the agent's variables.
        home: the home directory of the grid's user.
        private: directories that hold more than programs, besides top-level ones and home directories.
    """

    environment: Mapping[str, str]
    home: str
    private: Sequence[str]

    def files_of(self, command: Sequence[str], env: Mapping[str, str]) -> tuple[str, ...]:
        """The files and directories of a pricer's program; entries need not exist.

        Args:
            command: its words.
            env: its own variables.
        """
        search_path = env.get("PATH") or self.environment.get("PATH") or os.defpath
        found: dict[str, None] = {}
        for number, word in enumerate(command):
            plain = "" if placeholders(word) else word.replace("{{", "{").replace("}}", "}")
            if number == 0 and "/" not in plain:
                plain = shutil.which(plain, path=search_path) or ""
            for path in _absolute_paths(plain):
                self._add(found, path, search_path, is_program=number == 0)
        inherited = {name: self.environment[name] for name in INHERITED if name in self.environment}
        for name, value in {**inherited, **env}.items():
            for path in _absolute_paths(value) if name not in _NOT_OF_PROGRAMS else ():
                self._add(found, path, search_path)
        return tuple(found)

    def _add(self, found: dict[str, None], path: str, search_path: str, *, is_program: bool = False) -> None:
        """Add a path with what it leads to and what belongs to it."""
        for each in _with_targets(path):
            if each in found or self._is_too_much(each):
                continue
            found[each] = None
            if os.path.isdir(each):
                self._add_environment(found, PurePosixPath(each))
            elif is_program or _is_code(each):
                self._add_directories(found, PurePosixPath(each))
                for interpreter in _interpreters(each, search_path):
                    self._add(found, interpreter, search_path, is_program=True)

    def _add_directories(self, found: dict[str, None], program: PurePosixPath) -> None:
        """Add the directory of a program and, if that is `bin`, what is installed beside it."""
        directory, around = program.parent, program.parent.parent
        if not self._is_too_much(str(directory)):
            found[str(directory)] = None
        if directory.name not in _BINARIES:
            return
        if any(os.path.exists(around / name) for name in _WHOLE) and not self._is_too_much(str(around)):
            found[str(around)] = None
        else:
            found.update((str(around / name), None) for name in _PARTS if os.path.isdir(around / name))
        self._add_environment(found, around)

    def _add_environment(self, found: dict[str, None], directory: PurePosixPath) -> None:
        """Add the installation of Python that a virtual environment is made from."""
        for home in _base_of_environment(directory):
            base = PurePosixPath(os.path.realpath(home))
            found.update((str(base.parent / name), None) for name in _PARTS if os.path.isdir(base.parent / name))

    def _is_too_much(self, path: str) -> bool:
        """Whether a directory holds more than a program."""
        place = PurePosixPath(path)
        return (
            (len(place.parts) <= 2 and os.path.isdir(path))
            or path in self.private
            or place.parent == PurePosixPath("/home")
            or PurePosixPath(self.home).is_relative_to(place)
        )


def _absolute_paths(text: str) -> Iterator[str]:
    """The absolute paths in a word, a list with colons, or an option with a value."""
    for part in (text, *_SEPARATORS.split(text)):
        path = part.removesuffix("*")
        if path.startswith("/") and "\0" not in path and "//" not in path[:2]:
            yield os.path.normpath(path)


def _with_targets(path: str) -> Iterator[str]:
    """A path, and each one that it leads to as a link."""
    for _ in range(_MOST_LINKED):
        yield path
        if not os.path.islink(path):
            break
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
    yield os.path.realpath(path)


def _is_code(path: str) -> bool:
    return path.lower().endswith(_CODE) or os.access(path, os.X_OK)


def _interpreters(script: str, search_path: str) -> Iterator[str]:
    """The programs in the first line of a script: an interpreter, and the one that `env` looks for."""
    try:
        with open(script, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return
    if not head.startswith(b"#!"):
        return
    words = [os.fsdecode(word) for word in head.partition(b"\n")[0][2:].split()]
    yield from (word for word in words[:1] if word.startswith("/"))
    if words and PurePosixPath(words[0]).name == "env":
        name = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), "")
        found = shutil.which(name, path=search_path) if name else None
        if found:
            yield found


def _base_of_environment(directory: PurePosixPath) -> list[str]:
    """Where the Python is from which a virtual environment is made; empty for another directory."""
    try:
        with open(directory / "pyvenv.cfg", encoding="utf-8") as file:
            lines = [line.partition("=") for line in file]
    except (OSError, UnicodeDecodeError):
        return []
    return [value.strip() for name, _, value in lines if name.strip() == "home" and value.strip().startswith("/")]
