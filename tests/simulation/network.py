"""The network of a simulation: calls between parts that may be late, lost before or after they took effect, or doubled.

The caller gets an answer, the callee's error, or `UnavailableError`; the latter leaves open whether the call was
carried out. Calls between tiers have their declared timeouts.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeVar

from raygrid.errors import ProcessEndedError, RaygridError, UnavailableError
from raygrid.transport.calls import Carrier, DeclaredCall
from raygrid.transport.ports import CALL_TIMEOUT_S
from tests.simulation.clock import WORLD, Process
from tests.simulation.trace import Trace

GIVEN_UP = 0.05  # how often a part that is cut off is reported as dead, as by Ray's GCS after a while

Target = TypeVar("Target")


class Part(Generic[Target]):
    """A part that can be called: its name, its host, and its present life, if it has one.

    Attributes:
        process: the present life; None while it is down.
        target: what answers calls in this life.
    """

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.process: Process | None = None
        self.target: Target | None = None


@dataclass(slots=True)
class Weather:
    """How bad the network is.

    Attributes:
        loss: share of calls that are lost, half of them after they took effect.
        doubled: share of calls that are carried out twice.
        late: share of calls that take up to `late_s` instead of milliseconds.
        late_s: see there.
    """

    loss: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    late_s: float = 2.0


class Network:
    """Carries calls from a process on one host to a part on another."""

    def __init__(self, loop: asyncio.AbstractEventLoop, random: Random, trace: Trace) -> None:
        self._loop = loop
        self._random = random
        self._trace = trace
        self.weather = Weather()
        self.over = False  # True once the simulation has ended: no call is carried any more
        self._cuts: dict[
            str, tuple[frozenset[str], frozenset[str]]
        ] = {}  # by name: two sides that do not reach another
        self.calls = 0

    def cut(self, name: str, side: frozenset[str], other: frozenset[str]) -> None:
        """Let two sets of hosts not reach each other."""
        self._cuts[name] = (side, other)

    def mend(self, name: str | None = None) -> None:
        """Undo a cut, or all."""
        if name is None:
            self._cuts.clear()
        else:
            self._cuts.pop(name, None)

    def reaches(self, host: str, other: str) -> bool:
        """Whether two hosts reach each other now."""
        if not self._cuts or host == other:
            return True
        return not any(
            (host in one and other in two) or (host in two and other in one) for one, two in self._cuts.values()
        )

    def call(
        self,
        host: str,
        part: Part[Target],
        what: str,
        ask: Callable[[Target], Any],
        timeout_s: float = CALL_TIMEOUT_S,
        extra_s: float = 0.0,
    ) -> asyncio.Future[Any]:
        """Have a part do something; `ask` runs there, and may give an awaitable.

        Args:
            host: where the caller is.
            part: whom to call.
            what: the name of the call, for the trace.
            ask: takes the part's target.
            timeout_s: when the caller gives up.
            extra_s: further delay before it takes effect.
        """
        loop, random, weather = self._loop, self._random, self.weather
        answer: asyncio.Future[Any] = loop.create_future()
        if self.over:
            answer.set_exception(UnavailableError("the simulation is over"))
            return answer
        self.calls += 1
        there, back = 0.0005 + 0.002 * random.random(), 0.0005 + 0.002 * random.random()
        fate, luck = "", random.random()
        if part.host != host:
            if luck < weather.loss:
                fate = "lost" if luck < weather.loss / 2 else "answer lost"
            elif luck < weather.loss + weather.doubled:
                fate = "doubled"
            elif luck < weather.loss + weather.doubled + weather.late:
                there += weather.late_s * random.random()
                back += weather.late_s * random.random() ** 2
        self._trace(f"{host}>{part.name}.{what} {fate}")
        call = _Call(self, host, part, ask, answer, back, lost=fate == "answer lost")
        call.timer = loop.call_later(timeout_s, call.give_up, timeout_s, context=WORLD)
        if fate != "lost":
            loop.call_later(there + extra_s, call.arrive, context=WORLD)
            if fate == "doubled":
                loop.call_later(there + extra_s + 0.3 * random.random() ** 2, call.arrive, context=WORLD)
        return answer

    def carrier(self, host: str, part: Part[Any]) -> Carrier:
        """Carries the calls of a tier from a host to a part."""

        async def carry(call: DeclaredCall, args: tuple[Any, ...]) -> Any:
            def ask(target: Any) -> Any:
                return getattr(target, call.name)(*args)

            return await self.call(host, part, call.name, ask, call.timeout_s(args))

        return carry

    def later(self, delay_s: float, action: Callable[..., None], *args: Any) -> None:
        """Bring an answer to the caller."""
        self._loop.call_later(delay_s, action, *args, context=WORLD)

    def run_in(self, process: Process, action: Callable[[], None]) -> None:
        """Let a process do something as soon as it can."""
        self._loop.call_soon(action, context=process.context)


class _Call(Generic[Target]):
    """A pending call."""

    __slots__ = ("_answer", "_ask", "_back_s", "_host", "_lost", "_network", "_part", "timer")

    def __init__(
        self,
        network: Network,
        host: str,
        part: Part[Target],
        ask: Callable[[Target], Any],
        answer: asyncio.Future[Any],
        back_s: float,
        *,
        lost: bool,
    ) -> None:
        self._network, self._host, self._part = network, host, part
        self._ask, self._answer, self._back_s, self._lost = ask, answer, back_s, lost
        self.timer: asyncio.TimerHandle | None = None

    def arrive(self) -> None:
        """The call is there, if the way is open and the part is up."""
        network, part = self._network, self._part
        if network.over:
            return
        if not network.reaches(self._host, part.host):
            if network._random.random() < GIVEN_UP:
                network.later(self._back_s, self._fail, ProcessEndedError(f"{part.name} is given up"))
            return
        if part.process is None:
            self._failed(ProcessEndedError(f"{part.name} is down"))
            return
        network.run_in(part.process, self._carry_out)

    def _carry_out(self) -> None:
        target = self._part.target
        if target is None:
            return
        try:
            value = self._ask(target)
        except Exception as error:
            self._failed(error)
            return
        if inspect.isawaitable(value):
            asyncio.ensure_future(value).add_done_callback(self._done)
        else:
            self._reply(self._succeed, value)

    def _done(self, task: asyncio.Future[Any]) -> None:
        if task.cancelled():
            self._failed(UnavailableError(f"{self._part.name} gave the call up"))
        elif (error := task.exception()) is not None:
            self._failed(error)
        else:
            self._reply(self._succeed, task.result())

    def _failed(self, error: BaseException) -> None:
        # As over Ray: the grid's own errors come through, all else means an unknown outcome.
        known = error if isinstance(error, RaygridError) else UnavailableError(f"{self._part.name} failed: {error!r}")
        self._reply(self._fail, known)

    def _reply(self, action: Callable[[Any], None], value: Any) -> None:
        if not self._lost and not self._answer.done() and self._network.reaches(self._host, self._part.host):
            self._network.later(self._back_s, action, value)

    def _succeed(self, value: Any) -> None:
        if not self._answer.done():
            self._answer.set_result(value)
            self._settled()

    def _fail(self, error: BaseException) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)
            self._answer.exception()  # a waiting caller gets it; one that died meanwhile does not
            self._settled()

    def _settled(self) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def give_up(self, timeout_s: float) -> None:
        """The caller waits no longer."""
        self._fail(UnavailableError(f"{self._part.name} did not answer within {timeout_s:g} s"))
