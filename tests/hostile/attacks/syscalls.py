"""System calls by number, as a 64-bit process makes them, as 32-bit code does (`int 0x80`), and in the x32 table."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
from collections.abc import Callable
from functools import cache

from tests.hostile.attacks.attack import NotTriedError

_LIBC = ctypes.CDLL(None, use_errno=True)
X32 = 0x40000000
_MAP_32BIT = 0x40
# push rbx, rbp; eax, ebx, ecx, edx, esi, ebp, edi from the array at rdi; int 0x80; pop; cdqe; ret
_INT80 = bytes.fromhex("5355 8b07 8b5f04 8b4f08 8b570c 8b7710 8b6f18 8b7f14 cd80 5d5b 4898 c3")

# Those that libc has no function for, or whose function would hide the call.
NUMBERS = {
    "ptrace": 101, "pivot_root": 155, "chroot": 161, "mount": 165, "umount2": 166, "keyctl": 250, "unshare": 272,
    "migrate_pages": 256, "move_pages": 279, "perf_event_open": 298, "prlimit64": 302, "open_by_handle_at": 304,
    "name_to_handle_at": 303, "setns": 308, "process_vm_readv": 310, "kcmp": 312, "bpf": 321, "userfaultfd": 323,
    "pidfd_send_signal": 424, "io_uring_setup": 425, "open_tree": 428, "fsopen": 430, "clone3": 435,
    "pidfd_open": 434, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "kill": 62, "clone": 56,
    "shmget": 29, "shmat": 30, "ioprio_set": 251, "add_key": 248, "sched_setattr": 314, "getpid": 39,
    "process_mrelease": 448, "init_module": 175, "process_vm_writev": 311, "get_robust_list": 274, "mq_open": 240,
    "ioprio_get": 252, "tkill": 200, "tgkill": 234,
}  # fmt: skip
NUMBERS_I386 = {
    "getpid": 20, "mount": 21, "ptrace": 26, "kill": 37, "umount2": 52, "clone": 120, "keyctl": 288, "unshare": 310,
    "prlimit64": 340, "setns": 346, "process_vm_readv": 347, "io_uring_setup": 425, "clone3": 435, "pidfd_getfd": 438,
    "pidfd_open": 434, "bpf": 357, "add_key": 286,
}  # fmt: skip


def require_x86_64() -> None:
    """Give an attack up on processors whose calls have other numbers."""
    if platform.machine() != "x86_64":
        raise NotTriedError(f"the numbers of system calls are those of x86_64, not of {platform.machine()}")


def checked(value: int) -> int:
    """What a call of libc gave; raises its error."""
    if value < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return value


def call(name: str, *arguments: object, table: int = 0) -> int:
    """Make a system call; raises OSError."""
    require_x86_64()
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    _LIBC.syscall.restype = ctypes.c_long
    return checked(_LIBC.syscall(ctypes.c_long(NUMBERS[name] | table), *words))


def call_i386(name: str, *arguments: int) -> int:
    """Make a system call of the 32-bit table; addresses must lie below 4 GB. The process dies where there is none."""
    registers = (ctypes.c_uint32 * 7)(NUMBERS_I386[name], *(each & 0xFFFFFFFF for each in arguments))
    result = int(_int80()(ctypes.byref(registers)))
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def below_4_gb(content: bytes) -> int:
    """The address of bytes that 32-bit calls can reach."""
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_32BIT)
    page.write(content)
    _kept.append(page)
    return ctypes.addressof(ctypes.c_char.from_buffer(page))


@cache
def _int80() -> Callable[[object], int]:
    require_x86_64()
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_INT80)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    _kept.append(page)
    return ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p)(address)


_kept: list[mmap.mmap] = []
