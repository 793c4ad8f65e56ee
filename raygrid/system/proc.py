"""Reads /proc; the only file of the package that parses it.

A function returns None, or an empty value, for a process that has ended or that this user may not read. Only small
modules of the standard library are imported, for clients and helper processes that must start fast. Code that runs
rarely and needs relatives of a process uses psutil. It is not faster where tables are read in a loop: a table of 156
processes takes 4.1 ms here, and 3.6 ms with psutil, which gives parents only.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

# Positions of fields in /proc/PID/stat, counted from the one behind the name; see proc_pid_stat(5).
_STATE, _PARENT, _GROUP, _SESSION, _THREADS, _STARTED, _RSS = 0, 1, 2, 3, 17, 19, 21
_CPU_TIMES = slice(11, 15)
_ENDED = (b"Z", b"X", b"x")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_CHILDREN = 4_096
BINARY_FORMATS = "/proc/sys/fs/binfmt_misc"

Reader = Callable[[str], str | None]
"""Gives the text of a file by its absolute path, or None if it cannot be read; tests pass fakes."""


class Life(NamedTuple):
    """A process by pid and start time (clock ticks since boot); no later process has the same pair."""

    pid: int
    started: int

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return start_time(self.pid) != self.started


def seconds_since_boot() -> float:
    """The clock by which the kernel notes when processes start."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Process(NamedTuple):
    """One line of the process table."""

    pid: int
    parent: int
    session: int
    rss_bytes: int
    is_zombie: bool
    group: int
    started: int  # in clock ticks since boot; see `Life`
    threads: int = 1

    @property
    def life(self) -> Life:
        """Its pid and start time."""
        return Life(self.pid, self.started)

    @property
    def age_s(self) -> float:
        """How long ago it started."""
        return seconds_since_boot() - self.started / _TICKS


class Mount(NamedTuple):
    """A line of mountinfo; see proc_pid_mountinfo(5)."""

    device: str  # MAJOR:MINOR
    root: str  # the directory of the file system that is mounted
    at: str
    kind: str  # of file system
    options: tuple[str, ...]  # of the file system; for cgroups of version 1, the controllers


class CpuAndMemory(NamedTuple):
    """What a running process has used so far.

    Attributes:
        user_s: CPU seconds in user mode, including children that it waited for.
        system_s: CPU seconds in the kernel, counted in the same way.
        rss_bytes: its resident memory now, without children.
        peak_rss_bytes: the largest resident memory so far.
    """

    user_s: float
    system_s: float
    rss_bytes: int
    peak_rss_bytes: int


def start_time(pid: int) -> int | None:
    """A process's start time in clock ticks since boot; None if it has ended or is a zombie."""
    try:
        fields = _stat(pid)
    except OSError:
        return None
    return None if fields[_STATE] in _ENDED else int(fields[_STARTED])


def life_of(pid: int) -> Life | None:
    """The process that has this pid now; None if there is none."""
    started = start_time(pid)
    return None if started is None else Life(pid, started)


def process_of(pid: int) -> Process | None:
    """One process of this machine (or container); None if no process has that pid."""
    try:
        fields = _stat(pid)
    except OSError:
        return None
    lost_its_first_thread = fields[_STATE] in _ENDED and int(fields[_THREADS]) > 1
    return Process(
        pid=pid,
        parent=int(fields[_PARENT]),
        session=int(fields[_SESSION]),
        rss_bytes=(_rss_of_other_threads(pid) if lost_its_first_thread else int(fields[_RSS])) * _PAGE,
        # If only the first thread has ended, the process still runs and must be killed.
        is_zombie=fields[_STATE] in _ENDED and not lost_its_first_thread,
        group=int(fields[_GROUP]),
        started=int(fields[_STARTED]),
        threads=int(fields[_THREADS]),
    )


