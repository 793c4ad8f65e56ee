"""A coalescer has at most one call in flight; items that arrive meanwhile are sent together in the next call.

It has no timers and needs no tuning: an idle connection has the latency of one call, a busy one makes large batches.
All connections between tiers use it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from raygrid.errors import BusyError, UnavailableError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Coalescer(Generic[Item, Answer]):
    """Joins items into batches for `send`, which returns one answer for each item, in order. The owner closes it.

    An error of `send` goes to every item of its batch. An accepted item is sent even if its caller is cancelled.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        max_batch: int = 1_000,
        max_waiting: int = 200_000,
        name: str = "coalescer",
    ) -> None:
        self._send = send
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._name = name
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def is_idle(self) -> bool:
        """Whether no item waits or is being sent."""
        return self._task is None

    def put_all(self, items: Sequence[Item]) -> list[asyncio.Future[Answer]]:
        """Add items; each future gets the answer to its item.

        Raises:
            UnavailableError: closed.
            BusyError: more items wait than the limit allows.
        """
        if self._closed:
            raise UnavailableError(f"{self._name} is closed because this process ends; try again")
        if len(self._waiting) + len(items) > self._max_waiting:
            raise BusyError(f"{self._name} is full: {len(self._waiting)} items wait; try again later")
        loop = asyncio.get_running_loop()
        pairs: list[tuple[Item, asyncio.Future[Answer]]] = [(item, loop.create_future()) for item in items]
        self._waiting.extend(pairs)
        if self._task is None:
            self._task = loop.create_task(self._drain(), name=self._name)
        return [future for _, future in pairs]

    async def put(self, item: Item) -> Answer:
        """Add one item and wait for its answer."""
        return await asyncio.shield(self.put_all([item])[0])

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._max_batch], self._waiting[self._max_batch :]
                try:
                    answers = await self._send([item for item, _ in batch])
                    if len(answers) != len(batch):
                        raise RuntimeError(f"{self._name}: {len(answers)} answers to {len(batch)} items")
                except Exception as error:
                    _fail(batch, error)
                    continue
                except BaseException:  # this task ends, so the waiting items would never be sent
                    waiting, self._waiting = self._waiting, []
                    why = f"{self._name} was stopped because this process ends; try again"
                    _fail(batch + waiting, UnavailableError(why))
                    raise
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
        finally:
            self._task = None

    async def close(self) -> None:
        """Accept no more items, and send the waiting ones."""
        self._closed = True
        if self._task is not None:
            await asyncio.wait([self._task])


def _fail(batch: list[tuple[Item, asyncio.Future[Answer]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
            future.exception()  # marks it as retrieved: the caller may have been cancelled
