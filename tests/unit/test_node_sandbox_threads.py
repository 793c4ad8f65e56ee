"""Work in restricted threads: each piece has its own restrictions, errors reach their callers, and no thread stays."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from raygrid.errors import UnavailableError
from raygrid.node.sandbox import threads as threads_module
from raygrid.node.sandbox.threads import RestrictedThread, RestrictedThreads
from raygrid.system import landlock, namespaces, seccomp
from tests.support.lone_agent import wait_until

_PR_GET_NO_NEW_PRIVS, _PR_GET_NAME, _PR_SET_NAME = 39, 16, 15
_libc = ctypes.CDLL(None, use_errno=True)


def nothing() -> None:
    """Restrict nothing."""


def threads() -> set[str]:
    return set(os.listdir("/proc/self/task"))


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    """After each test all of its threads have ended."""
    before = threads()
    yield
    wait_until(lambda: threads() <= before, within_s=10)


@pytest.fixture
def opened() -> Iterator[Callable[..., RestrictedThreads]]:
    """Makes restricted threads, which are closed at the end."""
    made: list[RestrictedThreads] = []

    def make(prepare: Callable[[], None] = nothing, restrict: Callable[[], None] = nothing) -> RestrictedThreads:
        made.append(RestrictedThreads(prepare, restrict))
        return made[-1]

    yield make
    for each in made:
        each.close()


def no_new_privileges() -> int:
    return int(_libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))


def name() -> str:
    buffer = ctypes.create_string_buffer(16)
    _libc.prctl(_PR_GET_NAME, buffer, 0, 0, 0)
    return buffer.value.decode()


def test_each_piece_of_work_has_a_thread_of_its_own(opened: Callable[..., RestrictedThreads]) -> None:
    """No two pieces share one, and none runs in the caller's."""
    box = opened()
    seen = [box.run(threading.get_native_id) for _ in range(20)]
    assert threading.get_native_id() not in seen
    assert all(one != next_one for one, next_one in pairwise(seen))


def test_one_thread_can_do_one_piece_after_another() -> None:
    """It has the same restrictions for each, and an error ends neither the thread nor another piece of work."""
    box = RestrictedThread(namespaces.no_new_privileges)
    seen = {box.run(lambda: (threading.get_native_id(), no_new_privileges())) for _ in range(5)}

    def fails() -> None:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        box.run(fails)
    seen.add(box.run(lambda: (threading.get_native_id(), no_new_privileges())))
    box.close()
    [(thread, restricted)] = seen
    assert (thread != threading.get_native_id(), restricted, no_new_privileges()) == (True, 1, 0)


def test_restrictions_of_one_piece_reach_neither_the_next_nor_the_caller(
    opened: Callable[..., RestrictedThreads],
) -> None:
    """What `prepare` sets is in all threads; what `restrict` and the work itself set is in one."""
    marks: list[str] = []

    def restrict() -> None:
        marks.append(name())
        _libc.prctl(_PR_SET_NAME, b"restricted", 0, 0, 0)

    box = opened(namespaces.no_new_privileges, restrict)
    assert box.run(lambda: (no_new_privileges(), name())) == (1, "restricted")
    assert box.run(lambda: (no_new_privileges(), name())) == (1, "restricted")
    assert "restricted" not in marks
    assert no_new_privileges() == 0
    assert name() != "restricted"


@pytest.mark.skipif(landlock.abi() < landlock.FILES_ABI, reason="the kernel has no Landlock for files")
def test_landlock_of_one_piece_does_not_bind_the_next(opened: Callable[..., RestrictedThreads]) -> None:
    """A domain in which no file may be used ends with its thread."""
    box = opened(namespaces.no_new_privileges)
    rules = landlock.Ruleset(files=True)

    def refused() -> bool:
        rules.restrict()
        try:
            os.listdir("/")
        except PermissionError:
            return True
        return False

    assert box.run(refused)
    assert box.run(lambda: os.listdir("/"))
    assert os.listdir("/")
    rules.close()


@pytest.mark.skipif(not seccomp.available(), reason="this kernel does not filter system calls")
def test_a_filter_that_is_prepared_binds_all_work_and_not_the_caller(opened: Callable[..., RestrictedThreads]) -> None:
    """The calls that a sandbox refuses still work in the agent."""
    box = opened(lambda: seccomp.install(seccomp.filter_program()))

    def answer() -> int:
        _libc.syscall(435, 0, 0)  # clone3, without arguments
        return ctypes.get_errno()

    assert [box.run(answer) for _ in range(3)] == [errno.ENOSYS] * 3
    assert answer() == errno.EINVAL


@pytest.mark.parametrize("error", [OSError(5, "a disk"), RuntimeError("a defect"), SystemExit(3), KeyboardInterrupt()])
def test_an_error_of_work_reaches_its_caller_and_no_other(
    opened: Callable[..., RestrictedThreads], error: BaseException
) -> None:
    """The next piece of work is done."""
    box = opened()

    def fails() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        box.run(fails)
    assert raised.value is error
    assert box.run(lambda: 7) == 7


