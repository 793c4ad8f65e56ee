"""The slots of a node agent: one thread for each slot, and a few more, run attempts one after another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from raygrid.core.group.events import AttemptOrder
from raygrid.node.accepted import AcceptedAttempts

EXTRA_THREADS = 2  # threads beyond the slots: they make results while pricers run in all slots
SHORT_S = 0.02


class SlotNumbers:
    """Numbers for the slots in use (`RAYGRID_SLOT`): pricers that run at the same time have different numbers.

    A pricer may use its number to choose a GPU, a port or a licence. With at most n in use, all are below n. The caller
    holds a lock during each call.
    """

    def __init__(self) -> None:
        self._used = 0  # a bit for each number

    def take(self) -> int:
        """Take the lowest free number."""
        lowest = ~self._used & (self._used + 1)
        self._used |= lowest
        return lowest.bit_length() - 1

    def give_back(self, number: int) -> None:
        """Free a number."""
        self._used &= ~(1 << number)


class Slot:
    """A slot that an attempt occupies until its pricer has ended; the next attempt may start before its result is made.

    `leave` is called with the slot's number, and with whether to wake another thread.
    """

    def __init__(self, number: int, leave: Callable[..., None]) -> None:
        self.number = number
        self._leave = leave
        self._began = time.monotonic()
        self._left = False

    def leave_early(self) -> None:
        """Free the slot when the pricer has ended, except after a short attempt: waking a thread would take as long."""
        if time.monotonic() - self._began > SHORT_S:
            self._left = True
            self._leave(self.number, wake=True)

    def leave(self) -> None:
        """Free the slot when the attempt is over; its thread takes the next attempt."""
        if not self._left:
            self._leave(self.number, wake=False)


class Slots:
    """The threads of one agent, which run accepted attempts, at most `count` at a time.

    The lock of `work` guards `accepted`; `work` is notified when an attempt is accepted. `run` runs an attempt to its
    end, and raises nothing.
    """

    def __init__(
        self,
        count: int,
        accepted: AcceptedAttempts,
        work: threading.Condition,
        run: Callable[[AttemptOrder, Slot], None],
    ) -> None:
        self.count = count
        self._accepted = accepted
        self._work = work
        self._run = run
        self._busy = 0  # slots that are in use
        self._numbers = SlotNumbers()
        self._is_closing = False
        self._threads: list[threading.Thread] = []

    @property
    def _most_threads(self) -> int:
        return self.count + min(self.count, EXTRA_THREADS)

    def resize(self, count: int) -> None:
        """Set the number of slots; called with the lock held. Surplus threads end when they are idle."""
        self.count = count
        while len(self._threads) < self._most_threads and not self._is_closing:
            thread = threading.Thread(target=self._work_on, name="raygrid-slot", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._work.notify_all()

    def close(self, stop_all: Callable[[], None], within_s: float) -> bool:
        """Begin no further attempt, and wait for the threads; return whether all have ended.

        `stop_all` stops running attempts; it is called repeatedly, since one may be about to start its pricer.
        """
        with self._work:
            self._is_closing = True
            self._work.notify_all()
        until = time.monotonic() + within_s
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < until:
            stop_all()
            for thread in list(self._threads):
                thread.join(timeout=0.05)
        return not any(thread.is_alive() for thread in self._threads)

    def _work_on(self) -> None:
        while True:
            with self._work:
                while not (self._is_closing or len(self._threads) > self._most_threads) and (
                    not self._accepted.waiting or self._busy >= self.count
                ):
                    self._work.wait()
                if self._is_closing:
                    return
                if len(self._threads) > self._most_threads:
                    self._threads.remove(threading.current_thread())
                    self._work.notify()  # this thread may have been woken for an attempt
                    return
                order = self._accepted.next()
                self._busy += 1
                slot = Slot(self._numbers.take(), self._leave)
            self._run(order, slot)

    def _leave(self, number: int, *, wake: bool) -> None:
        with self._work:
            self._busy -= 1
            self._numbers.give_back(number)
            if wake and self._accepted.waiting:
                self._work.notify()
