"""A simulated leader: the real `GroupState`, whose commands are carried out as in `raygrid.leader`, and its queue.

A job that waits in the store is only a number. Its object exists from when the leader loads it until it ends.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence

from raygrid.core.group.events import (
    AttemptOrder,
    Command,
    Event,
    HandOverEnded,
    JobsArrived,
    NodeReported,
    NodesExpected,
    StartAttempts,
    StopAttempts,
    Tick,
    WriteUpdates,
)
from raygrid.core.group.policy import GroupPolicy
from raygrid.core.group.state import GroupState
from raygrid.models import AttemptId, BlobSlice, GroupCapacity, JobSpec, QueuedJob
from raygrid.planner.clock import Agenda
from raygrid.planner.node import ModelNode
from raygrid.transport.ports import NodeReply

CALL_S = 0.001  # one way of a call between two parts
COMMIT_S = 0.005
READ_S, READ_ROW_S = 0.005, 5e-6  # a scan of the store, and each row in it
SPARE_ROWS = 2_000  # read beyond the window, as by `raygrid.leader.dispatch`
PRICER = "model"
INPUT = BlobSlice("", 0, 0, "")


class Meter:
    """CPU time spent in deciding code, and the number of decisions."""

    __slots__ = ("count", "ns")

    def __init__(self) -> None:
        self.ns = 0
        self.count = 0

    @property
    def each_us(self) -> float:
        """Microseconds per decision."""
        return self.ns / 1000 / self.count if self.count else 0.0


class ModelGroup:
    """A group with its leader.

    Args:
        policy: its policy.
        agenda: its clock and steps, not shared with other groups, so that groups can take turns.
        placement: measures placing, including the reports that are needed for it.
        watching: measures ticks, and replies of nodes without reports.
        tick_s: interval of ticks.
        ended: called for every ended job with the time of its commit.
        news: called when the group's load has changed.
    """

    def __init__(
        self,
        group_id: str,
        policy: GroupPolicy,
        agenda: Agenda,
        placement: Meter,
        watching: Meter,
        tick_s: float,
        ended: Callable[[str, float], None],
        news: Callable[[ModelGroup], None],
    ) -> None:
        self.group_id = group_id
        self._state = GroupState(group_id, policy)
        self.agenda = agenda
        self._placement = placement
        self._watching = watching
        self._tick_s = tick_s
        self._ended = ended
        self._news = news
        self._nodes: dict[str, ModelNode] = {}
        self._orders: dict[str, list[AttemptOrder]] = {}  # by node, while a hand-over is under way
        self._queue: array[int] = array("I")  # jobs in the store, in order
        self._head = 0  # the leader has loaded the jobs before this index
        self._scanning = False

    def open(self, nodes: Sequence[ModelNode]) -> None:
        """Connect to the nodes, which must be idle."""
        self._nodes = {node.node_id: node for node in nodes}
        self._decide(NodesExpected(tuple(self._nodes)), self._watching)
        for node in nodes:
            self._poll(node, wait=False)
        self._tick()

    @property
    def beyond(self) -> int:
        """The number of jobs that are only in the store."""
        return len(self._queue) - self._head

    def capacity(self) -> GroupCapacity:
        """The load that the leader reports to parents."""
        return self._state.capacity(self.agenda.now, queued=self._state.queued + self.beyond)

    def _tick(self) -> None:
        self._decide(Tick(), self._watching)
        self.agenda.after(self._tick_s, self._tick)

    def insert(self, jobs: Sequence[int], at: float) -> None:
        """Store jobs, and announce them to the leader."""
        self._queue.extend(jobs)
        self.agenda.at(at + CALL_S, self._announced, len(self._queue) - len(jobs), len(self._queue))

    def _announced(self, first: int, last: int) -> None:
        if first <= self._head:  # otherwise it refused earlier jobs, and loads these with a scan
            self._take_up(self._head, last, scanned=False)
        self._look_for_more()

    def _take_up(self, first: int, last: int, *, scanned: bool) -> None:
        jobs = tuple(_job(number) for number in self._queue[first:last])
        if not jobs:
            return
        self._decide(JobsArrived(jobs, scanned), self._placement)
        self._head += sum(job.spec.job_id in self._state for job in jobs)

    def _look_for_more(self) -> None:
        if self.beyond and not self._scanning and self._state.wants_more:
            self._scanning = True
            self.agenda.after(READ_S + READ_ROW_S * min(self.beyond, self._limit), self._scanned)

    @property
    def _limit(self) -> int:
        return self._state.policy.window + SPARE_ROWS

    def _scanned(self) -> None:
        self._scanning = False
        self._take_up(self._head, min(self._head + self._limit, len(self._queue)), scanned=True)

    def _decide(self, event: Event, meter: Meter) -> None:
        began = time.perf_counter_ns()
        commands = self._state.handle(event, self.agenda.now)
        meter.ns += time.perf_counter_ns() - began
        self._carry_out(commands)
        if self.beyond and not self._scanning:
            self._look_for_more()

    def _carry_out(self, commands: Sequence[Command]) -> None:
        agenda = self.agenda
        for command in commands:
            match command:
                case WriteUpdates(updates):
                    over = [update.job_id for update in updates if update.state.is_terminal]
                    agenda.after(COMMIT_S, self._committed, over)
                case StartAttempts(node_id, orders):
                    self._placement.count += len(orders)
                    if (gathered := self._orders.get(node_id)) is not None:
                        gathered.extend(orders)  # sent with the next hand-over
                    else:
                        self._hand_over(self._nodes[node_id], orders)
                case StopAttempts(node_id, attempts):
                    agenda.after(CALL_S, self._nodes[node_id].stop, attempts)

    def _committed(self, over: Sequence[str]) -> None:
        for job_id in over:
            self._ended(job_id, self.agenda.now)
        self._news(self)

    def _hand_over(self, node: ModelNode, orders: Sequence[AttemptOrder]) -> None:
        self._orders[node.node_id] = []
        self.agenda.after(CALL_S, self._handed_over, node, orders)

    def _handed_over(self, node: ModelNode, orders: Sequence[AttemptOrder]) -> None:
        node.start(orders)
        self.agenda.after(CALL_S, self._hand_over_ended, node, tuple(order.attempt for order in orders))

    def _hand_over_ended(self, node: ModelNode, attempts: tuple[AttemptId, ...]) -> None:
        gathered = self._orders.pop(node.node_id)
        if gathered:
            self._hand_over(node, gathered)
        self._decide(HandOverEnded(node.node_id, attempts, arrived=True), self._placement)

    def _poll(self, node: ModelNode, *, wait: bool = True) -> None:
        asked_at, agenda = self.agenda.now, self.agenda

        def answer(reply: NodeReply) -> None:
            agenda.after(CALL_S, self._reported, node, reply, asked_at)

        agenda.after(CALL_S, node.poll, wait, answer)

    def _reported(self, node: ModelNode, reply: NodeReply, asked_at: float) -> None:
        meter = self._placement if reply.reports else self._watching
        self._decide(NodeReported(reply.state, reply.reports, asked_at), meter)
        self._poll(node)


def _job(number: int) -> QueuedJob:
    return QueuedJob(JobSpec(str(number), PRICER, "", INPUT))
