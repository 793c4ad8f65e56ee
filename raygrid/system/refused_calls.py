"""The system calls that a sandbox refuses, with the reason, and their numbers on each architecture.

Only a table: `seccomp.py` compiles it. What is not listed stays allowed, because ordinary programs must run unchanged:
`personality` (wine, gdb, `setarch`), `modify_ldt` (wine), `adjtimex` and `clock_adjtime` (they also only read, and
setting needs a capability), `name_to_handle_at`, `memfd_secret`, `seccomp`.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from typing import Literal

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. In `clone`, the bit of CLONE_NEWTIME belongs to the
# number of the child's exit signal; time namespaces come from `unshare` and `clone3` only.
NEW_NAMESPACE = 0x7E02_0000
NEW_TIME_NAMESPACE = 0x80
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # type into a terminal; paste into a console
FIOSETOWN, SIOCSPGRP = 0x8901, 0x8902
_F_SETOWN, _F_SETOWN_EX = 8, 15
_OWN = 0  # a process id of 0 means the caller
_PRIO_USER, _IOPRIO_WHO_USER, _SYS_SOCKET = 2, 3, 1
IGNORED = 0  # an "error" of 0: the call returns success and does nothing


@dataclass(frozen=True, slots=True)
class ArgumentTest:
    """A test of 32 bits of an argument: the lower half, or the upper one of a 64-bit argument."""

    argument: int
    holds: Literal["has any of", "is", "is not"]
    value: int
    upper: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call is refused: with this `errno`, if every test holds; without tests, always."""

    error: int
    tests: tuple[ArgumentTest, ...] = ()


@dataclass(frozen=True, slots=True)
class Numbers:
    """A call's number on each architecture; None where it does not exist."""

    x86_64: int | None
    i386: int | None
    aarch64: int | None


_OTHERS = (ArgumentTest(0, "is not", _OWN),)

# Refused always, with EPERM: by what they reach.
_ALWAYS = {
    "memory, descriptors and execution of other processes": (
        "ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp process_mrelease"
    ),
    "namespaces and mounts": (
        "setns mount umount umount2 pivot_root chroot move_mount open_tree open_tree_attr fsopen fsconfig fsmount "
        "fspick mount_setattr open_by_handle_at"
    ),
    "parts of the kernel with a history of faults": "bpf perf_event_open userfaultfd lookup_dcookie nfsservctl",
    "keys of the user": "keyctl add_key request_key",
    "the machine": (
        "kexec_load kexec_file_load init_module finit_module delete_module quotactl quotactl_fd swapon swapoff reboot "
        "sethostname setdomainname settimeofday stime clock_settime clock_settime64 acct iopl ioperm vhangup syslog"
    ),
}
# Programs ask once whether the kernel has these, and do without. The flags of `clone3` lie in memory, where a filter
# cannot read them; io_uring makes system calls that no filter sees.
# A descriptor of a process does not show a filter which process it signals; `kill` does.
_ABSENT = "clone3 io_uring_setup io_uring_enter io_uring_register process_madvise pidfd_send_signal"
# Neither Landlock nor the dumpable flag restricts the last six on other processes of the same user. A limit of 0 s of
# processor time ends a process; a low priority makes the grid's processes late. Programs lower their own priority by
# their process id (`renice -p $$`), which a filter cannot tell from another's: such calls are ignored, not refused.
_BY_ARGUMENTS = {
    "unshare": (Refusal(errno.EPERM, (ArgumentTest(0, "has any of", NEW_NAMESPACE | NEW_TIME_NAMESPACE),)),),
    "clone": (Refusal(errno.EPERM, (ArgumentTest(0, "has any of", NEW_NAMESPACE),)),),
    # The last two, and F_SETOWN_EX, name in memory who gets the signals of a descriptor.
    "ioctl": tuple(
        Refusal(errno.EPERM, (ArgumentTest(1, "is", command),))
        for command in (TIOCSTI, TIOCLINUX, FIOSETOWN, SIOCSPGRP)
    ),
    **dict.fromkeys(("fcntl", "fcntl64"), (Refusal(errno.EPERM, (ArgumentTest(1, "is", _F_SETOWN_EX),)),)),
    "prlimit64": tuple(
        Refusal(errno.EPERM, (*_OTHERS, ArgumentTest(2, "is not", 0, upper=upper)))  # with limits to set
        for upper in (False, True)
    ),
    "setpriority": (
        Refusal(IGNORED, (ArgumentTest(0, "is", _PRIO_USER),)),
        Refusal(IGNORED, (ArgumentTest(1, "is not", _OWN),)),
    ),
    "ioprio_set": (
        Refusal(IGNORED, (ArgumentTest(0, "is", _IOPRIO_WHO_USER),)),
        Refusal(IGNORED, (ArgumentTest(1, "is not", _OWN),)),
    ),
    "sched_setscheduler": (Refusal(IGNORED, _OTHERS),),
    "sched_setparam": (Refusal(IGNORED, _OTHERS),),
    "sched_setattr": (Refusal(IGNORED, _OTHERS),),
    # Also a thread's own number counts as another's: programs that pin threads one by one run unpinned.
    "sched_setaffinity": (Refusal(IGNORED, _OTHERS),),
}
# i386 programs may make sockets by `socketcall`, whose arguments lie in memory: none of theirs is made then.
_WITHOUT_NETWORK = {
    "socket": (Refusal(errno.EACCES, (ArgumentTest(0, "is not", socket.AF_UNIX),)),),
    "socketcall": (Refusal(errno.EACCES, (ArgumentTest(0, "is", _SYS_SOCKET),)),),
}


