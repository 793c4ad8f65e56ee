"""One seed, from a fresh grid to its outcome. The same seed makes the same steps, if hashing is not randomised."""

from __future__ import annotations

import asyncio
import gc
import logging
from dataclasses import dataclass
from random import Random

from raygrid.errors import RaygridError
from tests.simulation.clients import Clients
from tests.simulation.clock import WORLD, StuckError, VirtualLoop
from tests.simulation.faults import Faults
from tests.simulation.grid import Grid
from tests.simulation.invariants import Violation
from tests.simulation.memory_store import MemoryStore

FAULTS_S = 14.0  # faults strike for so long
SUBMIT_S = 10.0
QUIET_WITHIN_S = 120.0  # after the last fault, everything must have come to its end
LOOK_S = 0.1
CALM_SHARE = 10  # one seed in so many breaks nothing


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a seed.

    Attributes:
        seed: the seed.
        violation: what did not hold, if anything.
        digest: of every step; two runs of a seed have the same.
        virtual_s: how long it took, virtual time.
        jobs: jobs stored.
        runs: pricers started.
        faults: faults that struck.
        terms: terms of all groups together.
        calls: calls between parts.
        trace: the last events, where there was a violation.
    """

    seed: int
    violation: Violation | None
    digest: str
    virtual_s: float
    jobs: int
    runs: int
    faults: int
    terms: int
    calls: int
    trace: tuple[str, ...] = ()


def run_seed(seed: int, *, tail: int = 80, store: type[MemoryStore] = MemoryStore) -> Outcome:
    """Run one seed to its end, or to the first violation."""
    random = Random(seed)
    loop = VirtualLoop()
    collecting = gc.isenabled()
    gc.disable()  # its effects must not depend on earlier runs
    asyncio.set_event_loop(loop)
    grid = Grid(loop, random, calm=seed % CALM_SHARE == 0, store=store)
    log = logging.getLogger("raygrid")
    level, propagates = log.level, log.propagate
    log.setLevel(logging.ERROR)
    log.propagate = False
    log.addHandler(grid.watch)
    loop.set_exception_handler(lambda _, context: _unexpected(grid, context))
    try:
        faults = _run(grid, random)
        return Outcome(
            seed,
            grid.watch.violation,
            grid.trace.digest(),
            round(loop.time() - grid.started_at, 3),
            len(grid.database.jobs()),
            sum(grid.watch.runs.values()),
            faults.count,
            sum(grid.watch.terms.values()),
            grid.network.calls,
            tuple(grid.trace.last(tail)) if grid.watch.violation else (),
        )
    finally:
        _bury(grid, loop)
        log.removeHandler(grid.watch)
        log.setLevel(level)
        log.propagate = propagates
        asyncio.set_event_loop(None)
        loop.close()
        if collecting:
            gc.enable()


def _run(grid: Grid, random: Random) -> Faults:
    loop = grid.loop
    faults, clients = Faults(grid, random), Clients(grid, random)
    grid.open()
    clients.open(random.choice((12, 24, 36)), SUBMIT_S)
    faults.plan(FAULTS_S)
    if not grid.calm:
        grid.later(FAULTS_S, faults.heal)
    heals_at = loop.time() + (0.0 if grid.calm else FAULTS_S)

    def look() -> None:
        grid.watch.look()
        now = loop.time()
        if now > heals_at and clients.done and not (left := grid.watch.unfinished()):
            grid.watch.end()
            loop.stop()
            return
        if now > heals_at + QUIET_WITHIN_S:
            left = grid.watch.unfinished() or ["a client waits for a job that has ended"]
            grid.watch.fail("everything comes to its end", "; ".join(left[:8]))
            return
        loop.call_later(LOOK_S, look, context=WORLD)

    loop.call_later(LOOK_S, look, context=WORLD)
    try:
        loop.run_forever()
    except StuckError as error:
        grid.watch.fail("everything comes to its end", str(error))
    return faults


def _unexpected(grid: Grid, context: dict[str, object]) -> None:
    error = context.get("exception")
    # Some calls that fail have no caller any more; their tasks then log it themselves.
    if error is not None and not isinstance(error, RaygridError):
        grid.watch.fail("no unexpected errors", f"{context.get('message')}: {error!r} {context.get('future')}")


def _bury(grid: Grid, loop: VirtualLoop) -> None:
    loop.set_exception_handler(lambda _, __: None)
    tasks = grid.bury()
    if tasks:
        loop.call_soon(asyncio.gather(*tasks, return_exceptions=True).add_done_callback, lambda _: loop.stop())
        loop.run_forever()