def all_pids() -> list[int]:
    """The pids of all processes of this machine (or container)."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def process_table() -> Iterator[Process]:
    """All readable processes of this machine (or container)."""
    for pid in all_pids():
        if (process := process_of(pid)) is not None:
            yield process


def cpu_and_memory(pid: int) -> CpuAndMemory:
    """What a running process has used so far; CPU time has the resolution of the kernel's clock, usually 10 ms.

    Raises:
        OSError: it has ended.
    """
    fields = _stat(pid)
    user, system, of_children_user, of_children_system = map(int, fields[_CPU_TIMES])
    return CpuAndMemory(
        (user + of_children_user) / _TICKS,
        (system + of_children_system) / _TICKS,
        int(fields[_RSS]) * _PAGE,
        _number(_read(f"/proc/{pid}/status"), b"VmHWM:") * 1024,
    )


def voluntary_switches(pid: int) -> int:
    """How often the main thread of a process gave up the processor to wait; 0 if it has ended."""
    try:
        return _number(_read(f"/proc/{pid}/task/{pid}/status"), b"voluntary_ctxt_switches:")
    except OSError:
        return 0


def directories_of(pid: int) -> Iterator[str]:
    """Where /proc shows memory, environment and files of a process, for the first directory in which they are found.

    That is the process's own directory. Once its first thread has ended, while others run, these are empty there or
    belong to root; the directories of its threads have them.
    """
    yield f"/proc/{pid}"
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            if thread != str(pid):
                yield f"/proc/{pid}/task/{thread}"


def environment_of(pid: int) -> bytes | None:
    """The initial environment of a process; each entry ends with a zero byte."""
    try:
        return _read(f"/proc/{pid}/environ")
    except FileNotFoundError:  # it has ended
        return None
    except OSError:
        return _environment_of_other_threads(pid)


def command_line_of(pid: int) -> bytes:
    """The command line of a process, each word ended by a zero byte; a process can overwrite it with a title."""
    return _read_or_empty(f"/proc/{pid}/cmdline")


def title_of(pid: int) -> str:
    """The command line of a process as text."""
    return command_line_of(pid).replace(b"\0", b" ").decode(errors="replace").strip()


def name_of(pid: int) -> str:
    """The short name of a process: at most 15 bytes of its program's name, unless it changed the name."""
    return _read_or_empty(f"/proc/{pid}/comm").decode(errors="replace").rstrip("\n")


def executable_of(pid: int) -> str:
    """The path of a process's program."""
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    except OSError:
        return ""


def open_file_statuses(pid: int) -> Iterator[os.stat_result]:
    """The status of each file that a process has open, including deleted files."""
    for directory in directories_of(pid):
        with contextlib.suppress(OSError):
            names = os.listdir(f"{directory}/fd")
            for name in names:
                with contextlib.suppress(OSError):
                    yield os.stat(f"{directory}/fd/{name}")
            if names:
                return


def descriptor_path(descriptor: int) -> str:
    """A path that opens the file of a descriptor of this process again, even if it was renamed or deleted."""
    return f"/proc/self/fd/{descriptor}"


def below(pids: Iterable[int], table: Sequence[Process]) -> dict[int, frozenset[int]]:
    """All processes below each of these, without zombies, by a process table."""
    children: dict[int, list[Process]] = {}
    for process in table:
        children.setdefault(process.parent, []).append(process)
    found: dict[int, frozenset[int]] = {}
    for pid in pids:
        alive: set[int] = set()
        waiting = [pid]
        while waiting:
            new = [each for each in children.get(waiting.pop(), ()) if each.pid not in alive]
            alive.update(each.pid for each in new if not each.is_zombie)
            waiting += [each.pid for each in new]
        found[pid] = frozenset(alive)
    return found


def children_of(pid: int) -> Iterator[int]:
    """The children of a process, of all its threads."""
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            yield from map(int, _read(f"/proc/{pid}/task/{thread}/children").split())


