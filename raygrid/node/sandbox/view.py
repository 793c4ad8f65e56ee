"""What a sandbox shows of the machine's files: hides the grid's own and other sandboxes' directories.

Called in a thread that has a mount namespace of its own. Afterwards, a hidden directory is empty and read-only, and a
hidden file reads as empty. What lies in a hidden directory and must stay visible is taken before and put back; what is
hidden within that is hidden again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raygrid.system import namespaces

SHARED_MEMORY = "/dev/shm"  # noqa: S108  # the sandbox's own
SHARED_MEMORY_MODE = 0o1777
_HIDDEN = "mode=755,size=1m,nr_inodes=1k"


@dataclass(frozen=True, slots=True)
class View:
    """What to hide and to show, as absolute paths; those that do not exist are skipped.

    Attributes:
        hidden: files and directories to hide.
        shown: what to show nevertheless, with all that is mounted below it.
        read_only: files and directories that cannot be changed.
        own_shared_memory: whether `/dev/shm` is the sandbox's own.
    """

    hidden: Sequence[str] = ()
    shown: Sequence[str] = ()
    read_only: Sequence[str] = ()
    own_shared_memory: bool = True


def build(view: View) -> int:
    """Build it; return a descriptor of the sandbox's own `/dev/shm`, -1 without one.

    Raises:
        OSError: a mount fails.
    """
    hidden = {os.path.realpath(path) for path in view.hidden}
    shown = {place for path in view.shown for place in _places(path) if is_below_one(place, hidden)}
    taken = {}
    covered = []
    try:
        for path in shown:
            taken[path] = (os.path.isdir(path), namespaces.take_tree(path))
        for path in sorted(hidden | shown, key=lambda each: (each.count("/"), each)):  # from the outside in
            if path in taken:
                is_directory, tree = taken.pop(path)
                _put(tree, path, is_directory=is_directory)
            elif os.path.isdir(path):
                namespaces.mount_memory(path, _HIDDEN)
                covered.append(path)
            elif os.path.exists(path):
                namespaces.bind(os.devnull, path)
    finally:
        for _, tree in taken.values():
            os.close(tree)
    for path in covered:
        namespaces.make_read_only(path)
    for path in sorted({os.path.realpath(path) for path in view.read_only if os.path.exists(path)}):
        namespaces.bind(path, path)  # with what is hidden and shown below it, which stays as it is
        namespaces.make_read_only(path)
    if not view.own_shared_memory or not os.path.isdir(SHARED_MEMORY):
        return -1
    namespaces.mount_memory(SHARED_MEMORY, f"mode={SHARED_MEMORY_MODE:o},size=50%")
    return os.open(SHARED_MEMORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _places(path: str) -> set[str]:
    """Where a path that exists lies: itself, and what it leads to if it is a link."""
    if not os.path.exists(path):
        return set()
    return {os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)), os.path.realpath(path)}


def _put(tree: int, path: str, *, is_directory: bool) -> None:
    """Mount a tree at its path, unless it is visible there already, or a link is, whose target has a place itself."""
    try:
        is_visible = os.path.islink(path) or os.path.samestat(os.fstat(tree), os.stat(path))
    except OSError:
        is_visible = False
        os.makedirs(path if is_directory else os.path.dirname(path), exist_ok=True)
        if not is_directory:
            with open(path, "xb"):
                pass
    if is_visible:
        os.close(tree)
    else:
        namespaces.put_tree(tree, path)


def is_below(path: str, top: str) -> bool:
    """Whether a path is another one or lies below it; both are absolute."""
    return path == top or path.startswith(top.rstrip("/") + "/")


def is_below_one(path: str, tops: Iterable[str]) -> bool:
    """Whether a path is one of some others or lies below one."""
    return any(is_below(path, top) for top in tops)
