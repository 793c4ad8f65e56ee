"""Accounts of the machine, and threads that become one (Linux).

The C library's `setuid` changes all threads of a process; the kernel's own calls change the calling thread alone.
"""

from __future__ import annotations

import ctypes
import os
import platform
import pwd
from collections.abc import Sequence
from dataclasses import dataclass

from raygrid.system.system_calls import checked

NOBODY = 65534  # the kernel shows this number for owners that a user namespace or a mount does not know
# setgroups, setresgid, setresuid of <asm/unistd.h>
_NUMBERS = {"x86_64": (116, 119, 117), "aarch64": (159, 149, 147)}

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the machine: its numbers, with all groups, and its home directory."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that name it."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}


def account(name: str) -> Account:
    """The account with this name.

    Raises:
        LookupError: there is none, or it is root's, in root's group, or that of nobody.
    """
    try:
        found = pwd.getpwnam(name)
    except (KeyError, ValueError):  # ValueError: the name has a NUL
        raise LookupError(f"there is no user {name!r} on this machine") from None
    groups = tuple(os.getgrouplist(name, found.pw_gid))
    if 0 in (found.pw_uid, *groups) or found.pw_uid == NOBODY:
        who = "root" if found.pw_uid == 0 else "nobody" if found.pw_uid == NOBODY else "in root's group"
        raise LookupError(f"{name!r} is {who}; name a user made for pricers")
    return Account(name, found.pw_uid, found.pw_gid, groups, found.pw_dir)


def become(uid: int, gid: int, groups: Sequence[int]) -> None:
    """Make the calling thread, which must be root's, one of this user; programs that it starts are the user's, too.

    Raises:
        OSError: the thread may not do that, or the machine's system calls are not known.
    """
    numbers = _NUMBERS.get(platform.machine())
    if numbers is None:
        raise OSError(f"the numbers of system calls on {platform.machine()} are not known")
    set_groups, set_gid, set_uid = numbers
    list_of_groups = (ctypes.c_uint * len(groups))(*groups)
    checked(_libc.syscall(set_groups, len(groups), list_of_groups), "setgroups")
    checked(_libc.syscall(set_gid, gid, gid, gid), "setresgid")
    checked(_libc.syscall(set_uid, uid, uid, uid), "setresuid")
