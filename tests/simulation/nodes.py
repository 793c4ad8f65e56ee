"""A node agent of a simulation: `raygrid.node.agent` with the pricers replaced by timers.

It keeps the contract of `NodeCalls` as the real one does: terms, incarnations, numbered reports that are kept until
they are settled, one run for each job with its attempts attached to it, and no more runs than slots.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import Protocol

from raygrid.core.group.events import AttemptOrder
from raygrid.errors import StaleTermError
from raygrid.models import INFRASTRUCTURE_OUTCOMES, AttemptId, AttemptReport, BlobSlice, Definition, NodeState, Outcome
from raygrid.settings.model import GridSettings
from raygrid.transport.ports import NodeReply
from tests.simulation.store import EPOCH

RETRIED = 75  # the exit code that asks for another attempt
FAILED = 3  # the exit code of a pricer that fails
GRACE_S = 0.05
WAIT_S = 20.0  # for what an attempt runs


class Witness(Protocol):
    """Observes what happens on nodes."""

    def accepted(self, agent: SimulatedAgent, call: str, term: int) -> None:
        """An agent followed an order of a term."""
        ...

    def started(self, agent: SimulatedAgent, attempt: AttemptId, version: str) -> None:
        """A pricer of this version runs."""
        ...

    def ended(self, agent: SimulatedAgent, report: AttemptReport) -> None:
        """A report can be fetched from now on."""
        ...

    def given(self, agent: SimulatedAgent, reports: Sequence[AttemptReport]) -> None:
        """Reports go out to the leader that asked for them."""
        ...

    def settled(self, agent: SimulatedAgent, report: AttemptReport) -> None:
        """A report is dropped, because a leader settled it."""
        ...

    def killer(self, agent: SimulatedAgent, attempt: AttemptId) -> None:
        """A pricer is about to take its node's agent down."""
        ...


@dataclass(slots=True, eq=False)
class _Run:
    """A job that runs, or has run and is being stored."""

    order: AttemptOrder
    timer: asyncio.TimerHandle | None
    started_at: float
    running: bool = True  # has its slot still
    begun: bool = False  # its pricer was spawned


