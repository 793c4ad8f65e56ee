"""Planted bugs, which the simulation must find: each takes one safeguard out of the code under test.

They prove that a clean run means something. Product code has no switch for them: they are patched in and out here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from raygrid.core.access import Caller
from raygrid.core.group.backlog import Backlog
from raygrid.core.group.events import AttemptOrder
from raygrid.core.group.placement import NodeRecord
from raygrid.core.group.retry import JobRetryPolicy
from raygrid.core.group.state import GroupState
from raygrid.core.lease import Lease
from raygrid.errors import UnavailableError
from raygrid.leader import dispatch
from raygrid.leader.dispatch import Leader
from raygrid.leader.election import RENEW_S, Candidate
from raygrid.leader.node_conversation import NodeConversation
from raygrid.leader.outbox import Outbox
from raygrid.leader.policy import fresh_state
from raygrid.models import AttemptReport, Definition, JobState, JobUpdate, NewJob
from raygrid.parent.service import Parent, Submitted
from raygrid.settings.model import GridSettings
from raygrid.store.port import Inserted
from tests.simulation.memory_store import MemoryStore
from tests.simulation.nodes import SimulatedAgent

Patch = tuple[object, str, object]


def _no_term_check() -> list[Patch]:
    """The store takes the writes of every leader, whatever its term."""
    record = MemoryStore.record

    async def careless(self: MemoryStore, group_id: str, term: int, updates: Sequence[JobUpdate]) -> bool:
        lease = self._leases.get(group_id)
        return await record(self, group_id, lease.term if lease else term, updates)

    return [(MemoryStore, "record", careless)]


def _no_term_check_on_nodes() -> list[Patch]:
    """Nodes follow every order, whatever its term."""

    def accept(self: SimulatedAgent, call: str, term: int) -> None:
        self._term = term
        self._witness.accepted(self, call, term)

    return [(SimulatedAgent, "_accept_term", accept)]


def _answer_before_commit() -> list[Patch]:
    """A parent acknowledges a job while it still inserts it."""
    under_way: set[asyncio.Future[Any]] = set()

    async def submit(self: Parent, job: NewJob, _caller: Caller) -> Submitted:
        routed = replace(job, group_id=self.groups.routing.choose(job.affinity, job.site))
        insert = asyncio.ensure_future(self._inserts.put(routed))
        insert.add_done_callback(lambda task: task.cancelled() or task.exception())
        under_way.add(insert)
        return Submitted(job.spec.job_id, JobState.QUEUED, True)

    return [(Parent, "submit", submit)]


def _no_requeue() -> list[Patch]:
    """A job whose attempt failed for the grid's reasons is not queued again."""
    add = Backlog.add

    def forgetful(self: Backlog, job_id: str, priority: int, *, first: bool = False) -> None:
        if not first:
            add(self, job_id, priority)

    return [(Backlog, "add", forgetful)]


def _no_slot_limit() -> list[Patch]:
    """Leaders hand a node as many attempts as there are."""
    room = NodeRecord.room

    def endless(self: NodeRecord, now: float, prefetch_factor: int) -> int:
        return 1_000 if self.incarnation else room(self, now, prefetch_factor)

    return [(NodeRecord, "room", endless)]


def _no_slot_limit_on_nodes() -> list[Patch]:
    """Nodes run whatever they are handed at once."""
    fill = SimulatedAgent._fill_slots

    def fill_all(self: SimulatedAgent) -> None:
        slots, self.slots = self.slots, 1_000
        fill(self)
        self.slots = slots

    return [(SimulatedAgent, "_fill_slots", fill_all)]


def _share_kept_nodes() -> list[Patch]:
    """Leaders hand jobs to nodes that are kept for one job alone."""
    room = NodeRecord.room

    def shared(self: NodeRecord, now: float, prefetch_factor: int) -> int:
        kept, self.reserved_for = self.reserved_for, None
        try:
            return room(self, now, prefetch_factor)
        finally:
            self.reserved_for = kept

    return [(NodeRecord, "room", shared)]


def _no_quota() -> list[Patch]:
    """Leaders ignore their group's quota."""

    def without(settings: GridSettings, group_id: str) -> GroupState:
        state = fresh_state(settings, group_id)
        state.policy = replace(state.policy, quota=None)
        return state

    return [(dispatch, "fresh_state", without)]