@pytest.mark.parametrize("error", [PermissionError(1, "no"), RuntimeError("a defect")])
def test_an_error_of_prepare_is_raised_and_leaves_no_thread(error: BaseException) -> None:
    """There is nothing to close then."""

    def fails() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        RestrictedThreads(fails, nothing)
    assert raised.value is error


@pytest.mark.parametrize("error", [OSError(7, "too many domains"), ValueError("a defect")])
def test_work_that_cannot_be_restricted_is_not_done(
    opened: Callable[..., RestrictedThreads], error: BaseException
) -> None:
    """Its caller gets the error; the next piece of work is restricted again."""
    failing = [error]
    done: list[int] = []

    def restrict() -> None:
        if failing:
            raise failing.pop()

    box = opened(nothing, restrict)
    with pytest.raises(type(error)):
        box.run(lambda: done.append(1))
    assert done == []
    assert box.run(lambda: 7) == 7


def test_work_fails_if_its_successor_cannot_be_started(
    opened: Callable[..., RestrictedThreads], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a waiting thread the sandbox would be lost, so that the work fails and its thread waits on."""
    box = opened()
    starts, missing = threads_module._start, [OSError(11, "no thread can be started")] * 3

    def start(function: Callable[[], None]) -> None:
        if missing:
            raise missing.pop()
        starts(function)

    monkeypatch.setattr(threads_module, "_start", start)
    done: list[int] = []
    for _ in range(3):
        with pytest.raises(OSError, match="no thread can be started"):
            box.run(lambda: done.append(1))
    assert done == []
    assert box.run(lambda: 7) == 7


def test_a_first_thread_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's refusal is an error of the operating system, as for a process."""

    def refuses(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", refuses)
    with pytest.raises(BlockingIOError, match="can't start new thread"):
        RestrictedThreads(nothing, nothing)


def test_many_callers_at_once_get_their_own_results(opened: Callable[..., RestrictedThreads]) -> None:
    """Pieces of work run at the same time; none waits for another, and each caller gets what its work returned."""
    box = opened()
    all_run = threading.Barrier(16)

    def work(number: int) -> int:
        all_run.wait(30)
        return number

    with ThreadPoolExecutor(16) as callers:
        for _ in range(20):
            assert list(callers.map(lambda number: box.run(lambda: work(number)), range(16))) == list(range(16))


def test_closed_threads_are_gone() -> None:
    """Fifty sandboxes, each used, leave no thread; work after the end is refused."""
    before = threads()
    made = [RestrictedThreads(nothing, nothing) for _ in range(50)]
    assert [each.run(lambda: 1) for each in made] == [1] * 50
    wait_until(lambda: len(threads() - before) == 50)
    for each in made:
        each.close()
    wait_until(lambda: threads() <= before)
    with pytest.raises(UnavailableError, match="was closed"):
        made[0].run(lambda: 1)


def test_work_that_has_begun_goes_on_after_the_end() -> None:
    """An attempt that runs keeps its thread until its pricer has ended."""
    box = RestrictedThreads(nothing, nothing)
    began, may_end = threading.Event(), threading.Event()

    def work() -> int:
        began.set()
        may_end.wait(30)
        return 7

    with ThreadPoolExecutor(1) as caller:
        result = caller.submit(lambda: box.run(work))
        began.wait(30)
        box.close()
        may_end.set()
        assert result.result(30) == 7


def test_no_caller_waits_for_ever_for_a_sandbox_that_ends_meanwhile() -> None:
    """Whichever comes first, each piece of work is done or fails."""

    def attempt(box: RestrictedThreads, start_at: float) -> int:
        while time.monotonic() < start_at:
            pass
        try:
            return box.run(lambda: 1)
        except UnavailableError:
            return 0

    with ThreadPoolExecutor(4) as callers:
        for _ in range(100):
            box = RestrictedThreads(nothing, nothing)
            start_at = time.monotonic() + 0.001
            ends = [callers.submit(attempt, box, start_at) for _ in range(4)]
            while time.monotonic() < start_at:
                pass
            box.close()
            assert {each.result(30) for each in ends} <= {0, 1}


def test_work_that_comes_with_the_end_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that is queued behind the end is not forgotten, and the waiting thread ends all the same."""
    box = RestrictedThreads(nothing, nothing)
    puts = box._waiting.put

    class Late:
        """Puts work only after the sandbox was closed."""

        get, get_nowait = box._waiting.get, box._waiting.get_nowait

        @staticmethod
        def put(work: object) -> None:
            if work is not None and not box._closed.is_set():
                box.close()
            puts(work)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(box, "_waiting", Late)
    with ThreadPoolExecutor(1) as caller, pytest.raises(UnavailableError):
        caller.submit(lambda: box.run(lambda: 1)).result(10)
