"""Where the cgroups of this process are, of either version, so that their limits can be read.

A container or a batch system gives a process a part of the machine this way; what the machine itself has does not show
it. Limits hold for a cgroup and all below it, so each one from the process's own up to the root counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

Reader = Callable[[str], str | None]
"""Gives the text of a file, or None where it cannot be read."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A hierarchy of cgroups.

    Attributes:
        unified: whether it is that of version 2.
        at: where it is mounted.
        own: the directory of this process's cgroup.
    """

    unified: bool
    at: PurePosixPath
    own: PurePosixPath

    @property
    def places(self) -> list[PurePosixPath]:
        """The directories of the process's own cgroup and of those around it, up to the root."""
        places = [self.own, *self.own.parents]
        return places[: places.index(self.at) + 1] if self.at in places else [self.at]


def mounts(controller: str, read: Reader) -> Iterator[Mount]:
    """The hierarchies that may hold limits: that of version 2, and that of version 1 for a controller.

    Args:
        controller: such as `cpu` or `memory`.
        read: reads a file by its absolute path; tests put fakes here.
    """
    paths = dict(_own_paths(read("/proc/self/cgroup") or ""))
    for line in (read("/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        unified = kind[0] == "cgroup2"
        if not unified and not (kind[0] == "cgroup" and controller in kind[2].split(",")):
            continue
        path = paths.get("" if unified else controller)
        if path is not None:
            root, at = (PurePosixPath(_unescaped(fields[number])) for number in (3, 4))
            # In a container its own cgroup may be mounted as the root, while the path is that on the host.
            below = PurePosixPath(path).relative_to(root) if PurePosixPath(path).is_relative_to(root) else "."
            yield Mount(unified, at, at / below)


def read_text(path: str) -> str | None:
    """Read a file of the real machine."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None


def _own_paths(text: str) -> Iterator[tuple[str, str]]:
    """The process's path in each hierarchy, by controller; that of version 2 under an empty name."""
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(",") if number != "0" else [""]:
            yield controller, path


def _unescaped(text: str) -> str:
    """A path as it stands in mountinfo, where blanks and backslashes are written in octal."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
