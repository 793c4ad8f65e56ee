"""Invariants: checked when something is committed, started, settled or answered, and ten times a second.

A violation is recorded, not raised: product code catches errors, and must not be able to catch this one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from raygrid.core.lease import Lease
from raygrid.core.lifecycle import MOVES
from raygrid.drill.history import check
from raygrid.errors import UnavailableError
from raygrid.leader.dispatch import Leader
from raygrid.leader.election import TTL_S
from raygrid.models import INFRASTRUCTURE_OUTCOMES, AttemptId, AttemptReport, DoneJob, JobState, Outcome, StoredJob
from tests.simulation.nodes import RETRIED, SimulatedAgent
from tests.simulation.world import World

THAW_S = 3.5  # a leader that was frozen may need so long to notice that its term is over


@dataclass(frozen=True, slots=True)
class Violation:
    """The invariant that does not hold, and how it showed."""

    invariant: str
    detail: str


class Watch(logging.Handler):
    """Looks at everything that happens in a grid; as a log handler, also for errors that product code did not expect.

    Attributes:
        violation: the first one, if any.
        runs: by job, how often its pricer was started.
        terms: by group, the latest term.
    """

    def __init__(self, grid: World) -> None:
        super().__init__(logging.ERROR)
        self._grid = grid
        self._loop = grid.loop
        self.violation: Violation | None = None
        self.runs: Counter[str] = Counter()
        self.terms: dict[str, int] = {}
        self.stored: set[str] = set()  # keys of results that nodes have stored
        self._granted: dict[tuple[str, int], float] = {}  # by holder and term: when the lease was last renewed
        self._followed: dict[str, int] = {}  # by agent's life: the latest term
        self._seen: dict[str, StoredJob | DoneJob] = {}  # ends that clients have seen
        self._came: dict[str, float] = {}  # by job: when it was last moved
        self._given: dict[tuple[str, AttemptId], float] = {}  # by agent's life: when a report was last given out
        self._ordered: dict[int, tuple[Leader, set[AttemptId]]] = {}  # by leader: what it handed over

    def fail(self, invariant: str, detail: str) -> None:
        """Record a violation; the first one counts."""
        if self.violation is None and not self._grid.network.over:
            self.violation = Violation(invariant, detail)
            self._grid.trace(f"VIOLATION {invariant}: {detail}")
            self._grid.trace.close()
            self._loop.stop()

    def emit(self, record: logging.LogRecord) -> None:
        """An error that the code did not expect."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, asyncio.CancelledError):
            self.fail("no unexpected errors", f"{record.getMessage()}: {error!r}")

    # --- the store ----------------------------------------------------------------------------------------------

    def recorded(self, group_id: str, term: int, lease: Lease | None) -> None:
        """A leader's write was committed."""
        if lease is None or lease.term != term:
            current = lease.term if lease else None
            self.fail("no write of a stale term", f"{group_id}: committed under term {term}, current is {current}")

    def leased(self, before: Lease | None, lease: Lease) -> None:
        """A lease was given or renewed."""
        latest = self.terms.get(lease.group_id, 0)
        fresh = before is None or before.holder != lease.holder
        if lease.term < latest or (fresh and lease.term == latest):
            self.fail("terms rise", f"{lease.holder} got term {lease.term} after {latest}")
        if lease.term > latest:
            holder = "a parent" if lease.holder.startswith("parent/") else lease.holder  # those are named at random
            self._grid.trace(f"term {lease.term} of {lease.group_id} for {holder}")
        self.terms[lease.group_id] = lease.term
        self._granted[lease.holder, lease.term] = self._loop.time()

    def changed(self, before: StoredJob | None, after: StoredJob) -> None:
        """A transaction left a job like this."""
        grid, job_id = self._grid, after.job_id
        grid.trace(f"job {job_id} {after.state} attempt {after.attempts} on {after.node_id} {after.reason or ''}")
        if before is None:
            if after.state is not JobState.QUEUED:
                self.fail("jobs begin as queued", f"job {job_id} began as {after.state}")
            return
        if before.state.is_terminal:
            self.fail("ends are final", f"job {job_id} was {_brief(before)} and became {_brief(after)}")
        elif after.state is not before.state and after.state not in MOVES[before.state]:
            self.fail("legal moves only", f"job {job_id} went from {before.state} to {after.state}")
        if after.group_id != before.group_id:
            self._came[job_id] = self._loop.time()
        if before.fingerprint != after.fingerprint:
            self.fail("same jobId, same job", f"job {job_id} became another job")
        if (failures := grid.database.failures(job_id)) > grid.max_attempts:
            self.fail("attempts are bounded", f"job {job_id} has {failures} failures; {grid.max_attempts} are allowed")
        if after.state.is_terminal:
            self._ended(after)

    def _ended(self, job: StoredJob) -> None:
        kind = self._grid.kinds[job.job_id]
        if job.state is JobState.DONE:
            result = job.result.key if job.result else ""
            if not result.startswith(f"results/{job.job_id}/") or job.exit_code != 0:
                self.fail("one attempt's result", f"job {job.job_id} is done with {result!r} and {job.exit_code}")
            if result not in self.stored:
                self.fail("results are there", f"job {job.job_id} is done, but {result!r} was never stored")
            if kind in ("fail", "kill"):
                self.fail("a pricer's answer counts", f"job {job.job_id} is done though its pricer fails")
        if job.state is JobState.CANCELLED and job.job_id not in self._grid.cancelled:
            self.fail("only clients cancel", f"job {job.job_id} is cancelled, which nobody asked for")
        asked_again = kind == "again" and job.job_id in self._grid.cancelled  # a cancelled job is not run once more
        if job.reason == "exit_code" and kind != "fail" and not asked_again:
            self.fail("a pricer's answer counts", f"job {job.job_id} failed with {job.exit_code}, its pricer does not")

    # --- leaders ------------------------------------------------------------------------------------------------

    def leads(self, leader: Leader, ordered: set[AttemptId]) -> None:
        """A leader begins; `ordered` will be what it hands over."""
        self._ordered[id(leader)] = (leader, ordered)

    # --- nodes --------------------------------------------------------------------------------------------------

    def accepted(self, agent: SimulatedAgent, call: str, term: int) -> None:
        """An agent followed an order of a term."""
        latest = self._followed.get(agent.incarnation, 0)
        if term < latest:
            self.fail("nodes ignore old terms", f"{agent.node_id} took {call} of term {term} after one of {latest}")
        self._followed[agent.incarnation] = max(latest, term)

    def started(self, agent: SimulatedAgent, attempt: AttemptId, version: str) -> None:
        """A pricer of this version runs."""
        submitted = self._grid.database.jobs()[attempt.job_id].version
        if version != submitted:
            where = f"job {attempt.job_id} was submitted with version {submitted}, {agent.node_id} runs {version}"
            self.fail("what was submitted is what runs", where)
        self._grid.trace(f"run {attempt.job_id}/{attempt.number} on {agent.incarnation}")
        self.runs[attempt.job_id] += 1
        if self._grid.calm and agent.running > 1:
            again = [each.job_id for each in agent.begun if self.runs[each.job_id] > 1]
            if alone := [job_id for job_id in again if self._grid.kinds[job_id] == "large"]:
                self.fail("what met memory pressure runs alone", f"{alone[0]} does not on {agent.node_id}")
        if agent.running > (slots := self._grid.slots):
            self.fail("no more runs than slots", f"{agent.node_id} runs {agent.running} and has {slots} slots")
        most = 2 if self._grid.kinds[attempt.job_id] in ("again", "large") else 1
        if self._grid.calm and self._grid.no_prefetch and self.runs[attempt.job_id] > most:
            self.fail("nothing runs twice without a fault", f"job {attempt.job_id} runs again on {agent.node_id}")

    def ended(self, agent: SimulatedAgent, report: AttemptReport) -> None:
        """A report can be fetched."""
        attempt = report.attempt
        self._grid.trace(f"end {attempt.job_id}/{attempt.number} on {agent.incarnation} {report.outcome}")
        if report.result is not None:
            self.stored.add(report.result.key)

    def given(self, agent: SimulatedAgent, reports: Sequence[AttemptReport]) -> None:
        """Reports go out to a leader."""
        for report in reports:
            self._given[agent.incarnation, report.attempt] = self._loop.time()

    def settled(self, agent: SimulatedAgent, report: AttemptReport) -> None:
        """A report is dropped. One of a job that was another group's when the leader got it is no answer."""
        attempt = report.attempt
        given_at = self._given.pop((agent.incarnation, attempt), 0.0)
        self._grid.trace(f"settled {attempt.job_id}/{attempt.number} on {agent.incarnation}")
        job = self._grid.database.jobs()[attempt.job_id]
        own = job.group_id == self._grid.group_of(agent.node_id) and self._came.get(attempt.job_id, 0.0) <= given_at
        if is_answer(report) and not job.state.is_terminal and own:
            where = f"job {attempt.job_id} is {job.state}, attempt {attempt.number} of it answered on {agent.node_id}"
            self.fail("commit before settle", f"{where}, and the answer is forgotten")

    def killer(self, agent: SimulatedAgent, attempt: AttemptId) -> None:
        """A pricer takes its agent down."""
        self._grid.trace(f"killer {attempt.job_id}/{attempt.number} on {agent.incarnation}")
        self._grid.killer(agent)

    # --- clients ------------------------------------------------------------------------------------------------

    def acked(self, job_id: str, fingerprint: str) -> None:
        """A client got the acknowledgement of its job."""
        job = self._grid.database.jobs().get(job_id)
        if job is None:
            self.fail("acknowledged jobs are stored", f"job {job_id} was acknowledged and is not in the store")
        elif job.fingerprint != fingerprint:
            self.fail("same jobId, same job", f"another job was acknowledged under the id {job_id}")

    def seen(self, job: StoredJob | DoneJob, asked_at: float) -> None:
        """A client got the status of a job."""
        now = self._loop.time()
        self._grid.history.saw(job.job_id, job.state, now, asked_at)
        if job.result is not None:
            self._grid.history.result(job.job_id, job.result.key, now)
        before = self._seen.get(job.job_id)
        if before is not None and not _alike(before, job):
            self.fail("ends are final", f"a client saw job {job.job_id} {_brief(before)}, later {_brief(job)}")
        if job.state.is_terminal:
            self._seen[job.job_id] = job

    # --- from time to time --------------------------------------------------------------------------------------

    def look(self) -> None:
        """Check what holds at every instant."""
        believers: dict[tuple[str, int], str] = {}
        now = self._loop.time()
        for group_id, holder, process, candidate in self._grid.candidates():
            if not process.runs:
                continue
            try:
                leader = candidate.leader
            except UnavailableError:
                continue
            term = leader._lease.term
            if (other := believers.setdefault((group_id, term), holder)) != holder:
                self.fail("one leader a term", f"{other} and {holder} both lead {group_id} in term {term}")
            late = now - self._granted[leader._lease.holder, term] - TTL_S
            if late > 0.01 and now - process.thawed_at > THAW_S:
                self.fail("no lead beyond the lease", f"{holder} leads {late:.2f} s after its lease of term {term}")
            self._look_at_leader(group_id, leader)

    def _look_at_leader(self, group_id: str, leader: Leader) -> None:
        for task in leader._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                self.fail("no unexpected errors", f"the leader of {group_id} goes on without {task}: {error!r}")
        ordered = self._ordered[id(leader)][1]
        quota, total = self._grid.quota(group_id), 0
        for node in leader._state.nodes.values():
            own = sum(attempt in ordered for attempt in node.held)
            total += own
            if own > self._grid.slots and (self._grid.no_prefetch or quota is not None):
                detail = f"{node.node_id} has {own} attempts of its leader and {self._grid.slots} slots"
                self.fail("no more orders than slots", detail)
        if quota is not None and total > quota:
            self.fail("no more orders than quota", f"{group_id} has {total} attempts; its quota is {quota}")

    def unfinished(self) -> list[str]:
        """What is still to come to an end: jobs, and what nodes and leaders hold of them."""
        jobs = self._grid.database.jobs()
        left = [f"job {job.job_id} is {_brief(job)}" for job in jobs.values() if not job.state.is_terminal]
        for agent in self._grid.agents():
            left += [f"{agent.node_id} has {each}" for each in agent.leftovers]
        for _, holder, process, candidate in self._grid.candidates():
            if process.runs:
                try:
                    left += [f"{holder} has job {job_id}" for job_id in candidate.leader._state._jobs]
                except UnavailableError:
                    continue
        return left

    def end(self) -> None:
        """Check what holds in the end."""
        jobs = self._grid.database.jobs()
        for broken in check(self._grid.history, {job_id: job.state for job_id, job in jobs.items()}):
            self.fail("what clients saw", str(broken))
        for job_id, job in self._seen.items():
            if not _alike(job, jobs[job_id]):
                self.fail("ends are final", f"a client saw job {job_id} {_brief(job)}, it is {_brief(jobs[job_id])}")


def is_answer(report: AttemptReport) -> bool:
    """Whether a report ends its job, whatever else happened to it."""
    if report.outcome in INFRASTRUCTURE_OUTCOMES or report.outcome is Outcome.CANCELLED:
        return False
    return report.exit_code != RETRIED


def _alike(one: StoredJob | DoneJob, other: StoredJob | DoneJob) -> bool:
    """Whether both look the same to a client; the report of an end does not have the whole job."""
    if isinstance(one, StoredJob) and isinstance(other, StoredJob) and one.attempts != other.attempts:
        return False
    return _visible(one) == _visible(other)


def _visible(job: StoredJob | DoneJob) -> tuple[object, ...]:
    return job.state, job.result, job.reason, job.exit_code, job.node_id


def _brief(job: StoredJob | DoneJob) -> str:
    result = job.result.key if job.result else "no result"
    attempts = f" attempt {job.attempts}" if isinstance(job, StoredJob) else ""
    return f"{job.state} ({job.reason or ''}{attempts} on {job.node_id}, {result})"