def refused_calls(*, network: bool) -> dict[str, tuple[Refusal, ...]]:
    """Every call that is refused in some case, by its name; without `network`, also sockets other than Unix ones."""
    always = {name: (Refusal(errno.EPERM),) for names in _ALWAYS.values() for name in names.split()}
    absent = {name: (Refusal(errno.ENOSYS),) for name in _ABSENT.split()}
    return always | absent | _BY_ARGUMENTS | ({} if network else _WITHOUT_NETWORK)


def calls_against(*numbers: int) -> dict[str, tuple[Refusal, ...]]:
    """The calls that send or arrange signals to one of these processes or threads, to be refused.

    Landlock lets a process signal all that is in its domain, and the thread that starts pricers is in theirs. A signal
    to a thread can end its whole process.
    """

    def refused(argument: int, *tests: ArgumentTest) -> tuple[Refusal, ...]:
        return tuple(Refusal(errno.EPERM, (*tests, ArgumentTest(argument, "is", number))) for number in numbers)

    of_descriptor = refused(2, ArgumentTest(1, "is", _F_SETOWN))
    return {
        **dict.fromkeys(("kill", "tkill", "rt_sigqueueinfo", "pidfd_open"), refused(0)),
        **dict.fromkeys(("tgkill", "rt_tgsigqueueinfo"), refused(1)),
        **dict.fromkeys(("fcntl", "fcntl64"), of_descriptor),
    }


# From the kernel's tables: arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl, scripts/syscall.tbl.
NUMBERS = {
    name: Numbers(*numbers)
    for name, numbers in {
        "ptrace": (101, 26, 117),
        "process_vm_readv": (310, 347, 270),
        "process_vm_writev": (311, 348, 271),
        "pidfd_getfd": (438, 438, 438),
        "kcmp": (312, 349, 272),
        "setns": (308, 346, 268),
        "unshare": (272, 310, 97),
        "clone": (56, 120, 220),
        "clone3": (435, 435, 435),
        "mount": (165, 21, 40),
        "umount": (None, 22, None),
        "umount2": (166, 52, 39),
        "pivot_root": (155, 217, 41),
        "chroot": (161, 61, 51),
        "move_mount": (429, 429, 429),
        "open_tree": (428, 428, 428),
        "open_tree_attr": (467, 467, 467),
        "fsopen": (430, 430, 430),
        "fsconfig": (431, 431, 431),
        "fsmount": (432, 432, 432),
        "fspick": (433, 433, 433),
        "mount_setattr": (442, 442, 442),
        "bpf": (321, 357, 280),
        "perf_event_open": (298, 336, 241),
        "userfaultfd": (323, 374, 282),
        "keyctl": (250, 288, 219),
        "add_key": (248, 286, 217),
        "request_key": (249, 287, 218),
        "kexec_load": (246, 283, 104),
        "kexec_file_load": (320, None, 294),
        "init_module": (175, 128, 105),
        "finit_module": (313, 350, 273),
        "delete_module": (176, 129, 106),
        "open_by_handle_at": (304, 342, 265),
        "quotactl": (179, 131, 60),
        "quotactl_fd": (443, 443, 443),
        "swapon": (167, 87, 224),
        "swapoff": (168, 115, 225),
        "reboot": (169, 88, 142),
        "sethostname": (170, 74, 161),
        "setdomainname": (171, 121, 162),
        "settimeofday": (164, 79, 170),
        "stime": (None, 25, None),
        "clock_settime": (227, 264, 112),
        "clock_settime64": (None, 404, None),
        "acct": (163, 51, 89),
        "iopl": (172, 110, None),
        "ioperm": (173, 101, None),
        "lookup_dcookie": (212, 253, 18),
        "nfsservctl": (180, 169, 42),
        "vhangup": (153, 111, 58),
        "syslog": (103, 103, 116),
        "process_madvise": (440, 440, 440),
        "process_mrelease": (448, 448, 448),
        "ioctl": (16, 54, 29),
        "io_uring_setup": (425, 425, 425),
        "io_uring_enter": (426, 426, 426),
        "io_uring_register": (427, 427, 427),
        "prlimit64": (302, 340, 261),
        "setpriority": (141, 97, 140),
        "ioprio_set": (251, 289, 30),
        "sched_setscheduler": (144, 156, 119),
        "sched_setparam": (142, 154, 118),
        "sched_setattr": (314, 351, 274),
        "sched_setaffinity": (203, 241, 122),
        "kill": (62, 37, 129),
        "tkill": (200, 238, 130),
        "tgkill": (234, 270, 131),
        "rt_sigqueueinfo": (129, 178, 138),
        "rt_tgsigqueueinfo": (297, 335, 240),
        "pidfd_open": (434, 434, 434),
        "pidfd_send_signal": (424, 424, 424),
        "fcntl": (72, 55, 25),
        "fcntl64": (None, 221, None),
        "socket": (41, 359, 198),
        "socketcall": (None, 102, None),
    }.items()
}
