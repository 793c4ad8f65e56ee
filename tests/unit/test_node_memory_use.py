"""The memory of an attempt: files in memory, shared pages, a private /dev/shm; and when it is measured."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from raygrid.models import AttemptId
from raygrid.node.limits import memory_use
from raygrid.node.limits.memory_use import LOOK_S, MemoryUse
from raygrid.node.limits.running import Running
from raygrid.system.proc import Process, process_of
from raygrid.system.process_memory import (
    MemoryParts,
    has_memory,
    open_files_in_memory,
    proportional_parts,
    resident_parts,
    tmpfs_devices,
)

MB = 1024**2
ME = os.getpid()


def in_memory(since_ns: int = 0, tmpfs: frozenset[int] | None = None) -> int:
    return open_files_in_memory([ME], tmpfs_devices() if tmpfs is None else tmpfs, since_ns)


@contextmanager
def in_shared_memory() -> Iterator[int]:
    """An open file in /dev/shm without a name."""
    if not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev not in tmpfs_devices():
        pytest.skip("/dev/shm is not in memory, or may not be written")
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        yield file.fileno()


def test_a_memory_file_counts_once() -> None:
    """All that was written into it, however many descriptors name it, without holes."""
    before = in_memory(tmpfs=frozenset())
    file = os.memfd_create("test")
    other = os.dup(file)
    try:
        os.write(file, bytes(8 * MB))
        os.ftruncate(file, 1024**4)
        assert in_memory(tmpfs=frozenset()) - before == 8 * MB
    finally:
        os.close(file)
        os.close(other)
    assert in_memory(tmpfs=frozenset()) == before


def test_a_deleted_file_in_shared_memory_counts() -> None:
    """It has no name, but takes memory while it is open; without /dev/shm it would not be recognised."""
    since_ns = time.time_ns() - 10**9
    with in_shared_memory() as file:
        before = in_memory(since_ns)
        os.write(file, bytes(8 * MB))
        assert in_memory(since_ns) - before == 8 * MB
        assert in_memory(since_ns, frozenset()) <= in_memory(since_ns) - 8 * MB


def test_older_data_in_shared_memory_does_not_count() -> None:
    """Another program may provide it to all jobs."""
    with in_shared_memory() as file:
        os.write(file, bytes(8 * MB))
        later_ns = os.fstat(file).st_ctime_ns + 1
        without = in_memory(later_ns)
        assert in_memory(later_ns - 1) - without >= 8 * MB


def test_pages_that_processes_share_count_once() -> None:
    """After a fork both have the same pages resident; their proportional sizes together have them once."""
    kept = b"x" * (64 * MB)
    ready, released = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(released[1])
        os.write(ready[1], b"x")
        os.read(released[0], 1)
        os._exit(0)
    try:
        os.close(released[0])
        os.read(ready[0], 1)
        alone = proportional_parts(ME)
        if alone is None or (its := proportional_parts(child)) is None:
            pytest.skip("this kernel does not tell the proportional sizes of a process")
        resident = process_of(child)
        assert resident is not None
        assert resident_parts(child, resident.rss_bytes).own == resident.rss_bytes > len(kept)
        assert its.own < resident.rss_bytes - 30 * MB
        assert alone.own + its.own > len(kept)
    finally:
        for each in (*ready, released[1]):
            os.close(each)
        os.waitpid(child, 0)


def test_mapped_shared_memory_is_told_apart() -> None:
    """It is part of the resident size, and may be the same as an open file in memory."""
    before = resident_parts(ME, 0).shared
    with mmap.mmap(-1, 16 * MB) as mapped:  # anonymous and shared
        mapped.write(b"x" * (16 * MB))
        parts = resident_parts(ME, 1024 * MB)
        assert parts.shared - before == 16 * MB
        assert parts.own + parts.shared >= 1024 * MB
    assert resident_parts(1 << 30, 5) == MemoryParts(5, 0), "of a process that has ended"


PRIVATE = """
import os, sys
from raygrid.models import AttemptId
from raygrid.node.limits.memory_use import private_shared_memory
from raygrid.node.limits.running import Running
place = sys.argv[1]
attempt = Running(AttemptId("job", 1), 0.0, 1.0, 1, 1, ())
attempt.shared_memory = os.open(place, os.O_PATH)
sizes = [private_shared_memory(attempt)]
with open(f"{place}/named", "wb") as named, open(f"{place}/deleted", "wb") as deleted:
    named.write(bytes(3 << 20))
    deleted.write(bytes(5 << 20))
    deleted.flush()
    os.unlink(f"{place}/deleted")
    sizes.append(private_shared_memory(attempt))
print(sizes)
"""


def test_all_files_of_a_private_shared_memory_count(tmp_path: Path) -> None:
    """Named and deleted ones, measured through a descriptor of its directory."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    mount = 'mount -t tmpfs -o size=64m tmpfs "$1" && exec "$2" -c "$3" "$1"'
    command = [*unshare, "sh", "-c", mount, "sh", str(tmp_path), sys.executable, PRIVATE]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0 and ("unshare" in ran.stderr or "mount" in ran.stderr):
        pytest.skip(f"no file system can be mounted here: {ran.stderr.strip()}")
    assert ran.stdout.strip() == f"[0, {8 * MB}]", ran.stderr


