"""The calls from one tier to another, each declared once, and the values that they return.

The decorator `call` gives each call its timeout; `calls.py` derives the caller's link, the actor's methods and the
fakes of tests from the Protocols. A call raises `UnavailableError` if it is not known whether it was carried out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from raygrid.core.group.events import AttemptOrder
from raygrid.models import (
    AttemptId,
    AttemptReport,
    Definition,
    DoneJob,
    GroupCapacity,
    JobSpec,
    JobState,
    NodeState,
    QueuedJob,
    travels,
)
from raygrid.settings.model import GridSettings
from raygrid.transport.calls import call

CALL_TIMEOUT_S = 5.0
ENQUEUE_TIMEOUT_S = 2.0  # a lost call costs little, and others wait behind it
RESULTS_TIMEOUT_S = 2.0
POLL_SLACK_S = 2.5  # beyond the time that the callee may wait


@travels
@dataclass(frozen=True, slots=True)
class NodeReply:
    """A node's answer to a poll.

    Attributes:
        state: the node as it is now.
        reports: ends of attempts that the asker has not seen.
        last: number of the latest report; the asker passes it as `after` next time.
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
        state: its new state; where another group has the job by now, only the store knows.
        done: the job itself, where it is done and the store is known to have it so; without it, the store has to be
            asked.
    """

    job_id: str
    state: JobState
    done: DoneJob | None = None


@travels
@dataclass(frozen=True, slots=True)
class LeaderReply:
    """A leader's answer to a parent's poll.

    Attributes:
        epoch: which life of which leader this is; numbers of another epoch mean nothing.
        last: number of the latest change.
        changes: committed changes after the number asked for.
        gap: whether older changes were left out, so that every waiter must look for itself.
        capacity: the group's load now.
        deployed_at: stamp of the settings that it leads by.
        term: in which term it leads; of two that claim to lead, the higher one does.
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
    """What a leader asks of a node agent."""

    @call(CALL_TIMEOUT_S)
    async def start(self, term: int, orders: Sequence[AttemptOrder], definitions: Sequence[Definition] = (), /) -> None:
        """Start attempts, with the definitions that the node may lack. An attempt that is sent twice runs once.

        A definition that the job store has lost is sent without a body: attempts that need it end at once, unless the
        node has it.
        """
        ...

    @call(CALL_TIMEOUT_S)
    async def stop(self, term: int, attempts: Sequence[AttemptId], /) -> None:
        """Kill attempts that the node still has."""
        ...

    @call(POLL_SLACK_S, waits="wait_s")
    async def reports(self, term: int, after: int, settled: int, wait_s: float, /) -> NodeReply:
        """Wait up to `wait_s` for reports numbered above `after`; the node may drop those up to `settled`."""
        ...

    @call(CALL_TIMEOUT_S)
    async def configure(self, term: int, settings: GridSettings, /) -> None:
        """Follow these settings, unless the node follows newer ones; running attempts are not changed.

        The settings must be `GridSettings.for_nodes`: nodes get no access to the job store.
        """
        ...


class CacheCalls(Protocol):
    """What a parent asks of the result cache of a node agent."""

    @call(RESULTS_TIMEOUT_S, direct=False)
    async def results(self, key: str, job_ids: Sequence[str], /) -> list[bytes | None]:
        """Results of jobs in the pack `key`; None for each that the cache does not have."""
        ...


class AgentCalls(NodeCalls, CacheCalls, Protocol):
    """Every call that a node agent answers."""


class LeaderCalls(Protocol):
    """What a parent asks of a candidate of a group, which leads it or stands by.

    A candidate that does not lead raises `NotLeadingError`; `changes` first waits for it to become the leader.
    """

    @call(ENQUEUE_TIMEOUT_S)
    async def enqueue(self, jobs: Sequence[JobSpec | QueuedJob], /) -> None:
        """Announce jobs that are in the store; a lost call costs a scan interval, never a job.

        Raises:
            GroupRefusedError: the group has no node that takes jobs; it keeps them until they are moved.
        """
        ...

    @call(CALL_TIMEOUT_S)
    async def forget(self, job_ids: Sequence[str], /) -> None:
        """Announce jobs that were moved to another group; a lost call costs at most one unneeded run of each."""
        ...

    @call(CALL_TIMEOUT_S)
    async def cancel(self, job_ids: Sequence[str], /) -> None:
        """Announce jobs whose cancellation was requested in the store."""
        ...

    @call(POLL_SLACK_S, waits="wait_s")
    async def changes(self, epoch: str, after: int, wait_s: float, /) -> LeaderReply:
        """Wait up to `wait_s` for changes numbered above `after`."""
        ...

    @call(CALL_TIMEOUT_S)
    async def configure(self, settings: GridSettings, /) -> None:
        """Lead by these settings, unless the leader has newer ones; running attempts are not changed.

        The settings must be `GridSettings.without_keys`.
        """
        ...

    @call(CALL_TIMEOUT_S)
    async def hand_over(self) -> None:
        """Write what is decided, step down, and leave the lease to another candidate for a while."""
        ...

    @call(CALL_TIMEOUT_S)
    async def stand(self) -> None:
        """Try to take the lease at once."""
        ...


class ResultCaches(Protocol):
    """The result caches of all nodes; payloads never pass through a leader."""

    async def results(self, address: str, key: str, job_ids: Sequence[str]) -> list[bytes | None]:
        """Results of jobs in a pack, from the node at `address`; None for each that is not there."""
        ...


class NodeDiscovery(Protocol):
    """Finds the nodes of one group, which join and leave at any time."""

    async def nodes(self) -> Mapping[str, NodeCalls]:
        """The nodes that are there now, by name, each with a running agent."""
        ...


class GroupDiscovery(Protocol):
    """Finds the groups of the grid, which join and leave at any time."""

    async def groups(self) -> Mapping[str, Sequence[LeaderCalls]]:
        """The groups that are there now, each with its candidates."""
        ...
