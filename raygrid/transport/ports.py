"""The calls from one tier to another, each declared once, and the values that they return.

The decorator `call` gives each call its timeout; `calls.py` derives the caller's link, the actor's methods and the
fakes of tests from the Protocols. A call raises `UnavailableError` if it is unknown whether it was carried out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from raygrid.core.group.events import AttemptOrder
from raygrid.core.travelling import travels
from raygrid.models import (
    AttemptId,
    AttemptReport,
    Definition,
    DoneJob,
    GroupCapacity,
    JobState,
    NodeState,
    QueuedJob,
)
from raygrid.settings.model import GridSettings
from raygrid.transport.calls import call

CALL_TIMEOUT_S = 5.0
ENQUEUE_TIMEOUT_S = 2.0  # a lost call costs little, and later jobs wait for this one to end
RESULTS_TIMEOUT_S = 2.0
POLL_SLACK_S = 2.5  # added to the time that the callee may wait


@travels
@dataclass(frozen=True, slots=True)
class NodeReply:
    """A node's answer to a poll.

    Attributes:
        state: the node's present state.
        reports: ends of attempts that the caller has not seen.
        last: number of the latest report; the caller passes it as `after` next time.
    """

    state: NodeState
    reports: tuple[AttemptReport, ...]
    last: int


@travels
@dataclass(frozen=True, slots=True)
class JobChange:
    """A committed change of a job.

    Attributes:
        job_id: the job.
        state: its new state; if another group has the job by now, only the store knows.
        done: the job, if it is done and that is known to be stored; if None, read the store.
    """

    job_id: str
    state: JobState
    done: DoneJob | None = None


@travels
@dataclass(frozen=True, slots=True)
class LeaderReply:
    """A leader's answer to a parent's poll.

    Attributes:
        epoch: identifies this run of this leader; numbers of different epochs cannot be compared.
        last: number of the latest change.
        changes: committed changes after the requested number.
        gap: whether older changes are missing, so that every waiter must read the store.
        capacity: the group's present load.
        deployed_at: stamp of the settings that it uses.
        term: the leader's term; of two that claim to lead, the one with the higher term does.
        leader: its name among the candidates.
    """

    epoch: str
    last: int
    changes: tuple[JobChange, ...]
    gap: bool
    capacity: GroupCapacity
    deployed_at: float = 0.0
    term: int = 0
    leader: str = ""


class NodeCalls(Protocol):
    """The calls of a leader to a node agent."""

    @call(CALL_TIMEOUT_S)
    async def start(self, term: int, orders: Sequence[AttemptOrder], definitions: Sequence[Definition] = (), /) -> None:
        """Start attempts, with the pricer definitions that the node may lack. An attempt that is sent twice runs once.

        A definition that the job store has lost is sent without a body: attempts that need it end at once, unless the
        node still has it.
        """

    @call(CALL_TIMEOUT_S)
    async def stop(self, term: int, attempts: Sequence[AttemptId], recalled: Sequence[AttemptId] = (), /) -> None:
        """Kill attempts, if the node still has them; end those of `recalled` that have not begun."""

    @call(POLL_SLACK_S, waits="wait_s")
    async def reports(self, term: int, after: int, settled: int, wait_s: float, /) -> NodeReply:
        """Wait up to `wait_s` for reports numbered above `after`; the node may drop those up to `settled`."""

    @call(CALL_TIMEOUT_S, direct=False)
    async def configure(self, term: int, settings: GridSettings, /) -> None:
        """Use these settings, unless the node has newer ones; running attempts are not changed.

        The settings must be `GridSettings.for_nodes`: nodes get no access to the job store.
        """


class CacheCalls(Protocol):
    """The calls of a parent to the result cache of a node agent."""

    @call(RESULTS_TIMEOUT_S, direct=False)
    async def results(self, key: str, job_ids: Sequence[str], /) -> list[bytes | None]:
        """Results of jobs in the pack `key`; None for each that is not cached."""


class AgentCalls(NodeCalls, CacheCalls, Protocol):
    """Every call that a node agent answers."""


class LeaderCalls(Protocol):
    """The calls of a parent to a group's candidate, the leader or the standby.

    A candidate that does not lead raises `NotLeadingError`; `changes` first waits until the candidate leads.
    """

    @call(ENQUEUE_TIMEOUT_S)
    async def enqueue(self, jobs: Sequence[QueuedJob], /) -> None:
        """Announce jobs that are in the store; a lost call delays them by a scan interval.

        Raises:
            GroupRefusedError: the group has no node that accepts jobs; it keeps them until they are moved.
        """

    @call(CALL_TIMEOUT_S)
    async def forget(self, job_ids: Sequence[str], /) -> None:
        """Announce jobs that were moved to another group; a lost call causes at most one unneeded run of each."""

    @call(CALL_TIMEOUT_S)
    async def cancel(self, job_ids: Sequence[str], /) -> None:
        """Announce jobs whose cancellation was requested in the store."""

    @call(POLL_SLACK_S, waits="wait_s")
    async def changes(self, epoch: str, after: int, wait_s: float, /) -> LeaderReply:
        """Wait up to `wait_s` for changes numbered above `after`."""

    @call(CALL_TIMEOUT_S, direct=False)
    async def configure(self, settings: GridSettings, /) -> None:
        """Use these settings, unless the leader has newer ones; running attempts are not changed.

        The settings must be `GridSettings.without_keys`.
        """

    @call(CALL_TIMEOUT_S)
    async def hand_over(self) -> None:
        """Write all decisions, step down, and do not compete for the lease for a while."""

    @call(CALL_TIMEOUT_S)
    async def stand(self) -> None:
        """Try to take the lease at once."""


class ResultCaches(Protocol):
    """The result caches of all nodes; payloads never pass through a leader."""

    async def results(self, address: str, key: str, job_ids: Sequence[str]) -> list[bytes | None]:
        """Results of jobs in the pack `key`, from the node at `address`; None for each that is not cached."""


class NodeDiscovery(Protocol):
    """Finds the nodes of one group, which join and leave at any time."""

    async def nodes(self) -> Mapping[str, NodeCalls]:
        """The present nodes by name, each with a running agent."""


class GroupDiscovery(Protocol):
    """Finds the groups of the grid, which join and leave at any time."""

    async def groups(self) -> Mapping[str, Sequence[LeaderCalls]]:
        """The present groups, each with its candidates."""
