"""Lets a mount show root's files as those of another user, and what that user makes there as root's (Linux 5.12).

A mount's owners are mapped by a user namespace, of which only the numbers count. A process makes the namespace, and may
end when it is open. See mount_setattr(2), MOUNT_ATTR_IDMAP.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

_MADE = b"made"
_PROGRAM = f"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare({1 << 28}) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
os.write(1, {_MADE!r})
os.read(0, 1)
"""


def root_as(uid: int, gid: int) -> int:
    """A descriptor of a user namespace that maps root to a user, for `namespaces.map_owners`; the caller closes it.

    Raises:
        OSError: the kernel refuses it.
    """
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            if process.stdout.read(len(_MADE)) != _MADE:
                why = process.stderr.read().decode(errors="replace").strip()
                raise OSError(f"no user namespace for the owners of files: {why}")
            for kind, number in (("uid_map", uid), ("gid_map", gid)):
                with open(f"/proc/{process.pid}/{kind}", "w", encoding="ascii") as file:
                    file.write(f"0 {number} 1")
            return os.open(f"/proc/{process.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
