"""Attacks on processes of the grid and of another job. Signals are signal 0, and what could be set is set as it was."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.hostile.attacks.attack import NotTriedError, RefusedError, attack, attack_on_processes
from tests.hostile.attacks.syscalls import X32, below_4_gb, call, call_i386, checked
from tests.hostile.targets import Targets

SEIZE, DETACH = 0x4206, 17
_PROCESS, _LOWEST_BEST_EFFORT = 1, 2 << 13 | 7
_LIBC = ctypes.CDLL(None, use_errno=True)


@attack_on_processes("read-environ")
def read_environ(targets: Targets, pid: int) -> str:
    """Read its environment, in which the agent has Ray's token."""
    return f"read {_some_bytes(f'/proc/{pid}/environ')} bytes"


@attack_on_processes("read-command-line")
def read_command_line(targets: Targets, pid: int) -> str:
    """Read its command line."""
    return f"read {_some_bytes(f'/proc/{pid}/cmdline')} bytes"


@attack_on_processes("read-maps")
def read_maps(targets: Targets, pid: int) -> str:
    """Read the map of its memory."""
    return f"read {_some_bytes(f'/proc/{pid}/maps')} bytes"


def _some_bytes(path: str) -> int:
    if not (content := Path(path).read_bytes()):
        raise RefusedError(f"{path} is empty here")
    return len(content)


@attack_on_processes("open-memory")
def open_memory(targets: Targets, pid: int) -> str:
    """Open its memory."""
    os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))
    return "opened its memory for writing"


@attack_on_processes("list-descriptors")
def list_descriptors(targets: Targets, pid: int) -> str:
    """See what its descriptors are."""
    names = os.listdir(f"/proc/{pid}/fd")
    return f"{len(names)} descriptors, such as {os.readlink(f'/proc/{pid}/fd/{names[0]}')}"


@attack_on_processes("enter-working-directory")
def enter_working_directory(targets: Targets, pid: int) -> str:
    """Enter its working directory."""
    return f"{len(os.listdir(f'/proc/{pid}/cwd/'))} names in {os.readlink(f'/proc/{pid}/cwd')}"


@attack_on_processes("enter-root")
def enter_root(targets: Targets, pid: int) -> str:
    """Enter its root directory, which leaves the own mount namespace."""
    return f"{len(os.listdir(f'/proc/{pid}/root/'))} names"


@attack_on_processes("signal")
def send_signal(targets: Targets, pid: int) -> str:
    """Signal it."""
    os.kill(pid, 0)
    return f"could signal {pid}"


@attack_on_processes("signal-by-pidfd")
def signal_by_pidfd(targets: Targets, pid: int) -> str:
    """Signal it through a descriptor."""
    call("pidfd_send_signal", os.pidfd_open(pid), 0, None, 0)
    return f"could signal {pid}"


@attack_on_processes("signal-thread")
def signal_thread(targets: Targets, pid: int) -> str:
    """Signal its main thread."""
    checked(_LIBC.syscall(234, pid, pid, 0))  # tgkill
    return f"could signal thread {pid}"


@attack_on_processes("signal-any-thread")
def signal_any_thread(targets: Targets, pid: int) -> str:
    """Signal any of its threads, by every call that takes the number of one; that can end the process."""
    reached = []
    for thread in map(int, os.listdir(f"/proc/{pid}/task")):
        tries: dict[str, Callable[[], object]] = {
            "kill": partial(os.kill, thread, 0),
            "tkill": partial(call, "tkill", thread, 0),
            "tgkill": partial(call, "tgkill", pid, thread, 0),
            "kill of i386": partial(call_i386, "kill", thread, 0),
            "pidfd_open": partial(_open_thread, thread),
        }
        for name, attempt in tries.items():
            with contextlib.suppress(OSError):
                attempt()
                reached.append(f"{name} of {thread}")
    if reached:
        return f"could reach {', '.join(reached[:8])}"
    raise PermissionError(1, "no thread could be signalled")


def _open_thread(thread: int) -> None:
    of_a_thread = 0x80  # PIDFD_THREAD
    call("pidfd_send_signal", call("pidfd_open", thread, of_a_thread), 0, None, 0)


@attack_on_processes("signal-group")
def signal_group(targets: Targets, pid: int) -> str:
    """Signal its process group."""
    group = os.getpgid(pid)
    if group in (0, os.getpgid(0)):
        raise RefusedError("its group is the own one, or unknown here")
    os.killpg(group, 0)
    return f"could signal group {group}"


