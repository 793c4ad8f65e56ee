"""One value for each process: what a forked child must not share with the process that it was forked from.

Celery, gunicorn, `multiprocessing` and data loaders fork workers after a client was made and used. Two processes that
read from one socket get each other's answers, so each process makes its own connections at its first request.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
Mark = tuple[int, int]

_forks = 0  # how often this process's line of ancestors has forked: process ids are given out again


def _forked() -> None:
    global _forks  # noqa: PLW0603 - one count for each process
    _forks += 1


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forked)


def this_process() -> Mark:
    """What tells this process from those that it was forked from and from those that it forks."""
    return os.getpid(), _forks


class PerProcess(Generic[T]):
    """Makes a value at its first use in each process. Safe to use from many threads; takes no lock.

    A lock could be held by another thread while a process forks, and would never be free in the child. An inherited
    value is dropped, not closed: closing might speak to the other end (TLS), in the middle of what the parent sends.
    Its files are closed as its memory is freed, which ends no connection of the process that they belong to.
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
        """This process's value, if it has one already."""
        return self._made.get(this_process())

    def replace(self, used: T) -> None:
        """Let the next use make another value, unless one was made since this one."""
        mark = this_process()
        if self._made.get(mark) is used:
            self._made[mark] = self._make()
