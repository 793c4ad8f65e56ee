"""The filter of system calls of a sandbox: what it answers on each architecture, and in real processes."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import struct
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from raygrid.system import refused_calls, seccomp
from raygrid.system.seccomp import AUDIT_ARCH, Architecture

MACHINE_OF: dict[Architecture, str] = {"x86_64": "x86_64", "i386": "x86_64", "aarch64": "aarch64"}
ALLOWED, KILLED, ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
NEW_FLAGS = {0x20000: "NEWNS", 0x2000000: "NEWCGROUP", 0x4000000: "NEWUTS", 0x8000000: "NEWIPC"}
NEW_FLAGS |= {0x10000000: "NEWUSER", 0x20000000: "NEWPID", 0x40000000: "NEWNET"}
HEADERS = {"x86_64": "unistd_64.h", "i386": "unistd_32.h"}
filters = pytest.mark.skipif(not seccomp.available(), reason="this kernel does not filter system calls")


def answer(program: bytes, audit_arch: int, number: int, arguments: Sequence[int] = ()) -> int:
    """What the kernel would return for a call: an interpreter of the instructions that filters use."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number & 0xFFFF_FFFF, audit_arch, 0, *padded)
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator = position = 0
    while True:
        operation, if_true, if_false, value = code[position]
        position += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x06:
                return int(value)
            case 0x05:
                position += value
            case 0x15:
                position += if_true if accumulator == value else if_false
            case 0x35:
                position += if_true if accumulator >= value else if_false
            case 0x45:
                position += if_true if accumulator & value else if_false
            case _:
                pytest.fail(f"instruction {operation:#x}")


def answer_of(architecture: Architecture, name: str, *arguments: int, network: bool = True) -> int:
    number = getattr(refused_calls.NUMBERS[name], architecture)
    program = seccomp.filter_program(network=network, machine=MACHINE_OF[architecture])
    return answer(program, AUDIT_ARCH[architecture], number, arguments)


def in_child(body: str, *, network: bool = True) -> dict[str, str]:
    """Runs Python code in a process with the filter; what it prints, as `name value` lines."""
    source = f"""
        import ctypes, errno, os, socket, sys, threading
        from raygrid.system import refused_calls, seccomp
        libc = ctypes.CDLL(None, use_errno=True)
        def call(name, *arguments):
            ctypes.set_errno(0)
            number = getattr(refused_calls.NUMBERS[name], "{platform.machine()}")
            result = libc.syscall(number, *map(ctypes.c_long, arguments))
            print(name, errno.errorcode[ctypes.get_errno()] if result < 0 else "ok")
        seccomp.install(seccomp.filter_program(network={network}))
    """
    code = textwrap.dedent(source) + textwrap.dedent(body)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return dict(line.split(maxsplit=1) for line in ended.stdout.splitlines())


@pytest.mark.parametrize("architecture", ["x86_64", "i386", "aarch64"])
@pytest.mark.parametrize("network", [True, False])
def test_every_entry_of_the_table_is_answered_as_it_states(architecture: Architecture, network: bool) -> None:
    """Each refused call gets its error exactly when a refusal's tests hold, and no other call gets one."""
    calls = refused_calls.refused_calls(network=network)
    for name, refusals in calls.items():
        if getattr(refused_calls.NUMBERS[name], architecture) is None:
            continue
        for refusal in refusals:
            arguments = [0] * 6
            for test in refusal.tests:
                value = test.value if test.holds != "is not" else test.value + 1
                arguments[test.argument] |= value << (32 if test.upper else 0)
            assert answer_of(architecture, name, *arguments, network=network) == ERRNO | refusal.error, (name, refusal)
    program = seccomp.filter_program(network=network, machine=MACHINE_OF[architecture])
    listed = {getattr(numbers, architecture) for name, numbers in refused_calls.NUMBERS.items() if name in calls}
    others = set(range(500)) - listed
    assert {answer(program, AUDIT_ARCH[architecture], number, [2**64 - 1] * 6) for number in others} == {ALLOWED}


