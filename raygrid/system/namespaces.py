"""Namespaces and mounts of the calling thread (Linux). See namespaces(7), mount_namespaces(7).

Mounts are moved by descriptor: a directory can be taken before its path is hidden, and put back there afterwards.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

from raygrid.system.system_calls import checked

NEW_MOUNTS, NEW_IPC, NEW_USER, NEW_NETWORK = 0x0002_0000, 0x0800_0000, 0x1000_0000, 0x4000_0000
_NOSUID, _NODEV, _BIND = 2, 4, 4096
_RECURSIVE, _SLAVE = 1 << 14, 1 << 19
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_FSOPEN, _FSCONFIG, _FSMOUNT, _CREATE, _CLOSE_ON_EXEC = 430, 431, 432, 6, 1
_ATTRIBUTE_READ_ONLY, _ATTRIBUTE_MAPPED, _AT_EMPTY_PATH = 1, 0x0010_0000, 0x1000
_AT_SYMLINK_NOFOLLOW = 0x100
_CLONE_TREE, _AT_RECURSIVE, _FROM_DESCRIPTOR, _AT_FDCWD = 1, 0x8000, 4, -100
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    """`struct mount_attr` of mount_setattr(2)."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user_namespace"))


def unshare(flags: int) -> None:
    """Give this thread new namespaces of these kinds.

    Raises:
        OSError: it may not have them.
    """
    checked(_libc.unshare(flags), "unshare")


def enter_namespace(descriptor: int, kind: int) -> None:
    """Enter the namespace of this kind that is open.

    Raises:
        OSError: it may not be entered.
    """
    checked(_libc.setns(descriptor, kind), "setns")


def no_new_privileges() -> None:
    """Let no program that this thread starts gain privileges, by set-uid bits or file capabilities."""
    checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


def keep_mounts_inside() -> None:
    """Let mounts of this namespace not appear in the one that it came from; later mounts there appear here."""
    checked(_libc.mount(b"none", b"/", None, _RECURSIVE | _SLAVE, None), "mount")


def mount_memory(path: str, options: str) -> None:
    """Mount an empty file system in memory (tmpfs) over a directory."""
    flags = _NOSUID | _NODEV
    checked(_libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", flags, options.encode()), path)


def make_read_only(path: str, *, recursive: bool = False) -> None:
    """Make the mount at a path, with `recursive` also those below it, read-only for this namespace."""
    # mount(2) would set all flags, and a user namespace may not remove those that the mount had outside of it.
    attributes = _MountAttributes(_ATTRIBUTE_READ_ONLY, 0, 0, 0)
    size = ctypes.sizeof(attributes)
    flags = _AT_RECURSIVE if recursive else 0
    changed = _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), flags, ctypes.byref(attributes), size)
    checked(changed, path)


def bind(source: str, target: str) -> None:
    """Let a path show what is at another path, with all that is mounted below it."""
    checked(_libc.mount(os.fsencode(source), os.fsencode(target), None, _BIND | _RECURSIVE, None), target)


def take_tree(path: str) -> int:
    """A descriptor of what is at a path, with all that is mounted below it, for `put_tree`."""
    flags = _CLONE_TREE | os.O_CLOEXEC | _AT_RECURSIVE
    return checked(_libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags), path)


def take_link(path: str) -> int:
    """A descriptor of the symbolic link at a path itself, for `put_tree`; mounted there, it cannot be replaced."""
    flags = _CLONE_TREE | os.O_CLOEXEC | _AT_SYMLINK_NOFOLLOW
    return checked(_libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags), path)


def map_owners(tree: int, mapping: int) -> None:
    """Let what `take_tree` took show other owners of files; see `owner_mapping.py`.

    Raises:
        OSError: the file system cannot do that.
    """
    attributes = _MountAttributes(_ATTRIBUTE_MAPPED, 0, 0, mapping)
    size = ctypes.sizeof(attributes)
    changed = _libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(attributes), size)
    checked(changed, "mapping the owners of files")


def put_tree(descriptor: int, path: str) -> None:
    """Mount what `take_tree` took at a path, which must exist; the descriptor is closed."""
    try:
        moved = _libc.syscall(_MOVE_MOUNT, descriptor, b"", _AT_FDCWD, os.fsencode(path), _FROM_DESCRIPTOR)
        checked(moved, path)
    finally:
        os.close(descriptor)


def message_queues() -> int:
    """A descriptor of the directory of this IPC namespace's POSIX message queues; -1 if the kernel has none."""
    context = _libc.syscall(_FSOPEN, b"mqueue", _CLOSE_ON_EXEC)
    if context < 0:
        return -1
    try:
        if _libc.syscall(_FSCONFIG, context, _CREATE, None, None, 0) < 0:
            return -1
        mount = _libc.syscall(_FSMOUNT, context, _CLOSE_ON_EXEC, 0)
    finally:
        os.close(context)
    if mount < 0:
        return -1
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    finally:
        os.close(mount)


def bring_loopback_up() -> None:
    """Let programs in this thread's new network namespace talk to each other over 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sH22x", b"lo", 0))
        flags = struct.unpack_from("16sH", request)[1] | _IFF_UP
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags))
