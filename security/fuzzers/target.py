"""A fuzz target: a function that reads bytes, and the errors that are its documented answers to bad ones."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

NAMES = ("forms", "batch_options", "manifests", "settings", "warm_protocol", "frames")
CORPUS = Path(__file__).resolve().parents[1] / "corpus"
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Target:
    """What a fuzzer calls.

    Attributes:
        read: reads one input; raises AssertionError if what it read breaks a promise.
        documented: the errors that may come of bad input; every other one is a finding.
    """

    read: Callable[[bytes], object]
    documented: tuple[type[Exception], ...]

    def run(self, data: bytes) -> None:
        """Read one input.

        Raises:
            Exception: an error that is not documented: a finding.
        """
        with contextlib.suppress(*self.documented):
            self.read(data)


def load(name: str) -> Target:
    """The target of this name; its modules are imported now, so that a fuzzer can instrument them."""
    target: Target = importlib.import_module(f"security.fuzzers.{name}").TARGET
    return target


def corpus_of(name: str) -> list[Path]:
    """The inputs that the repository has for a target."""
    return sorted(path for path in (CORPUS / name).iterdir() if path.is_file())


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """The same bytes in pieces of that size, as a network delivers them."""
    return (data[at : at + size] for at in range(0, len(data), size))


def finished(coroutine: Coroutine[Any, Any, Value]) -> Value:
    """The result of a coroutine, run to its end; the loop stays open, because a new one for each input is slow."""
    return _loop().run_until_complete(coroutine)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()