@pytest.mark.parametrize("architecture", ["x86_64", "i386", "aarch64"])
def test_new_namespaces_are_refused_and_new_threads_are_not(architecture: Architecture) -> None:
    """`clone` and `unshare` are refused for each CLONE_NEW flag, alone or with others, and allowed without."""
    threads = 0x3D0F00  # what pthread_create passes
    for flag, name in NEW_FLAGS.items():
        for call in ("clone", "unshare"):
            assert answer_of(architecture, call, flag) == ERRNO | errno.EPERM, (call, name)
            assert answer_of(architecture, call, flag | threads) == ERRNO | errno.EPERM, (call, name)
    for call in ("clone", "unshare"):
        assert answer_of(architecture, call, threads) == ALLOWED
    assert answer_of(architecture, "unshare", 0x80) == ERRNO | errno.EPERM  # CLONE_NEWTIME
    assert answer_of(architecture, "clone", 17) == ALLOWED  # fork: SIGCHLD
    assert answer_of(architecture, "clone3", 0, 0) == ERRNO | errno.ENOSYS


@pytest.mark.parametrize("architecture", ["x86_64", "i386", "aarch64"])
def test_other_processes_keep_their_limits_and_priorities(architecture: Architecture) -> None:
    """Own limits and priorities can be set and those of others read; setting those of others does nothing."""
    structure, high = 0x7FFF_1000, 0x7F00_0000_0000
    assert answer_of(architecture, "prlimit64", 0, 0, structure) == ALLOWED
    assert answer_of(architecture, "prlimit64", 4711, 0, 0, structure) == ALLOWED
    assert answer_of(architecture, "prlimit64", 4711, 0, structure) == ERRNO | errno.EPERM
    if architecture != "i386":  # whose addresses have 32 bits
        assert answer_of(architecture, "prlimit64", 4711, 0, high) == ERRNO | errno.EPERM
    for call, process, group, user in (("setpriority", 0, 1, 2), ("ioprio_set", 1, 2, 3)):
        assert answer_of(architecture, call, process, 0) == ALLOWED
        assert answer_of(architecture, call, group, 0) == ALLOWED
        assert {answer_of(architecture, call, which, 4711) for which in (process, group, user)} == {ERRNO}
        assert answer_of(architecture, call, user, 0) == ERRNO
    for call in ("sched_setscheduler", "sched_setparam", "sched_setattr"):
        assert answer_of(architecture, call, 0) == ALLOWED
        assert answer_of(architecture, call, 4711) == ERRNO


@pytest.mark.parametrize("architecture", ["x86_64", "i386", "aarch64"])
def test_no_call_signals_the_given_threads_and_each_still_signals_others(architecture: Architecture) -> None:
    """Whatever the upper half of an argument is, which the kernel ignores."""
    program = seccomp.program_against_signals(4711, 4712, machine=MACHINE_OF[architecture])

    def given(name: str, *arguments: int) -> int:
        return answer(program, AUDIT_ARCH[architecture], getattr(refused_calls.NUMBERS[name], architecture), arguments)

    for number, expected in ((4711, ERRNO | errno.EPERM), (4712, ERRNO | errno.EPERM), (4713, ALLOWED), (0, ALLOWED)):
        for call in ("kill", "tkill", "rt_sigqueueinfo", "pidfd_open"):
            assert given(call, number, 9) == expected, call
        for call in ("tgkill", "rt_tgsigqueueinfo"):
            assert given(call, 4000, number, 9) == expected, call
        assert given("fcntl", 3, 8, number) == expected
        assert given("fcntl", 3, 4, number) == ALLOWED
    if architecture != "i386":
        assert given("kill", 0xFFFF_FFFF_0000_0000 | 4711, 9) == ERRNO | errno.EPERM
    assert answer_of(architecture, "fcntl", 3, 15) == ERRNO | errno.EPERM
    assert answer_of(architecture, "pidfd_send_signal") == ERRNO | errno.ENOSYS


