"""System V shared memory of attempts: what counts as theirs, and what is removed after them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from raygrid.models import AttemptId
from raygrid.node.limits.memory_use import unmapped_memory
from raygrid.node.limits.running import Running
from raygrid.node.limits.segments import AttemptSegments, LeftSegments
from raygrid.system import namespaces
from raygrid.system.ipc_tables import SemaphoresAndMessages
from raygrid.system.shared_segments import Segment, SegmentTable, remove_segment
from tests.support.sandboxed import NEEDS_MOUNTS

MB = 1024**2
# Makes a segment of so many bytes, fills it, detaches it and prints its number.
MAKE = """
import ctypes, sys
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(0, int(sys.argv[1]), 0o1600)
place = libc.shmat(segment, None, 0)
ctypes.memset(place, 1, int(sys.argv[1]))
libc.shmdt(ctypes.c_void_p(place))
print(segment, flush=True)
input()
"""
SEMAPHORES_AND_MESSAGES = """
import ctypes
libc = ctypes.CDLL(None)
assert libc.semget(0, 32000, 0o1600) >= 0
queue = libc.msgget(0, 0o1600)
message = ctypes.create_string_buffer(bytes([1]) * 1008)
for _ in range(3):
    assert libc.msgsnd(queue, message, 1000, 0) == 0
"""


class Maker:
    """A process that has made a segment."""

    def __init__(self, size: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", MAKE, str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self.segment = int(self._process.stdout.readline())

    def end(self) -> None:
        if self._process.returncode is None:
            self._process.communicate(b"\n")


@pytest.fixture
def table() -> Iterator[SegmentTable]:
    """The segments of this process's namespace."""
    opened = SegmentTable()
    yield opened
    opened.close()


@pytest.fixture
def attempt(table: SegmentTable) -> AttemptSegments:
    """Those of an attempt without a namespace of its own; it begins before anything is made."""
    return AttemptSegments(table, None)


@pytest.fixture
def maker(attempt: AttemptSegments) -> Iterator[Maker]:
    """A process of the attempt, which has made a segment of 8 MB and waits; both are gone afterwards."""
    made = Maker(8 * MB)
    attempt.note([made.pid])
    yield made
    made.end()
    if made.segment in ids():
        remove_segment(made.segment)


def ids() -> set[int]:
    """The numbers of all segments here."""
    opened = SegmentTable()
    try:
        return {each.id for each in opened.now()}
    finally:
        opened.close()


def test_a_segment_counts_for_the_attempt_whose_process_made_it(
    attempt: AttemptSegments, maker: Maker, table: SegmentTable
) -> None:
    """It counts though no process has it mapped, and after that process has ended; for other attempts it does not."""
    other = AttemptSegments(table, None)
    other.note([os.getpid()])
    assert (attempt.used(), other.used()) == (8 * MB, 0)
    maker.end()
    attempt.note([])
    assert attempt.used() == 8 * MB
    running = Running(AttemptId("job", 1), 0.0, 1.0, 1, 1, (), segments=attempt)
    assert unmapped_memory(running) == 8 * MB


def test_older_segments_count_for_no_attempt(
    attempt: AttemptSegments, table: SegmentTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be data that another program provides to all jobs, whichever process has used them last."""
    attempt.note([7])
    began = time.time()
    monkeypatch.setattr(
        table, "now", lambda: [Segment(1, 5, 7, 0, int(began) - 9, MB), Segment(2, 5, 7, 0, int(began) + 1, 3)]
    )
    assert attempt.used() == 3
    assert attempt.made(table.now()) == []


@NEEDS_MOUNTS
def test_all_of_an_own_namespace_counts() -> None:
    """Segments, semaphores and messages. Tables show the namespace in which they were opened to all threads."""
    found: list[SegmentTable] = []
    others: list[SemaphoresAndMessages] = []
    made, looked = threading.Event(), threading.Event()

    def inside() -> None:
        namespaces.unshare(namespaces.NEW_IPC)
        found.append(SegmentTable())
        others.append(SemaphoresAndMessages())
        Maker(4 * MB).end()
        subprocess.run([sys.executable, "-S", "-c", SEMAPHORES_AND_MESSAGES], check=True)
        made.set()
        looked.wait(20)

    thread = threading.Thread(target=inside)
    thread.start()
    assert made.wait(20)
    try:
        inner = AttemptSegments(found[0], others[0])
        assert inner.used() == 4 * MB
        assert inner.used_by_kernel() == 32_000 * 64 + 3 * (64 + 1000)
        assert {each.id for each in found[0].now()} != ids()
    finally:
        looked.set()
        thread.join()
        found[0].close()
        others[0].close()
    assert found[0].now() == []


def test_what_an_attempt_leaves_is_removed_once_its_creator_has_ended(attempt: AttemptSegments, maker: Maker) -> None:
    """While the creator runs, a helper may still use the segment; those of other programs stay."""
    kept = Maker(MB)
    left = LeftSegments()
    try:
        left.ended(attempt)
        left.look()
        assert maker.segment in ids()
        maker.end()
        left.look()
        assert maker.segment not in ids()
    finally:
        kept.end()
        left.close()
        remove_segment(kept.segment)


def test_an_attached_segment_is_removed_when_it_is_detached(attempt: AttemptSegments, maker: Maker) -> None:
    """A process that outlives its job may have it attached."""
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    place = libc.shmat(maker.segment, None, 0)
    maker.end()
    left = LeftSegments()
    left.ended(attempt)
    left.look()
    assert maker.segment in ids()
    libc.shmdt(ctypes.c_void_p(place))
    left.close()
    assert maker.segment not in ids()


def test_segments_of_an_own_namespace_are_not_removed(maker: Maker, table: SegmentTable) -> None:
    """They end with it; here another segment may have the same number."""
    inner = AttemptSegments(table, SemaphoresAndMessages())
    inner.note([maker.pid])
    maker.end()
    left = LeftSegments()
    left.ended(inner)
    left.close()
    assert maker.segment in ids()


def test_a_segment_that_is_gone_cannot_be_removed(maker: Maker) -> None:
    """The error names the call."""
    remove_segment(maker.segment)
    with pytest.raises(OSError, match="IPC_RMID"):
        remove_segment(maker.segment)
