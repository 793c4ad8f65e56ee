"""The filter of system calls (seccomp) of a sandbox: compiled from `refused_calls.py` to BPF, and set for a thread.

The kernel runs the filter at each system call of the thread and of its later children. Since version 5.11 it remembers
which calls are always allowed, and skips the filter for them. Sources: seccomp(2), linux/filter.h, linux/audit.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Literal, NamedTuple

from raygrid.system.refused_calls import NUMBERS, ArgumentTest, Refusal, calls_against, refused_calls

Architecture = Literal["x86_64", "i386", "aarch64"]


class _Machine(NamedTuple):
    """What a machine's kernel runs: its own programs, and 32-bit ones if this filter knows their calls."""

    architectures: tuple[Architecture, ...]
    seccomp: int  # the number of seccomp(2)


_MACHINES = {"x86_64": _Machine(("x86_64", "i386"), 317), "aarch64": _Machine(("aarch64",), 277)}
AUDIT_ARCH: Mapping[Architecture, int] = {"x86_64": 0xC000_003E, "i386": 0x4000_0003, "aarch64": 0xC000_00B7}

# Calls of x32 programs carry this bit. Numbers 512 to 547 are those that only x32 has; older kernels take them without
# the bit, too. Almost no kernel enables x32, so that programs see an ordinary one.
_X32_BIT, _X32_ONLY, _BEHIND_X32 = 0x4000_0000, 512, 548

_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_LOAD, _RETURN, _JUMP = 0x20, 0x06, 0x05  # BPF_LD|W|ABS, BPF_RET|K, BPF_JMP|JA
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY_OF = 0x15, 0x35, 0x45  # BPF_JMP with JEQ, JGE, JSET, and K
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
_MOST_INSTRUCTIONS = 4_096  # BPF_MAXINSNS

_PR_GET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 21, 38
_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
# Before version 5.16, filtered processes lose speculation of loads, which costs computations a quarter of their speed.
# It protects parts of one process from each other, which pricers do not need.
_SPEC_ALLOW = 4

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


class _Instruction(NamedTuple):
    """`struct sock_filter`: jumps are relative to the next instruction."""

    code: int
    if_true: int
    if_false: int
    value: int

    def packed(self) -> bytes:
        """As the kernel reads it."""
        return struct.pack("=HBBI", *self)


def available() -> bool:
    """Whether this machine's kernel filters system calls, and this filter knows its calls."""
    machine = _MACHINES.get(platform.machine())
    if machine is None or _libc.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) < 0:
        return False
    action = ctypes.c_uint32(_KILL_PROCESS)
    return bool(_libc.syscall(machine.seccomp, _GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0)


@cache
def filter_program(*, network: bool = True, machine: str | None = None) -> bytes:
    """The filter for this machine, or the named one, as BPF.

    Without `network`, only Unix sockets can be made: for kernels that refuse network namespaces. Programs of an
    architecture that the filter does not know end with SIGSYS.

    Raises:
        OSError: this machine's system calls are not known; ENOSYS.
    """
    return _compiled(refused_calls(network=network), platform.machine() if machine is None else machine)


def program_against_signals(*numbers: int, machine: str | None = None) -> bytes:
    """A further filter: refuses signals to these processes and threads; see `refused_calls.calls_against`.

    Raises:
        OSError: this machine's system calls are not known; ENOSYS.
    """
    return _compiled(calls_against(*numbers), platform.machine() if machine is None else machine)


def _compiled(calls: Mapping[str, tuple[Refusal, ...]], name: str) -> bytes:
    if name not in _MACHINES:
        raise OSError(errno.ENOSYS, f"the filter of system calls knows no machine {name}")
    program = [_Instruction(_LOAD, 0, 0, _ARCHITECTURE)]
    for architecture in _MACHINES[name].architectures:
        body = _body(architecture, calls)
        program += [
            _Instruction(_IF_EQUAL, 1, 0, AUDIT_ARCH[architecture]),
            _Instruction(_JUMP, 0, 0, len(body)),
            *body,
        ]
    program.append(_Instruction(_RETURN, 0, 0, _KILL_PROCESS))
    return b"".join(each.packed() for each in program)


def install(program: bytes) -> None:
    """Set a filter for the calling thread and all its later children; it cannot be removed.

    Also sets no_new_privs, without which the kernel refuses the filter.

    Raises:
        OSError: the kernel refused it.
    """
    length = len(program) // 8
    if not 0 < length <= _MOST_INSTRUCTIONS:
        raise OSError(errno.EINVAL, f"a filter of {length} instructions")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    packed = _Program(length, program)
    number = _MACHINES[platform.machine()].seccomp
    if _libc.syscall(number, _SET_MODE_FILTER, _SPEC_ALLOW, ctypes.byref(packed)) == 0:
        return
    if ctypes.get_errno() != errno.EINVAL:  # EINVAL: a kernel before 4.17, without the flag
        _check(-1, "seccomp(SECCOMP_SET_MODE_FILTER)")
    _check(_libc.syscall(number, _SET_MODE_FILTER, 0, ctypes.byref(packed)), "seccomp(SECCOMP_SET_MODE_FILTER)")


def _body(architecture: Architecture, calls: Mapping[str, tuple[Refusal, ...]]) -> list[_Instruction]:
    """Loads the number of the call and returns an answer."""
    instructions = [_Instruction(_LOAD, 0, 0, _NUMBER)]
    if architecture == "x86_64":
        absent = _refuse(errno.ENOSYS)
        instructions += [_Instruction(_IF_AT_LEAST, 0, 1, _X32_BIT), absent]
        instructions += [
            _Instruction(_IF_AT_LEAST, 0, 2, _X32_ONLY),
            _Instruction(_IF_AT_LEAST, 1, 0, _BEHIND_X32),
            absent,
        ]
    for name, refusals in calls.items():
        number = getattr(NUMBERS[name], architecture)
        if number is not None:
            case = _case(refusals)
            instructions += [_Instruction(_IF_EQUAL, 0, len(case), number), *case]
    return [*instructions, _Instruction(_RETURN, 0, 0, _ALLOW)]


def _case(refusals: Iterable[Refusal]) -> list[_Instruction]:
    """The answer to one call: that of the first refusal whose tests all hold, otherwise allowed."""
    instructions: list[_Instruction] = []
    for refusal in refusals:
        if not refusal.tests:
            return [*instructions, _refuse(refusal.error)]
        for index, test in enumerate(refusal.tests):
            behind = 2 * (len(refusal.tests) - index - 1) + 1  # the other tests of this refusal, and its answer
            instructions += _test(test, behind)
        instructions.append(_refuse(refusal.error))
    return [*instructions, _Instruction(_RETURN, 0, 0, _ALLOW)]


def _test(test: ArgumentTest, behind: int) -> list[_Instruction]:
    """Goes on if the test holds, and otherwise jumps over this many instructions."""
    load = _Instruction(_LOAD, 0, 0, _ARGUMENTS + 8 * test.argument + 4 * test.upper)
    if test.holds == "is not":
        return [load, _Instruction(_IF_EQUAL, behind, 0, test.value)]
    code = _IF_EQUAL if test.holds == "is" else _IF_ANY_OF
    return [load, _Instruction(code, 0, behind, test.value)]


def _refuse(error: int) -> _Instruction:
    return _Instruction(_RETURN, 0, 0, _ERRNO | error)


def _check(result: int, call: str) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{call}: {os.strerror(error)}")