class ChildrenOf:
    """Reads the children of one thread of this process repeatedly. The owner closes it.

    Children of a thread are those that it spawned and those created from them with `clone(CLONE_PARENT)`. Orphans that
    a subreaper inherits are children of its main thread, whose number is the pid.
    """

    def __init__(self, thread: int) -> None:
        try:
            self._file = os.open(f"/proc/self/task/{thread}/children", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1

    def now(self) -> set[int] | None:
        """Their pids; None if they cannot be read."""
        try:
            listed = os.pread(self._file, _CHILDREN, 0)
        except OSError:
            return None
        return set(map(int, listed.split())) if len(listed) < _CHILDREN else None

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class TotalTasks:
    """Reads repeatedly how many processes and threads the whole machine has, in a microsecond. The owner closes it."""

    def __init__(self) -> None:
        try:
            self._file = os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1

    def now(self) -> int | None:
        """Their number, those of other containers included; None if it cannot be read."""
        try:
            return int(os.pread(self._file, 256, 0).split()[3].partition(b"/")[2])
        except (OSError, ValueError, IndexError):
            return None

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def mount_namespace(pid: int) -> int | None:
    """The number of a process's mount namespace; None if the process has ended or may not be inspected."""
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino
    except OSError:
        return None


def own_oom_score() -> int:
    """What is added to this process's score for the kernel's out-of-memory killer, from -1000 to 1000."""
    return int(_read("/proc/self/oom_score_adj"))


def set_oom_score(pid: int, score: int) -> None:
    """Set the same for another process, unless it has ended or this user may not."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "wb", buffering=0) as file:
        file.write(b"%d" % score)


def boot_and_pid_namespace() -> list[str]:
    """Ids of the machine's boot and of this process's PID namespace; empty if they cannot be read."""
    try:
        return [_read("/proc/sys/kernel/random/boot_id").decode(), os.readlink("/proc/self/ns/pid")]
    except OSError:
        return []


def read_text(path: str) -> str | None:
    """Read a file of the real machine; the usual `Reader`."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None


def file_systems(read: Reader, of: str = "self") -> Iterator[Mount]:
    """The mounted file systems that this process sees; with `thread-self`, those that the calling thread sees."""
    for line in (read(f"/proc/{of}/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) >= 5 and len(kind) >= 3:
            yield Mount(fields[2], _unescaped(fields[3]), _unescaped(fields[4]), kind[0], tuple(kind[2].split(",")))


def own_cgroups(read: Reader) -> dict[str, str]:
    """The path of this process's cgroup for each controller of version 1; that of version 2 under an empty name."""
    paths = {}
    for line in (read("/proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths.update(dict.fromkeys(controllers.split(",") if number != "0" else [""], path))
    return paths


def own_cgroup_lines() -> bytes:
    """The lines that name this process's cgroups; equal for all processes of these cgroups.

    Raises:
        OSError: they cannot be read.
    """
    return _read("/proc/self/cgroup")


def binary_formats() -> Iterator[dict[str, str]]:
    """The fields of each enabled binary format for which the kernel starts an interpreter, such as wine or qemu.

    Source: Documentation/admin-guide/binfmt-misc.rst of Linux.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir(BINARY_FORMATS):
            text = read_text(f"{BINARY_FORMATS}/{name}") if name not in ("register", "status") else None
            fields = dict(line.partition(" ")[::2] for line in (text or "").splitlines())
            if "enabled" in fields:
                yield fields


def machine_memory(read: Reader) -> dict[str, int]:
    """The fields of /proc/meminfo, bytes; each name ends with a colon."""
    return {name: 1024 * number for name, number in numbers(read("/proc/meminfo")).items()}


def kernel_kills(read: Reader = read_text) -> int:
    """How many processes the kernel's out-of-memory killer has killed since boot."""
    return numbers(read("/proc/vmstat")).get("oom_kill", 0)


def numbers(text: str | None) -> dict[str, int]:
    """Read lines that begin with a name and a number; other lines are skipped."""
    found = {}
    for line in (text or "").splitlines():
        words = line.split()
        if len(words) >= 2 and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found


def _unescaped(text: str) -> str:
    """A path of mountinfo, where blanks and backslashes are written in octal."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def _environment_of_other_threads(pid: int) -> bytes | None:
    for directory in directories_of(pid):
        with contextlib.suppress(OSError):
            return _read(f"{directory}/environ")
    return None


def _rss_of_other_threads(pid: int) -> int:
    """The pages of a process whose first thread has ended; threads share their memory."""
    found = [0]
    for directory in directories_of(pid):
        with contextlib.suppress(OSError):
            found.append(int(_read(f"{directory}/stat").rpartition(b")")[2].split()[_RSS]))
    return max(found)


def _stat(pid: int) -> list[bytes]:
    # The name stands in parentheses and may contain any character; the other fields follow the last parenthesis.
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _read_or_empty(path: str) -> bytes:
    try:
        return _read(path)
    except OSError:
        return b""


def _number(lines: bytes, name: bytes) -> int:
    """The number after a name at the begin of a line; 0 if the name is missing."""
    _, found, behind = (b"\n" + lines).partition(b"\n" + name)
    return int(behind.split(None, 1)[0]) if found else 0
