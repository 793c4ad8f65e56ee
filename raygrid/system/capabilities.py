"""Capabilities of the calling thread (Linux).

A thread's capabilities are its own: dropping them changes no other thread of the process.
See capabilities(7).
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Collection

from raygrid.system.system_calls import checked

SETPCAP, NET_ADMIN, SYS_CHROOT, SYS_ADMIN = 8, 12, 18, 21
# What even a pricer that runs as root must not have: with one of these it could undo its sandbox, read the memory of
# other processes, or change the kernel. The numbers are those of <linux/capability.h>.
HARMFUL = (
    2,  # DAC_READ_SEARCH: open_by_handle_at
    NET_ADMIN,
    16,  # SYS_MODULE
    17,  # SYS_RAWIO
    SYS_CHROOT,
    19,  # SYS_PTRACE
    SYS_ADMIN,
    22,  # SYS_BOOT
    25,  # SYS_TIME
    27,  # MKNOD
    30,  # AUDIT_CONTROL
    32,  # MAC_OVERRIDE
    33,  # MAC_ADMIN
    34,  # SYSLOG
    38,  # PERFMON
    39,  # BPF
    40,  # CHECKPOINT_RESTORE
)
_VERSION_3 = 0x20080522
_PR_CAPBSET_DROP, _PR_CAP_AMBIENT = 24, 47
_AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 2, 4

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def drop_all() -> None:
    """Drop every capability of this thread, and thereby of the processes that it starts."""
    checked(_libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0), "PR_CAP_AMBIENT")
    checked(_libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), (_Data * 2)()), "capset")


def drop_harmful() -> None:
    """Take the `HARMFUL` capabilities from this thread and from what it starts; for a thread that stays root.

    Raises:
        OSError: the thread may not do that.
    """
    for each in HARMFUL:
        # EINVAL: this kernel does not know the capability.
        if _libc.prctl(_PR_CAPBSET_DROP, each, 0, 0, 0) != 0 and ctypes.get_errno() != errno.EINVAL:
            checked(-1, "PR_CAPBSET_DROP")
    checked(_libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0), "PR_CAP_AMBIENT")
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    checked(_libc.capget(ctypes.byref(header), data), "capget")
    for index, words in enumerate(data):
        lost = sum(1 << (each - 32 * index) for each in HARMFUL if each // 32 == index)
        words.effective &= ~lost
        words.permitted &= ~lost
        words.inheritable = 0
    checked(_libc.capset(ctypes.byref(header), data), "capset")


def keep_over_exec(wanted: Collection[int]) -> None:
    """Let programs that this thread executes have these capabilities, which it must have."""
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    checked(_libc.capget(ctypes.byref(header), data), "capget")
    for words in data:
        words.inheritable = words.permitted
    checked(_libc.capset(ctypes.byref(header), data), "capset")
    for each in wanted:
        checked(_libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_RAISE, each, 0, 0), "PR_CAP_AMBIENT")