def test_an_attempt_without_a_private_shared_memory_has_none() -> None:
    """Nor has one whose descriptor was closed meanwhile."""
    attempt = Running(AttemptId("job", 1), 0.0, 1.0, 1, 1, ())
    assert memory_use.private_shared_memory(attempt) == 0
    attempt.shared_memory = 1 << 20
    assert memory_use.private_shared_memory(attempt) == 0


class Attempt:
    """An attempt with a limit of 100 MB, of made-up processes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running = Running(AttemptId("job", 1), 0.0, 1.0, 100 * MB, 1, ())
        self.use = MemoryUse(self.running)
        self.files = self.machine = self.measured = 0
        self.shared = dict[int, int]()
        self.ended = set[int]()
        self.exact: Callable[[int], MemoryParts | None] = lambda pid: None
        monkeypatch.setattr(memory_use, "open_files_in_memory", self._open_files)
        monkeypatch.setattr(memory_use, "resident_parts", self._resident)
        monkeypatch.setattr(memory_use, "proportional_parts", self._proportional)
        monkeypatch.setattr(memory_use, "has_memory", lambda pid: pid not in self.ended)
        self.now = 1_000.0
        clock = SimpleNamespace(monotonic=lambda: self.now, time_ns=lambda: int(self.now * 1e9))
        monkeypatch.setattr(memory_use, "time", clock)

    def _open_files(self, pids: Iterator[int], tmpfs: object, since_ns: int) -> int:
        self.measured += len(list(pids)) > 0
        return self.files

    def _resident(self, pid: int, resident: int) -> MemoryParts:
        return MemoryParts(resident - self.shared.get(pid, 0), self.shared.get(pid, 0))

    def _proportional(self, pid: int) -> MemoryParts | None:
        return self.exact(pid)

    def look(self, *sizes: int, after_s: float = 0.1) -> int | None:
        """Look at processes of these sizes in MB; gives what it uses in MB if that is too much."""
        self.now += after_s
        table = [Process(pid, 1, 1, size * MB, False, 1, 1) for pid, size in enumerate(sizes)]
        used = self.use.exceeds(100 * MB, table, self.machine, self.now)
        return None if used is None else used // MB


@pytest.fixture
def attempt(monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """An attempt that has just begun."""
    return Attempt(monkeypatch)


def test_a_small_attempt_is_measured_once_a_second(attempt: Attempt) -> None:
    """Then memory in files is noticed at the latest, though its processes are small."""
    looks = 0
    for _ in range(31):
        assert attempt.look(10) is None
        looks += 1
    assert attempt.measured == pytest.approx(looks * 0.1 / LOOK_S, abs=1)
    attempt.files = 300 * MB
    noticed = [used for _ in range(11) if (used := attempt.look(10)) is not None]
    assert noticed[0] == 310


def test_an_attempt_is_measured_at_once_when_the_machine_has_more_shared_memory(attempt: Attempt) -> None:
    """Half of what it may still use is enough to look."""
    attempt.look(10)
    attempt.files, attempt.machine = 300 * MB, 44 * MB
    assert attempt.look(10) is None
    attempt.machine = 46 * MB
    assert attempt.look(10) == 310


def test_an_attempt_near_its_limit_is_measured_at_every_look(attempt: Attempt) -> None:
    """More than half of it is near."""
    attempt.look(51)
    attempt.files = 60 * MB
    assert attempt.look(51) == 111


def test_the_pages_of_files_in_memory_count_once(attempt: Attempt) -> None:
    """Those that are mapped are resident and in the open file."""
    attempt.files, attempt.shared = 60 * MB, {0: 60 * MB}
    assert attempt.look(90) is None
    attempt.files = 0
    assert attempt.look(90) is None


def test_processes_that_share_pages_are_measured_exactly_before_they_are_killed(attempt: Attempt) -> None:
    """Five of 60 MB that share 50 MB use 100 MB together; a single one above the limit needs no measurement."""
    attempt.exact = lambda pid: MemoryParts(20 * MB, 0)
    assert attempt.look(60, 60, 60, 60, 60) is None
    attempt.exact = lambda pid: MemoryParts(21 * MB, 0)
    assert attempt.look(60, 60, 60, 60, 60) == 105
    before = attempt.measured
    assert attempt.look(101) == 101
    assert attempt.measured == before


def test_processes_that_end_while_they_are_measured_do_not_count(attempt: Attempt) -> None:
    """Three that share 60 MB end one after another: each of those left has a larger share than before."""

    def end(pid: int) -> MemoryParts | None:
        if pid in attempt.ended:
            return None
        share = MemoryParts(60 * MB // (3 - len(attempt.ended)), 0)
        attempt.ended.add(pid)
        return share

    attempt.exact = end
    assert attempt.look(60, 60, 60) is None


def test_processes_that_cannot_be_read_count_wholly(attempt: Attempt) -> None:
    """A program may have forbidden it."""
    assert attempt.look(60, 60) == 120


def test_the_exact_memory_of_processes_of_which_some_always_end_is_believed_in_the_end(attempt: Attempt) -> None:
    """Otherwise a program could avoid its limit by always ending one."""
    attempt.ended = {0}
    attempt.exact = lambda pid: None if pid == 0 else MemoryParts(60 * MB, 0)
    assert attempt.look(60, 60, 60) == 120


def test_a_process_has_memory_until_it_ends() -> None:
    """Also while nothing has asked for its exit code."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    assert has_memory(child.pid)
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not has_memory(child.pid)
    child.wait()
