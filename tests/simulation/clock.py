"""Virtual time: an event loop that jumps to the next timer when nothing is ready, and processes that freeze and die.

The loop has no threads and no I/O, so the same program makes the same steps every time. All that runs in a process's
context belongs to it; while a process is frozen, its steps are parked, and a dead one makes no more steps.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine
from typing import Any

STARTS_AT = 1_000.0
MOST_STEPS_AT_ONCE = 200_000

_OWNER: contextvars.ContextVar[Process] = contextvars.ContextVar("process")
WORLD = contextvars.Context()  # the context of what belongs to no process: the network, faults, the observer


class StuckError(RuntimeError):
    """No event is left, or events go on without end at one instant."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose time is virtual."""

    def __init__(self) -> None:
        super().__init__()
        self._now = STARTS_AT
        self._steps = 0  # at this instant

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    # Attributes that `BaseEventLoop` has for its subclasses; typeshed leaves them out.

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]  # see above
        if not ready:
            self._advance(scheduled)
            now = self._now
            while scheduled and scheduled[0]._when <= now:
                handle = heapq.heappop(scheduled)
                handle._scheduled = False
                ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            owner = handle._context.get(_OWNER)
            if owner is not None and owner.parked is not None:
                owner.parked.append(handle)
                continue
            handle._run()
        self._steps += 1
        if self._steps > MOST_STEPS_AT_ONCE:
            raise StuckError(f"something happens without end at {self._now:.3f}")

    def _advance(self, scheduled: list[asyncio.TimerHandle]) -> None:
        while scheduled and scheduled[0].cancelled():
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]  # see above
            heapq.heappop(scheduled)._scheduled = False  # type: ignore[attr-defined]  # see above
        if not scheduled:
            raise StuckError("nothing is left to happen")
        if scheduled[0].when() > self._now:
            self._now = scheduled[0].when()
            self._steps = 0

    def _process_events(self, event_list: object) -> None:
        """There is no I/O."""

    def _write_to_self(self) -> None:
        """There is one thread, so no other has to be woken."""

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # a future, as a coroutine is
        """Run it at once; there are no threads."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class Process:
    """One life of a part of the grid.

    Attributes:
        name: of the part.
        context: what runs in it belongs to this process.
        alive: whether it was not killed.
        parked: what it has to do once it thaws; None while it runs. A dead process never thaws.
        wall_offset_s: how far its machine's clock is off.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self.name = name
        self.context = contextvars.Context()
        self.context.run(_OWNER.set, self)
        self.alive = True
        self.parked: list[asyncio.Handle] | None = None
        self.wall_offset_s = 0.0
        self.thawed_at = 0.0

    @property
    def runs(self) -> bool:
        """Whether it is neither dead nor frozen."""
        return self.parked is None

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Let it do something."""
        return self._loop.create_task(work, context=self.context)

    def freeze(self) -> None:
        """Stop it where it is; other processes go on."""
        if self.parked is None:
            self.parked = []

    def thaw(self) -> None:
        """Let it go on, with all that has arrived meanwhile."""
        if self.alive:
            self._go_on()

    def kill(self) -> None:
        """End it at once, as `kill -9` does: nothing is cleaned up, not even by the garbage collector."""
        self.alive = False
        self.freeze()

    def bury(self) -> None:
        """After the simulation: let its tasks be cancelled properly."""
        self._go_on()

    def _go_on(self) -> None:
        if self.parked is None:
            return
        parked, self.parked = self.parked, None
        self.thawed_at = self._loop.time()
        self._loop._ready.extend(parked)  # type: ignore[attr-defined]  # see above
