"""What a contender is, to the process that it runs in."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

Run = Callable[[int, bytes], float]
"""Run so many jobs with this input each; gives the seconds from the first submit until the last answer is here."""


class AbsentError(Exception):
    """The contender cannot take part on this machine; says why."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to run a command many times.

    Attributes:
        setup: how it is set up, in a few words.
        lacks: what it does not do that the grid does.
        version: gives its version. Raises AbsentError where it is not installed.
        opened: starts its services for a command with so many processes at once; they end with the context.
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
