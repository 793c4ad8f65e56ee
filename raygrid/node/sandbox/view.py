"""What a sandbox shows of the machine's files: hides the grid's own and other sandboxes' directories.

Called in a thread that has a mount namespace of its own. Afterwards, a hidden directory is empty and read-only, and a
hidden file reads as empty. What lies in a hidden directory and must stay visible is taken before and put back; what is
hidden within that is hidden again. Directories around these paths cannot be renamed: else a pricer could move them away
and make files of its own under the old names. `/proc` is read-only in every view.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from raygrid.system import namespaces
from raygrid.system.permissions import can_change
from raygrid.system.proc import file_systems, read_text

SHARED_MEMORY = "/dev/shm"  # noqa: S108  # the sandbox's own
SHARED_MEMORY_MODE = 0o1777
_MOST_LINKS = 40  # as the kernel follows
_HIDDEN = "mode=755,size=1m,nr_inodes=1k"


@dataclass(frozen=True, slots=True)
class View:
    """What to hide and to show, as absolute paths; those that do not exist are skipped.

    Attributes:
        hidden: files and directories to hide.
        shown: what to show nevertheless, with all that is mounted below it.
        read_only: files and directories that cannot be changed.
        own_shared_memory: whether `/dev/shm` is the sandbox's own.
        mapped: one of `shown`, whose files belong to another user there.
        writable: the only files and directories that can be changed, besides `/dev/shm`; None for all. Elsewhere not
            even the mode, owner, times and attributes of a file can be changed, which Landlock does not restrict.
    """

    hidden: Sequence[str] = ()
    shown: Sequence[str] = ()
    read_only: Sequence[str] = ()
    own_shared_memory: bool = True
    mapped: str = ""
    writable: Sequence[str] | None = None


def build(view: View, owners: int = -1) -> int:
    """Build it; return a descriptor of the sandbox's own `/dev/shm`, -1 without one.

    `owners` is the mapping of `view.mapped`, from `owner_mapping.py`.

    Raises:
        OSError: a mount fails.
    """
    hidden = {os.path.realpath(path) for path in view.hidden}
    read_only = {os.path.realpath(path) for path in view.read_only if os.path.exists(path)}
    _pin(hidden, read_only, {link for path in (*view.hidden, *view.read_only) for link in _links_on(path)})
    shown = {place for path in view.shown for place in _places(path) if is_below_one(place, hidden)}
    mapped = os.path.realpath(view.mapped) if view.mapped else None
    taken = {}
    covered = []
    try:
        for path in shown:
            taken[path] = (os.path.isdir(path), namespaces.take_tree(path))
            if path == mapped:
                namespaces.map_owners(taken[path][1], owners)
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
    for path in sorted(each for each in read_only if os.path.exists(each)):  # the others are hidden now
        namespaces.bind(path, path)  # with what is hidden and shown below it, which stays as it is
        namespaces.make_read_only(path)
    if view.writable is not None:
        _make_the_rest_read_only({*map(os.path.realpath, view.writable), SHARED_MEMORY})
    _make_processes_read_only()
    if not view.own_shared_memory or not os.path.isdir(SHARED_MEMORY):
        return -1
    namespaces.mount_memory(SHARED_MEMORY, f"mode={SHARED_MEMORY_MODE:o},size=50%")
    return os.open(SHARED_MEMORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _make_processes_read_only() -> None:
    """Make every mounted /proc read-only.

    Else a pricer could change the priority (`autogroup`) and the score for the kernel's out-of-memory killer of each
    process of its user: these files do not ask whether the writer may signal or trace the process. What is opened
    through `/proc/self/fd` is on another mount, and stays as it is.
    """
    for mount in file_systems(read_text, "thread-self"):
        if mount.kind == "proc" and os.path.ismount(mount.at):  # one in a hidden directory is not there any more
            namespaces.make_read_only(mount.at, recursive=True)


def _make_the_rest_read_only(writable: Collection[str]) -> None:
    trees = {path: namespaces.take_tree(path) for path in sorted(writable) if os.path.exists(path)}
    try:
        namespaces.make_read_only("/", recursive=True)
        for path in list(trees):  # from the outside in
            namespaces.put_tree(trees.pop(path), path)
    finally:
        for tree in trees.values():
            os.close(tree)


def _pin(hidden: set[str], read_only: set[str], links: set[str]) -> None:
    """Let no directory around these paths be renamed, and no link that leads to one be replaced."""
    tops = {path for path in hidden | read_only | links if not is_below_one(os.path.dirname(path), hidden)}
    for path in sorted(_renamable(tops), key=len):  # from the outside in
        if not is_below_one(path, read_only):  # which cannot be changed anyway, and must not have writable mounts
            namespaces.bind(path, path)  # a mount point cannot be renamed
    for link in sorted(links):
        if not is_below_one(link, hidden | read_only) and can_change(os.path.dirname(link)):
            namespaces.put_tree(namespaces.take_link(link), link)


def _renamable(paths: Iterable[str]) -> set[str]:
    """The existing directories around some paths that this user can rename; none directly below the root directory."""
    found = set()
    for path in paths:
        around, above = os.path.dirname(path), os.path.dirname(os.path.dirname(path))
        while above != os.path.dirname(above):
            if os.path.isdir(around) and can_change(above):
                found.add(around)
            around, above = above, os.path.dirname(above)
    return found


def _links_on(path: str) -> set[str]:
    """The symbolic links that are followed on the way to a path, each by the real path of its directory."""
    found: set[str] = set()
    rest = path.strip("/").split("/")
    place = "/"
    while rest and len(found) < _MOST_LINKS:
        name = rest.pop(0)
        if name in ("", ".", ".."):
            place = os.path.dirname(place) if name == ".." else place
            continue
        entry = os.path.join(place, name)
        try:
            target = os.readlink(entry)
        except OSError:
            place = entry
            continue
        found.add(entry)
        rest = [*target.strip("/").split("/"), *rest]
        place = "/" if target.startswith("/") else place
    return found


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
