"""The interface of a contender."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

Run = Callable[[int, bytes], float]
"""Run a number of jobs with this input each; returns the seconds from the first submit to the last answer."""


class AbsentError(Exception):
    """The contender cannot take part on this machine, with the reason."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to run a command many times.

    Attributes:
        setup: its configuration, in a few words.
        lacks: functions of the grid that it does not have.
        version: returns its version; raises AbsentError if it is not installed.
        opened: starts its services for a command and a number of processes at once; they end with the context.
    """

    setup: str
    lacks: str
    version: Callable[[], str]
    opened: Callable[[Sequence[str], int], AbstractContextManager[Run]]


def installed(package: str) -> str:
    """The version of a Python package.

    Raises:
        AbsentError: it is not installed.
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise AbsentError(f"the package {package} is not installed; requirements-bench.lock has it") from None