class SimulatedAgent:
    """One life of a node's agent.

    Args:
        node_id: the node.
        incarnation: new with every life.
        slots: how many pricers may run at once.
        loop: gives the time.
        random: for how long storing takes.
        witness: observes everything.
        first: its reports are numbered from here on.
        settings: what it follows at first.
    """

    def __init__(
        self,
        node_id: str,
        incarnation: str,
        slots: int,
        loop: asyncio.AbstractEventLoop,
        random: Random,
        witness: Witness,
        first: int = 0,
        settings: GridSettings | None = None,
        left_over: Sequence[AttemptId] = (),
    ) -> None:
        self.node_id = node_id
        self.incarnation = incarnation
        self.slots = slots
        self._loop = loop
        self._random = random
        self._witness = witness
        self._settings = settings
        self._definitions: dict[str, Definition] = {}
        self.disk_full = False
        self.disk_slow_s = 0.0
        self._waiting: OrderedDict[AttemptId, AttemptOrder] = OrderedDict()
        self._held: dict[str, list[AttemptId]] = {}
        self._wanted: dict[str, list[AttemptId]] = {}
        self._runs: dict[AttemptId, _Run] = {}
        self._reports: deque[tuple[int, AttemptReport]] = deque()
        self._recent: OrderedDict[str, AttemptReport] = OrderedDict()
        self._first = self._last = first
        self._term = 0
        self._polls: list[asyncio.Future[None]] = []
        ended_at = self._instant(loop.time())
        self._append([AttemptReport(each, Outcome.LOST, message="left over", ended_at=ended_at) for each in left_over])

    @property
    def begun(self) -> list[AttemptId]:
        """The attempts that have a job directory."""
        return [attempt for attempt, run in self._runs.items() if run.running]

    @property
    def running(self) -> int:
        """Pricers that run now."""
        return sum(run.running for run in self._runs.values())

    @property
    def deployed_at(self) -> float:
        """Stamp of the settings that it follows."""
        return self._settings.deployed_at if self._settings is not None else 0.0

    @property
    def leftovers(self) -> list[str]:
        """What it still has: attempts and reports."""
        return [f"job {job_id}" for job_id in self._held] + [
            f"report of {report.attempt}" for _, report in self._reports
        ]

    # --- what leaders ask ---------------------------------------------------------------------------------------

    def start(self, term: int, orders: Sequence[AttemptOrder], definitions: Sequence[Definition] = ()) -> None:
        """See `NodeCalls.start`."""
        self._accept_term("start", term)
        self._definitions.update((each.digest, each) for each in definitions if not each.is_lost)
        lost = {each.digest for each in definitions} - self._definitions.keys()
        self._end_without(lost)
        answered: list[AttemptReport] = []
        for order in orders:
            attempt = order.attempt
            known = self._held.get(attempt.job_id)
            if known is not None:
                if attempt not in known:
                    known.append(attempt)
                    if (wanted := self._wanted.get(attempt.job_id)) is not None:
                        wanted.append(attempt)
            elif (recent := self._recent.get(attempt.job_id)) is not None:
                answered.append(replace(recent, attempt=attempt))
            elif order.spec.definition in lost:
                answered.append(AttemptReport(attempt, Outcome.DEFINITION_LOST, message="what it runs is lost"))
            else:
                self._held[attempt.job_id] = [attempt]
                self._waiting[attempt] = order
        self._append(answered)
        for run in list(self._runs.values()):
            self._begin(run)
        self._fill_slots()

    def _end_without(self, lost: set[str]) -> None:
        """End the attempts that need a lost definition and have not begun."""
        for order in [each for each in self._waiting.values() if each.spec.definition in lost]:
            del self._waiting[order.attempt]
            self._deliver(AttemptReport(order.attempt, Outcome.DEFINITION_LOST, message="what it runs is lost"))
        for run in list(self._runs.values()):
            if run.order.spec.definition in lost and run.running and not run.begun and run.timer is not None:
                run.timer.cancel()
                self._end(run, Outcome.DEFINITION_LOST)

    def stop(self, term: int, attempts: Sequence[AttemptId], recalled: Sequence[AttemptId] = ()) -> None:
        """See `NodeCalls.stop`."""
        self._accept_term("stop", term)
        not_begun = [each for each in recalled if self._held.get(each.job_id, [each])[0] in self._waiting]
        for attempt in (*attempts, *not_begun):
            known = self._held.get(attempt.job_id, [])
            wanted = self._wanted.get(attempt.job_id, known)
            if attempt not in wanted:
                continue
            if len(wanted) > 1:
                self._wanted[attempt.job_id] = [each for each in wanted if each != attempt]
            elif self._waiting.pop(known[0], None) is not None:
                self._deliver(AttemptReport(known[0], Outcome.CANCELLED, message="cancelled"))
            elif (run := self._runs.get(known[0])) is not None and run.running and run.timer is not None:
                run.timer.cancel()
                run.timer = self._loop.call_later(GRACE_S, self._end, run, Outcome.CANCELLED)

    async def reports(self, term: int, after: int, settled: int, wait_s: float) -> NodeReply:
        """See `NodeCalls.reports`."""
        self._accept_term("reports", term)
        if not self._first <= after <= self._last:
            wait_s = 0.0 if after else wait_s
            after, settled = self._first, 0
        while self._reports and self._reports[0][0] <= settled:
            self._witness.settled(self, self._reports.popleft()[1])
        if wait_s > 0 and self._last <= after:
            poll: asyncio.Future[None] = self._loop.create_future()
            self._polls.append(poll)
            timer = self._loop.call_later(wait_s, _wake, poll)
            await poll
            timer.cancel()
        fresh = tuple(report for number, report in self._reports if number > after)
        self._witness.given(self, fresh)
        return NodeReply(self._state(), fresh, self._last)

    def configure(self, term: int, settings: GridSettings) -> None:
        """See `NodeCalls.configure`."""
        self._accept_term("configure", term)
        if settings.deployed_at > self.deployed_at:
            self._settings = settings

    def _accept_term(self, call: str, term: int) -> None:
        if term < self._term:
            raise StaleTermError(f"node {self.node_id} follows term {self._term}; an order of term {term} is void")
        self._term = term
        self._witness.accepted(self, call, term)

    def _state(self) -> NodeState:
        started = [attempts for attempts in self._held.values() if attempts[0] not in self._waiting]
        waiting = [attempts for attempts in self._held.values() if attempts[0] in self._waiting]
        running = tuple(attempt for attempts in (*started, *waiting) for attempt in attempts)
        return NodeState(
            self.node_id,
            self.incarnation,
            self.slots,
            running,
            sum(map(len, waiting)),
            marker="marker",
            deployed_at=self.deployed_at,
            lacks=self._lacks(),
        )

    # --- runs ---------------------------------------------------------------------------------------------------

    def _fill_slots(self) -> None:
        while self._waiting and self.running < self.slots:
            attempt, order = self._waiting.popitem(last=False)
            run = self._runs[attempt] = _Run(order, None, self._loop.time())
            run.timer = self._loop.call_later(WAIT_S, self._end, run, Outcome.INFRASTRUCTURE)
            self._begin(run)
        if self._lacks():
            self._wake_polls()

    def _lacks(self) -> tuple[str, ...]:
        orders = [run.order for run in self._runs.values() if not run.begun] + list(self._waiting.values())
        wanted = dict.fromkeys(order.spec.definition for order in orders if order.spec.definition)
        return tuple(digest for digest in wanted if digest not in self._definitions)

    def _begin(self, run: _Run) -> None:
        """Spawn the pricer, once what it is to run is here."""
        version = self._version_of(run.order)
        if run.begun or not run.running or version is None or run.timer is None:
            return
        run.timer.cancel()
        run.begun, run.started_at = True, self._loop.time()
        kind, seconds = run.order.spec.args
        work: Callable[..., object] = self._end
        how: Outcome | None = Outcome.EXITED
        if kind == "kill":
            work, how = self._kill, None
        run.timer = self._loop.call_later(float(seconds), work, run, how)
        self._witness.started(self, run.order.attempt, version)

    def _version_of(self, order: AttemptOrder) -> str | None:
        """The version of what an attempt runs; None while that is not known here."""
        definition = self._definitions.get(order.spec.definition)
        return None if definition is None else str(json.loads(definition.body)["version"])

    def _kill(self, run: _Run, _: object) -> None:
        self._witness.killer(self, run.order.attempt)

    def _end(self, run: _Run, outcome: Outcome) -> None:
        """The pricer is gone; its result has to be stored before it is reported."""
        run.running = False
        storing_s = (0.002 + self.disk_slow_s) * self._random.random()
        self._loop.call_later(storing_s, self._stored, run, outcome)
        self._fill_slots()

    def _stored(self, run: _Run, outcome: Outcome) -> None:
        attempt = run.order.attempt
        kind = run.order.spec.args[0]
        del self._runs[attempt]
        if outcome is Outcome.CANCELLED:
            self._deliver(AttemptReport(attempt, outcome, message="cancelled"))
            return
        if outcome in (Outcome.INFRASTRUCTURE, Outcome.DEFINITION_LOST):
            self._deliver(AttemptReport(attempt, outcome, message="what it runs did not come"))
            return
        if kind == "large" and self.running:
            # It ran out of memory because of what runs beside it.
            self._deliver(AttemptReport(attempt, Outcome.MEMORY_PRESSURE, message="it is too large"))
            return
        if self.disk_full:
            self._deliver(AttemptReport(attempt, Outcome.DISK_FULL, message="the disk is full"))
            return
        exit_code = FAILED if kind == "fail" else RETRIED if kind == "again" and attempt.number == 1 else 0
        key = f"results/{attempt.job_id}/{attempt.number}-{self.incarnation}"
        result = BlobSlice(key, 0, 100, key)
        started_at, ended_at = self._instant(run.started_at), self._instant(self._loop.time())
        report = AttemptReport(attempt, outcome, exit_code, result=result, started_at=started_at, ended_at=ended_at)
        self._deliver(report)

    @staticmethod
    def _instant(at: float) -> datetime:
        return EPOCH + timedelta(seconds=at)

    # --- ends of attempts ---------------------------------------------------------------------------------------

    def _deliver(self, report: AttemptReport) -> None:
        self._remember(report)
        same_end = self._held.pop(report.attempt.job_id, [report.attempt])
        self._wanted.pop(report.attempt.job_id, None)
        self._append([replace(report, attempt=attempt) for attempt in same_end])

    def _append(self, reports: Sequence[AttemptReport]) -> None:
        for report in reports:
            self._last += 1
            self._reports.append((self._last, report))
            self._witness.ended(self, report)
        if reports:
            self._wake_polls()

    def _wake_polls(self) -> None:
        polls, self._polls = self._polls, []
        for poll in polls:
            _wake(poll)

    def _remember(self, report: AttemptReport) -> None:
        if report.outcome in INFRASTRUCTURE_OUTCOMES or report.outcome is Outcome.CANCELLED:
            return
        if report.exit_code != RETRIED:
            self._recent[report.attempt.job_id] = report


def _wake(poll: asyncio.Future[None]) -> None:
    if not poll.done():
        poll.set_result(None)
