"""Retries: exponential backoff with jitter within a budget, never sooner than the grid requests.

Every call of the client may be repeated: the client chooses a job's id before the first request, and a second submit of
the same id attaches to the job; repeating any other call changes nothing.
"""

from __future__ import annotations

import asyncio
import email.utils
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

import httpx

_RETRIED_STATUS = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how often to try again.

    Attributes:
        retry_s: seconds after the first failure in which a call is tried again.
        first_contact_s: the same for a URL that refuses connections and has never answered.
        base_s: upper bound of the first pause, seconds; it doubles with every failure.
        cap_s: upper bound of every pause that the grid did not request, seconds.
        clock: gives monotonic seconds.
        jitter: gives a number in [0, 1).
        sleep: the blocking client's pause.
        sleep_async: the async client's pause.
    """

    retry_s: float = 60.0
    first_contact_s: float = 5.0
    base_s: float = 0.2
    cap_s: float = 5.0
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random
    sleep: Callable[[float], None] = time.sleep
    sleep_async: Callable[[float], Awaitable[None]] = asyncio.sleep


class Backoff:
    """The pauses between the tries of one call."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._first_failure_at: float | None = None
        self._failures = 0

    @property
    def failures(self) -> int:
        """Failures since the last success."""
        return self._failures

    def reset(self) -> None:
        """Forget the failures after a success."""
        self._first_failure_at = None
        self._failures = 0

    def pause_s(self, budget_s: float, at_least_s: float = 0.0) -> float | None:
        """Count a failure; gives the seconds to wait before the next try, or None if that would exceed the budget.

        Args:
            budget_s: seconds after the first failure in which to try again.
            at_least_s: the seconds of the grid's `Retry-After`.
        """
        now = self._policy.clock()
        if self._first_failure_at is None:
            self._first_failure_at = now
        bound = min(self._policy.cap_s, self._policy.base_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        # Half of the bound is fixed, so that many simultaneous failures do not cause simultaneous retries.
        pause = at_least_s + bound * (1 + self._policy.jitter()) / 2
        return pause if now + pause - self._first_failure_at <= budget_s else None


def is_worth_retrying(response: httpx.Response) -> bool:
    """Whether the same call may soon succeed.

    A 500 that is not a problem document comes from a proxy whose parent died during the call.
    """
    if is_problem(response):
        return response.status_code in _RETRIED_STATUS
    return response.status_code in _RETRIED_STATUS | {500} or _has_no_route_yet(response)


def _has_no_route_yet(response: httpx.Response) -> bool:
    """Whether the answer is from a proxy of the cluster that has just started and does not know the parents yet."""
    try:
        return response.status_code == 404 and "/-/routes" in response.text
    except httpx.ResponseNotRead:
        return False


def speaks_for_one_entry(response: httpx.Response) -> bool:
    """Whether the same call may succeed at another entry of the grid; a full queue is full at all of them."""
    return is_worth_retrying(response) and response.status_code != HTTPStatus.TOO_MANY_REQUESTS


def is_problem(response: httpx.Response) -> bool:
    """Whether the body is a problem document (RFC 9457)."""
    return str(response.headers.get("content-type", "")).startswith("application/problem+json")


def retry_after_s(response: httpx.Response) -> float:
    """Seconds of `Retry-After`, given as a number or as a date (RFC 9110); 0 without a valid one."""
    value = response.headers.get("retry-after", "").strip()
    if value.replace(".", "", 1).isdecimal():
        return float(value)
    try:
        at = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
