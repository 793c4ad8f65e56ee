"""The steps of the client's operations: calls to send, pauses to make, and flows that yield them.

A flow is a generator that yields calls and pauses and is sent the grid's answers. It does no I/O, so the blocking and
the async client run the same flows; all I/O is in `connection.py`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

T = TypeVar("T")


class Body(Protocol):
    """A request body of known length that can be read from its beginning any number of times."""

    @property
    def content_type(self) -> str:
        """Media type for the request's header."""

    @property
    def length(self) -> int:
        """Total length of `chunks`, bytes."""

    def chunks(self) -> Iterator[bytes]:
        """Read the body from its beginning."""


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request.

    Attributes:
        method: HTTP method.
        path: path below the grid's URL, percent-encoded.
        params: query parameters.
        body: request body, if any.
        wait_s: longest time for which the call lets the grid delay its answer, seconds.
        at_most_s: seconds without a byte after which the call fails, if less than the client's own timeout.
        save_to: file to which the body of a 2xx answer is written instead of being kept in memory.
        job_id: the job that the answer must be about, if it is about one job.
        batch_id: the same for a batch.
        is_result: whether a 2xx answer is a result, which must name its job and match its digest.
    """

    method: str
    path: str
    params: tuple[tuple[str, str], ...] = ()
    body: Body | None = None
    wait_s: float = 0.0
    at_most_s: float | None = None
    save_to: Path | None = None
    job_id: str | None = None
    batch_id: str | None = None
    is_result: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause between two calls."""

    seconds: float


# A flow is sent an httpx.Response for each Call and None for each Pause; a transport error is thrown into it.
Flow: TypeAlias = Generator[Call | Pause, Any, T]
