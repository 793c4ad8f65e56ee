"""A simulated node: attempts occupy its slots for drawn run times, and it reports as the real agent does.

Reports are batched as in `raygrid.node.publisher` and `raygrid.node.agent`: results gather while attempts wait for a
slot, one poll at a time waits for reports, and its answer has all present ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from raygrid.core.group.events import AttemptOrder
from raygrid.models import AttemptId, AttemptReport, NodeState, Outcome
from raygrid.planner.clock import Agenda
from raygrid.transport.ports import NodeReply

STORE_S = 0.002  # time to store a result
GATHER_S = 0.1  # how long results gather while attempts wait for a slot


class ModelNode:
    """One node. Polls wait for `poll_s` at most; `started` is called with job and time when an attempt gets a slot."""

    __slots__ = (
        "_agenda", "_answer", "_ended", "_free", "_gathering", "_poll", "_poll_s", "_reports", "_run_time_s",
        "_running", "_slots", "_started", "_waiting", "node_id",
    )  # fmt: skip

    def __init__(
        self,
        node_id: str,
        slots: int,
        agenda: Agenda,
        poll_s: float,
        run_time_s: Callable[[str], float],
        started: Callable[[str, float], None],
    ) -> None:
        self.node_id = node_id
        self._slots = self._free = slots
        self._agenda = agenda
        self._poll_s = poll_s
        self._run_time_s = run_time_s
        self._started = started
        self._running: dict[AttemptId, float] = {}  # by start; includes attempts whose result is being stored
        self._waiting: deque[AttemptId] = deque()
        self._ended: list[AttemptReport] = []  # results are being stored
        self._gathering = False
        self._reports: list[AttemptReport] = []
        self._poll = 0
        self._answer: Callable[[NodeReply], None] | None = None  # answers the waiting poll

    def start(self, orders: Sequence[AttemptOrder]) -> None:
        """See `NodeCalls.start`."""
        self._waiting.extend(order.attempt for order in orders)
        self._fill_slots()

    def stop(self, attempts: Sequence[AttemptId]) -> None:
        """See `NodeCalls.stop`."""
        stopped = False
        for attempt in attempts:
            if attempt in self._waiting:
                self._waiting.remove(attempt)
                self._reports.append(AttemptReport(attempt, Outcome.CANCELLED))
                stopped = True
        if stopped:
            self._reply()

    def poll(self, wait: bool, answer: Callable[[NodeReply], None]) -> None:
        """See `NodeCalls.reports`."""
        self._answer = answer
        self._poll += 1
        if self._reports or not wait:
            self._reply()
        else:
            self._agenda.after(self._poll_s, self._timed_out, self._poll)

    def _timed_out(self, poll: int) -> None:
        if poll == self._poll:
            self._reply()

    def _reply(self) -> None:
        if self._answer is None:
            return
        answer, self._answer = self._answer, None
        waiting = len(self._waiting)
        state = NodeState(self.node_id, "life", self._slots, (*self._running, *self._waiting), waiting)
        reports, self._reports = tuple(self._reports), []
        answer(NodeReply(state, reports, 0))

    def _fill_slots(self) -> None:
        now = self._agenda.now
        while self._waiting and self._free:
            attempt = self._waiting.popleft()
            self._free -= 1
            self._running[attempt] = now
            self._started(attempt.job_id, now)
            self._agenda.after(self._run_time_s(attempt.job_id), self._end, attempt)

    def _end(self, attempt: AttemptId) -> None:
        began, now = datetime.fromtimestamp(self._running[attempt], UTC), datetime.fromtimestamp(self._agenda.now, UTC)
        self._ended.append(AttemptReport(attempt, Outcome.EXITED, 0, started_at=began, ended_at=now))
        self._free += 1
        self._fill_slots()
        if not self._gathering:
            self._gathering = True
            self._agenda.after(GATHER_S if self._waiting else STORE_S, self._stored)

    def _stored(self) -> None:
        self._gathering = False
        for report in self._ended:
            del self._running[report.attempt]
        self._reports += self._ended
        self._ended = []
        self._reply()