@attack("signal-others")
def signal_others(targets: Targets) -> str:
    """Signal any process that is not below the process that the grid has started for this job."""
    own = {os.getpid(), os.getppid()}
    reached = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            if int(name) not in own:
                os.kill(int(name), 0)
                reached.append(int(name))
    if reached:
        return f"could signal {len(reached)}: {reached[:20]}"
    raise PermissionError(1, "no other process could be signalled")


@attack_on_processes("trace")
def trace(targets: Targets, pid: int) -> str:
    """Trace it."""
    call("ptrace", SEIZE, pid, 0, 0)
    with contextlib.suppress(OSError):
        call("ptrace", DETACH, pid, 0, 0)
    return f"traced {pid}"


@attack_on_processes("take-descriptor")
def take_descriptor(targets: Targets, pid: int) -> str:
    """Take a descriptor out of it."""
    return f"took descriptor 0 as {call('pidfd_getfd', os.pidfd_open(pid), 0, 0)}"


@attack_on_processes("read-memory")
def read_memory(targets: Targets, pid: int) -> str:
    """Read its memory; an address that is not there shows that the call was allowed."""
    local, remote = ctypes.create_string_buffer(8), (ctypes.c_ulong * 2)(0, 8)
    here = (ctypes.c_ulong * 2)(ctypes.addressof(local), 8)
    with contextlib.suppress(_BadAddressError):
        _unless_bad_address("process_vm_readv", pid, here, 1, remote, 1, 0)
    return "could read its memory"


@attack_on_processes("write-memory")
def write_memory(targets: Targets, pid: int) -> str:
    """Write its memory, at an address that is not there."""
    local, remote = ctypes.create_string_buffer(8), (ctypes.c_ulong * 2)(0, 8)
    here = (ctypes.c_ulong * 2)(ctypes.addressof(local), 8)
    with contextlib.suppress(_BadAddressError):
        _unless_bad_address("process_vm_writev", pid, here, 1, remote, 1, 0)
    return "could write its memory"


class _BadAddressError(Exception):
    """The address is not there."""


def _unless_bad_address(name: str, *arguments: object) -> None:
    try:
        call(name, *arguments)
    except OSError as error:
        if error.errno == 14:
            raise _BadAddressError from None
        raise


@attack_on_processes("set-limits")
def set_limits(targets: Targets, pid: int) -> str:
    """Set a limit of it, as which it could be given a processor time of 0."""
    resource.prlimit(pid, resource.RLIMIT_CORE, resource.prlimit(pid, resource.RLIMIT_CORE))
    return "could set its limits"


@attack_on_processes("set-processors")
def set_processors(targets: Targets, pid: int) -> str:
    """Bind it to one processor."""
    if len(before := os.sched_getaffinity(pid)) == 1:
        raise NotTriedError("it has one processor already")
    os.sched_setaffinity(pid, {min(before)})
    after = os.sched_getaffinity(pid)
    os.sched_setaffinity(pid, before)
    _require_change(before, after)
    return "could bind it to one processor"


@attack_on_processes("set-priority")
def set_priority(targets: Targets, pid: int) -> str:
    """Give it a lower priority, by one step."""
    before = _priority(pid)
    os.setpriority(os.PRIO_PROCESS, pid, before + 1)
    _require_change(before, os.getpriority(os.PRIO_PROCESS, pid))
    return "could lower its priority"


@attack("set-priorities")
def set_priorities(targets: Targets) -> str:
    """Lower the priority of all processes of the user to that of the lowest, by one call."""
    pid = next(iter(targets.processes.values()))
    before = _priority(pid)
    os.setpriority(os.PRIO_USER, os.getuid(), before + 1)
    _require_change(before, os.getpriority(os.PRIO_PROCESS, pid))
    return "could lower all priorities"


@attack_on_processes("set-scheduling")
def set_scheduling(targets: Targets, pid: int) -> str:
    """Give it a scheduling policy for long computations."""
    before = os.sched_getscheduler(pid)
    os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
    after = os.sched_getscheduler(pid)
    os.sched_setscheduler(pid, before, os.sched_param(0))
    _require_change(before, after)
    return "could make it wait for others"