@pytest.mark.parametrize("architecture", ["x86_64", "i386", "aarch64"])
def test_terminals_cannot_be_typed_into(architecture: Architecture) -> None:
    """Two commands of `ioctl` are refused; the kernel ignores the upper half of a command, and so does the filter."""
    for command in (0x5412, 0x541C, 0x1_0000_5412):
        if architecture != "i386" or command < 2**32:
            assert answer_of(architecture, "ioctl", 0, command) == ERRNO | errno.EPERM
    assert answer_of(architecture, "ioctl", 0, 0x5413) == ALLOWED  # TIOCGWINSZ


@pytest.mark.parametrize("architecture", ["x86_64", "i386", "aarch64"])
def test_without_network_only_unix_sockets_can_be_made(architecture: Architecture) -> None:
    """Other families are refused with EACCES; i386's `socketcall` hides the family, so that it makes none at all."""
    assert answer_of(architecture, "socket", 1, network=False) == ALLOWED
    for family in (0, 2, 10, 16, 17, 40):
        assert answer_of(architecture, "socket", family, network=False) == ERRNO | errno.EACCES
        assert answer_of(architecture, "socket", family, network=True) == ALLOWED
    if architecture == "i386":
        assert answer_of(architecture, "socketcall", 1, network=False) == ERRNO | errno.EACCES
        assert answer_of(architecture, "socketcall", 3, network=False) == ALLOWED  # connect


def test_the_x32_calls_do_not_exist() -> None:
    """Every number of x32, with its bit or of its own range, is answered as by a kernel without x32."""
    program = seccomp.filter_program(machine="x86_64")
    x32 = [0x4000_0000 | number for number in (0, 39, 101, 521, 539)] + [512, 521, 539, 547, 0xFFFF_FFFF]
    assert {answer(program, AUDIT_ARCH["x86_64"], number) for number in x32} == {ERRNO | errno.ENOSYS}
    assert {answer(program, AUDIT_ARCH["x86_64"], number) for number in (511, 548)} == {ALLOWED}
    assert answer(program, AUDIT_ARCH["i386"], 0x4000_0000) == ALLOWED


@pytest.mark.parametrize(("machine", "foreign"), [("x86_64", 0xC000_00B7), ("aarch64", 0x4000_0028)])
def test_programs_of_an_unknown_architecture_are_ended(machine: str, foreign: int) -> None:
    """Their numbers mean other calls: 32-bit ARM on aarch64."""
    assert answer(seccomp.filter_program(machine=machine), foreign, 0) == KILLED


def test_an_unknown_machine_has_no_filter() -> None:
    """There is no table for it; the caller learns it as an error of the system."""
    with pytest.raises(OSError, match="no machine riscv64") as error:
        seccomp.filter_program(machine="riscv64")
    assert error.value.errno == errno.ENOSYS


@pytest.mark.parametrize("architecture", ["x86_64", "i386"])
def test_the_numbers_are_those_of_the_kernel(architecture: Architecture) -> None:
    """The table agrees with the kernel's headers, as far as they know a call."""
    header = Path("/usr/include/x86_64-linux-gnu/asm", HEADERS[architecture])
    if not header.exists():
        pytest.skip(f"there is no {header}")
    found = re.findall(r"#define __NR_(\w+) (\d+)", header.read_text())
    kernel = {name: int(number) for name, number in found}
    ours = {name: getattr(numbers, architecture) for name, numbers in refused_calls.NUMBERS.items()}
    assert {name: kernel.get(name) for name in ours if name in kernel} == {n: v for n, v in ours.items() if n in kernel}
    missing = {name for name, number in ours.items() if number is not None and name not in kernel}
    assert missing <= {"open_tree_attr"}  # of Linux 6.15


@filters
def test_a_real_process_is_refused_what_the_table_lists() -> None:
    """Every call that is refused always fails with its error in a process with the filter."""
    calls = refused_calls.refused_calls(network=True)
    always = {
        name: refusals[0].error
        for name, refusals in calls.items()
        if not refusals[0].tests and getattr(refused_calls.NUMBERS[name], platform.machine()) is not None
    }
    assert len(always) > 40
    found = in_child(f"for name in {sorted(always)}: call(name, -1, -1, -1, -1, -1)")
    assert found == {name: errno.errorcode[error] for name, error in always.items()}


