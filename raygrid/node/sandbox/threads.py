"""Runs work in threads that have the restrictions of a sandbox.

Restrictions of a thread (Landlock, seccomp, capabilities, its mount namespace) can never be lifted, and processes that
it starts inherit them. That takes less time than a program between agent and pricer, and the pricer is the agent's
child. `RestrictedThread` does one piece of work after another. `RestrictedThreads` does many at once, each in a thread
of its own, which can be restricted further: one thread waits with what all share, and starts the next one, which
inherits that, before it restricts itself.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from raygrid.errors import UnavailableError

T = TypeVar("T")


class _Work(Generic[T]):
    """A piece of work, and its end."""

    __slots__ = ("_do", "_ended", "_error", "_result")

    def __init__(self, do: Callable[[], T]) -> None:
        self._do = do
        self._result: T | None = None
        self._error: BaseException | None = None
        self._ended = _thread.allocate_lock()
        self._ended.acquire()

    def run(self) -> bool:
        """Do it; whether it raised nothing."""
        try:
            self._result = self._do()
        except BaseException as error:
            self._error = error
        self._ended.release()
        return self._error is None

    def fail(self, error: BaseException) -> None:
        """End it with an error, without doing it."""
        self._error = error
        self._ended.release()

    def await_end(self) -> T:
        """Its result, or what it raised."""
        self._ended.acquire()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # it was set


class RestrictedThread:
    """One thread, which does one piece of work after another; `close` ends it.

    Args:
        prepare: restricts the thread.

    Raises:
        OSError: what `prepare` raised.
    """

    def __init__(self, prepare: Callable[[], None]) -> None:
        self._waiting: SimpleQueue[_Work[Any] | None] = SimpleQueue()
        self._closed = threading.Event()
        first = _Work(prepare)
        _start(lambda: self._await_work() if first.run() else None)
        first.await_end()

    def run(self, do: Callable[[], T]) -> T:
        """Do work in a restricted thread; return what it returns, raise what it raises.

        Raises:
            UnavailableError: the sandbox was closed.
            OSError: the operating system has no room for a thread.
        """
        if self._closed.is_set():
            raise UnavailableError("the sandbox was closed")
        work = _Work(do)
        self._waiting.put(work)
        if self._closed.is_set():  # meanwhile: perhaps no thread waits any more
            self._fail_waiting()
            self._waiting.put(None)  # which may have been taken
        return work.await_end()

    def close(self) -> None:
        """Let the waiting thread end; work that has begun goes on, other work fails."""
        self._closed.set()
        self._waiting.put(None)

    def _fail_waiting(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                if (work := self._waiting.get_nowait()) is not None:
                    work.fail(UnavailableError("the sandbox was closed"))

    def _await_work(self) -> None:
        while (work := self._waiting.get()) is not None:
            work.run()


class RestrictedThreads(RestrictedThread):
    """Threads that each do one piece of work; `close` ends the waiting one.

    Args:
        prepare: restricts a thread by what all work shares; called once, in the first thread.
        restrict: restricts the thread of one piece of work further.

    Raises:
        OSError: what `prepare` raised.
    """

    def __init__(self, prepare: Callable[[], None], restrict: Callable[[], None]) -> None:
        self._restrict = restrict
        super().__init__(prepare)

    def _await_work(self) -> None:
        while (work := self._waiting.get()) is not None:
            try:
                _start(self._await_work)
            except OSError as error:
                work.fail(error)
                continue
            try:
                self._restrict()
            except BaseException as error:
                work.fail(error)
                return
            work.run()
            return


def _start(function: Callable[[], None]) -> None:
    # A `threading.Thread` would take twice as long, and wait for its start.
    try:
        _thread.start_new_thread(function, ())
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, f"no thread can be started: {error}") from None