@attack_on_processes("set-io-priority")
def set_io_priority(targets: Targets, pid: int) -> str:
    """Give it the lowest priority for disks."""
    before = call("ioprio_get", _PROCESS, pid)
    call("ioprio_set", _PROCESS, pid, _LOWEST_BEST_EFFORT)
    after = call("ioprio_get", _PROCESS, pid)
    call("ioprio_set", _PROCESS, pid, before)
    _require_change(before, after)
    return "could make its disk accesses wait"


@attack_on_processes("write-process-files")
def write_process_files(targets: Targets, pid: int) -> str:
    """Open what changes its priority, its score for the kernel's out-of-memory killer, and its dumps."""
    opened = []
    for name in ("oom_score_adj", "oom_adj", "autogroup", "coredump_filter", "clear_refs", "sched"):
        with contextlib.suppress(OSError):
            os.close(os.open(f"/proc/{pid}/{name}", os.O_WRONLY))
            opened.append(name)
    if opened:
        return f"could write {', '.join(opened)}"
    raise PermissionError(1, "none of its files in /proc could be opened for writing")


def _priority(pid: int) -> int:
    if (priority := os.getpriority(os.PRIO_PROCESS, pid)) == 19:
        raise NotTriedError("it has the lowest priority already")
    return priority


def _require_change(before: object, after: object) -> None:
    if before == after:
        raise RefusedError("the call was ignored")


@attack_on_processes("move-memory")
def move_memory(targets: Targets, pid: int) -> str:
    """Move its memory between nodes of the machine: ask where none of its pages are."""
    call("move_pages", pid, 0, None, None, None, 0)
    return "could move its memory"


@attack_on_processes("compare-descriptors")
def compare_descriptors(targets: Targets, pid: int) -> str:
    """Learn which descriptors are the same file."""
    call("kcmp", os.getpid(), pid, 0, 0, 0)
    return "compared a descriptor"


@attack_on_processes("watch-performance")
def watch_performance(targets: Targets, pid: int) -> str:
    """Count events in it."""
    attributes = (ctypes.c_uint32 * 32)(1, 128, 1)  # software events, size, page faults
    attributes[10] = 0b1100000  # exclude kernel and hypervisor
    return f"counts its page faults as {call('perf_event_open', attributes, pid, -1, -1, 0)}"


@attack_on_processes("enter-namespaces")
def enter_namespaces(targets: Targets, pid: int) -> str:
    """Enter each of its namespaces that differs from the own, by its file and by its process."""
    for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
        with contextlib.suppress(OSError):
            place = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
            if os.stat(f"/proc/self/ns/{kind}").st_ino != os.fstat(place).st_ino:
                call("setns", place, 0)
                return f"entered its {kind} namespace"
    process = os.pidfd_open(pid)
    call("setns", process, 0x00020000)  # CLONE_NEWNS
    return "entered its mount namespace"


@attack_on_processes("signal-by-int80")
def signal_by_int80(targets: Targets, pid: int) -> str:
    """Signal it by the 32-bit table."""
    call_i386("kill", pid, 0)
    return f"could signal {pid}"


@attack_on_processes("trace-by-int80")
def trace_by_int80(targets: Targets, pid: int) -> str:
    """Trace it by the 32-bit table."""
    call_i386("ptrace", SEIZE, pid, 0, 0)
    return f"traced {pid}"


@attack_on_processes("take-descriptor-by-int80")
def take_descriptor_by_int80(targets: Targets, pid: int) -> str:
    """Take a descriptor out of it by the 32-bit table."""
    return f"took descriptor 0 as {call_i386('pidfd_getfd', call_i386('pidfd_open', pid, 0), 0, 0)}"


@attack_on_processes("set-limits-by-int80")
def set_limits_by_int80(targets: Targets, pid: int) -> str:
    """Set a limit of it by the 32-bit table, as it was."""
    limits = below_4_gb(struct.pack("QQ", *resource.prlimit(pid, resource.RLIMIT_CORE)))
    call_i386("prlimit64", pid, resource.RLIMIT_CORE, limits, 0)
    return "could set its limits"


@attack_on_processes("enter-namespaces-by-int80")
def enter_namespaces_by_int80(targets: Targets, pid: int) -> str:
    """Enter its mount namespace by the 32-bit table."""
    call_i386("setns", os.pidfd_open(pid), 0x00020000)
    return "entered its mount namespace"


@attack_on_processes("signal-by-x32")
def signal_by_x32(targets: Targets, pid: int) -> str:
    """Signal it by the x32 table."""
    call("kill", pid, 0, table=X32)
    return f"could signal {pid}"
