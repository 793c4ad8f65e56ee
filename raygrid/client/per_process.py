"""One value for each process, for objects that a forked child must not share with its parent process.

Celery, gunicorn, `multiprocessing` and data loaders fork workers after a client was made and used. Two processes that
read from one socket get each other's answers, so each process makes its own connections at its first request.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
Mark = tuple[int, int]

_forks = 0  # the number of forks between the first process and this one, because process ids are reused


def _forked() -> None:
    global _forks  # noqa: PLW0603 - one count for each process
    _forks += 1


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forked)


def this_process() -> Mark:
    """A value that differs between this process, its ancestors and its forked children."""
    return os.getpid(), _forks


class PerProcess(Generic[T]):
    """Makes a value at its first use in each process. Threads may share it; it takes no lock.

    If another thread held a lock during a fork, the lock would never be released in the child. An inherited value is
    dropped, not closed: closing a TLS connection sends bytes, in the middle of what the parent process sends. The
    sockets are closed when their memory is freed, which does not end the parent process's connections.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[Mark, T] = {}

    def get(self) -> T:
        """This process's value."""
        mark = this_process()
        value = self._made.get(mark)
        if value is None:
            value = self._made.setdefault(mark, self._make())
            for other in [each for each in self._made if each != mark]:
                self._made.pop(other, None)
        return value

    def made(self) -> T | None:
        """This process's value, or None."""
        return self._made.get(this_process())

    def replace(self, used: T) -> None:
        """Make another value for this process, unless `used` was replaced already."""
        mark = this_process()
        if self._made.get(mark) is used:
            self._made[mark] = self._make()
