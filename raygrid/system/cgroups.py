"""Finds the cgroups of this process, of version 1 and 2, so that their limits can be read.

Containers and batch systems limit a process by its cgroups. A limit holds for a cgroup and all cgroups below it, so
every cgroup from the process's own up to the root counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from raygrid.system.proc import Reader, file_systems, own_cgroups


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy of cgroups.

    Attributes:
        unified: whether it is of version 2.
        at: where it is mounted.
        own: the directory of this process's cgroup.
    """

    unified: bool
    at: PurePosixPath
    own: PurePosixPath

    @property
    def directories(self) -> list[PurePosixPath]:
        """The directories of the process's own cgroup and of those around it, up to the root."""
        found = [self.own, *self.own.parents]
        return found[: found.index(self.at) + 1] if self.at in found else [self.at]


def hierarchies(controller: str, read: Reader) -> Iterator[Hierarchy]:
    """The hierarchies that can limit a controller, such as `cpu` or `memory`: version 2, and its own of version 1."""
    paths = own_cgroups(read)
    for mount in file_systems(read):
        unified = mount.kind == "cgroup2"
        if not unified and not (mount.kind == "cgroup" and controller in mount.options):
            continue
        path = paths.get("" if unified else controller)
        if path is not None:
            at = PurePosixPath(mount.at)
            # A container's own cgroup may be mounted as the root, while the path is the one on the host.
            inside = PurePosixPath(path).is_relative_to(mount.root)
            yield Hierarchy(unified, at, at / (PurePosixPath(path).relative_to(mount.root) if inside else "."))