def _settle_before_commit() -> list[Patch]:
    """A leader settles reports that are not committed yet."""

    def at_once(self: Outbox, action: Callable[[], None]) -> None:
        action()

    return [(Outbox, "afterwards", at_once)]


def _lead_beyond_lease() -> list[Patch]:
    """A leader goes on when it cannot renew its lease."""

    async def renew(self: Candidate, lease: Lease, asked_at: float) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            with contextlib.suppress(UnavailableError):
                await self._ask(lease.holder, RENEW_S)

    return [(Candidate, "_renew", renew)]


def _no_scan() -> list[Patch]:
    """A leader relies on the announcements of jobs."""

    async def scan(self: Leader) -> None:
        self._state.blobs = None

    return [(Leader, "_scan", scan)]


def _ends_change() -> list[Patch]:
    """The store lets a later report change the end of a job."""
    record = MemoryStore.record

    async def careless(self: MemoryStore, group_id: str, term: int, updates: Sequence[JobUpdate]) -> bool:
        lease = self._leases.get(group_id)
        for update in updates:
            row = self._rows.get(update.job_id)
            if row is not None and row.job.state.is_terminal and lease is not None and lease.term == term:
                row.job = replace(row.job, state=JobState.RUNNING)
        return await record(self, group_id, term, updates)

    return [(MemoryStore, "record", careless)]


def _any_input() -> list[Patch]:
    """The store takes another input under the jobId of a job that it has."""
    insert = MemoryStore.insert

    async def careless(
        self: MemoryStore, jobs: Sequence[NewJob], batch_id: str | None = None, owner: str = ""
    ) -> list[Inserted]:
        return [replace(answer, conflict=False) for answer in await insert(self, jobs, batch_id, owner)]

    return [(MemoryStore, "insert", careless)]


def _retry_failures() -> list[Patch]:
    """A pricer that fails is run again."""

    def wants(self: JobRetryPolicy, pricer: str, report: AttemptReport, charged: int) -> bool:
        return report.exit_code not in (None, 0) and charged < self.max_attempts

    return [(JobRetryPolicy, "wants_another", wants)]


def _endless_attempts() -> list[Patch]:
    """A job that takes its nodes down is run again without end."""

    def without(settings: GridSettings, group_id: str) -> GroupState:
        state = fresh_state(settings, group_id)
        state.policy = replace(state.policy, retry=replace(state.policy.retry, max_attempts=1_000))
        return state

    return [(dispatch, "fresh_state", without)]


def _run_what_is_configured() -> list[Patch]:
    """Nodes run the configured pricer when an attempt starts."""

    def version_of(self: SimulatedAgent, order: AttemptOrder) -> str:
        assert self._settings is not None
        return self._settings.pricers[order.spec.pricer].version

    return [(SimulatedAgent, "_version_of", version_of)]


def _send_no_definitions() -> list[Patch]:
    """Leaders send orders without definitions."""

    async def nothing(self: NodeConversation, orders: Sequence[AttemptOrder]) -> list[Definition]:
        return []

    return [(NodeConversation, "_needed", nothing)]


MUTANTS: dict[str, Callable[[], list[Patch]]] = {
    "no-term-check": _no_term_check,
    "no-term-check-on-nodes": _no_term_check_on_nodes,
    "answer-before-commit": _answer_before_commit,
    "no-requeue": _no_requeue,
    "no-slot-limit": _no_slot_limit,
    "no-slot-limit-on-nodes": _no_slot_limit_on_nodes,
    "no-quota": _no_quota,
    "share-kept-nodes": _share_kept_nodes,
    "settle-before-commit": _settle_before_commit,
    "lead-beyond-lease": _lead_beyond_lease,
    "no-scan": _no_scan,
    "ends-change": _ends_change,
    "any-input": _any_input,
    "retry-failures": _retry_failures,
    "endless-attempts": _endless_attempts,
    "run-what-is-configured": _run_what_is_configured,
    "send-no-definitions": _send_no_definitions,
}


def about(name: str) -> str:
    """What a mutant does, in a sentence."""
    return MUTANTS[name].__doc__ or name


@contextlib.contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Plant a bug, and take it out again; none where no name is given."""
    patches = MUTANTS[name]() if name is not None else []
    before = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in patches]
    for owner, attribute, value in patches:
        setattr(owner, attribute, value)
    try:
        yield
    finally:
        for owner, attribute, value in before:
            setattr(owner, attribute, value)