@filters
def test_a_real_process_is_refused_by_arguments() -> None:
    """Namespaces, terminals and other processes' limits are refused; threads, forks and own limits work."""
    found = in_child("""
        call("clone", 0x10000000 | 17, 0, 0, 0, 0)
        call("unshare", 0x10000000)
        call("ioctl", 0, 0x5412, 0)
        call("prlimit64", os.getppid(), 0, 1, 0)
        call("setpriority", 7, os.getppid(), 19)  # which is no scope: an error, unless ignored
        thread = threading.Thread(target=print, args=("thread", "ran"))
        thread.start(); thread.join()
        sys.stdout.flush()
        if os.fork() == 0:
            os.nice(1); print("fork", "ran", flush=True); os._exit(0)
        os.wait()
        print("spawn", os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1]))
        socket.socket(socket.AF_INET).close(); print("socket", "made")
    """)
    refused = dict.fromkeys(("clone", "unshare", "ioctl", "prlimit64"), "EPERM")
    worked = {"setpriority": "ok", "thread": "ran", "fork": "ran", "spawn": "0", "socket": "made"}
    assert found == refused | worked


@filters
def test_a_real_process_without_network_makes_unix_sockets_only() -> None:
    """The error of the others is EACCES, as under Landlock."""
    found = in_child(
        """
        socket.socketpair()[0].close(); socket.socket(socket.AF_UNIX).close()
        call("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0)
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
            call("socket", family, socket.SOCK_STREAM, 0); print(family.name, "tried")
        """,
        network=False,
    )
    assert found["socket"] == "EACCES"
    assert {"AF_INET", "AF_INET6", "AF_NETLINK"} <= found.keys()


@filters
@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 runs i386 calls")
def test_i386_calls_of_a_64_bit_process_are_refused() -> None:
    """`int 0x80` reaches i386's table from any process, and the filter covers it: by i386's numbers."""
    found = in_child("""
        import mmap
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        # push rbx; mov eax, edi; mov ebx, esi; mov ecx, edx; int 0x80; pop rbx; ret
        page.write(bytes.fromhex("53 89f8 89f3 89d1 cd80 5b c3"))
        int80 = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int] * 3)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        print("getpid", int80(20, 0, 0) == os.getpid())
        for name in ("ptrace", "mount", "umount", "setns", "clone3"):
            print(name, errno.errorcode[-int80(refused_calls.NUMBERS[name].i386, 0, 0)])
        print("unshare", errno.errorcode[-int80(310, 0x10000000, 0)], int80(310, 0x200, 0))
    """)
    if found["getpid"] == "False":
        pytest.skip("this kernel has no i386 calls")
    eperm = dict.fromkeys(("ptrace", "mount", "umount", "setns"), "EPERM")
    assert found == {"getpid": "True", **eperm, "clone3": "ENOSYS", "unshare": "EPERM 0"}


@filters
def test_only_the_calling_thread_is_filtered() -> None:
    """The agent's other threads keep their calls; the thread's children inherit the filter."""
    read, write = os.pipe()
    if os.fork() == 0:  # a filter stays until its thread ends
        import threading

        libc = ctypes.CDLL(None, use_errno=True)
        seen = []

        def filtered() -> None:
            seccomp.install(seccomp.filter_program())
            seen.append(libc.unshare(0x80))

        thread = threading.Thread(target=filtered)
        thread.start()
        thread.join()
        seen.append(libc.unshare(0x200))
        os.write(write, repr(seen).encode())
        os._exit(0)
    os.close(write)
    os.wait()
    assert os.read(read, 100) == b"[-1, 0]"
    os.close(read)


def test_a_filter_without_instructions_is_an_error() -> None:
    """The kernel is not asked."""
    with pytest.raises(OSError, match="0 instructions"):
        seccomp.install(b"")
