"""What one tier may ask of another: the calls on each edge, and what they answer.

`links.py` implements these over Ray actors; tests connect the tiers directly or record the calls. Every call has a
timeout; one that fails without telling whether it was carried out raises `UnavailableError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from raygrid.config import GridSettings
from raygrid.core.events import AttemptOrder
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


class NodeLink(Protocol):
    """How a leader reaches a node agent."""

    async def start(self, term: int, orders: Sequence[AttemptOrder], definitions: Sequence[Definition] = ()) -> None:
        """Hand attempts over, with what they run as far as the node may lack it. One handed over twice runs once.

        Among the definitions may be lost ones: attempts that need them end at once where the node does not have them.
        """
        ...

    async def stop(self, term: int, attempts: Sequence[AttemptId]) -> None:
        """Kill attempts that the node still has."""
        ...

    async def reports(self, term: int, after: int, settled: int, wait_s: float) -> NodeReply:
        """Wait up to `wait_s` for reports numbered above `after`; those up to `settled` are kept no longer."""
        ...

    async def configure(self, term: int, settings: GridSettings) -> None:
        """Follow these settings from now on, unless the node follows newer ones; what runs is left alone."""
        ...


class ResultCaches(Protocol):
    """How a parent reaches the results that nodes keep hot; payloads never pass through a leader."""

    async def results(self, address: str, key: str, job_ids: Sequence[str]) -> list[bytes | None]:
        """Results of jobs in a pack, from the node at `address`; None for what is not there."""
        ...


class LeaderLink(Protocol):
    """How a parent reaches a candidate of a group, which leads it or stands by.

    One that does not lead raises `NotLeadingError`, but for `changes` it first waits whether it comes to lead.
    """

    async def enqueue(self, jobs: Sequence[JobSpec | QueuedJob]) -> None:
        """Tell of jobs that are in the store; a lost call costs a scan interval, never a job.

        Raises:
            GroupRefusedError: the group has no node that takes jobs; it keeps them until somebody moves them.
        """
        ...

    async def forget(self, job_ids: Sequence[str]) -> None:
        """Tell of jobs that were moved to another group; a lost call costs at most a run for nothing."""
        ...

    async def cancel(self, job_ids: Sequence[str]) -> None:
        """Tell of jobs whose cancelling was requested in the store."""
        ...

    async def changes(self, epoch: str, after: int, wait_s: float) -> LeaderReply:
        """Wait up to `wait_s` for changes after a number."""
        ...

    async def configure(self, settings: GridSettings) -> None:
        """Lead by these settings from now on, unless the leader has newer ones; what runs is left alone."""
        ...

    async def hand_over(self) -> None:
        """Write what is decided, step down, and leave the lease to another candidate for a while."""
        ...

    async def stand(self) -> None:
        """Try for the lease at once."""
        ...


class NodeDirectory(Protocol):
    """The nodes of one group, as they come and go."""

    async def nodes(self) -> Mapping[str, NodeLink]:
        """The nodes that are there now, each with an agent that runs."""
        ...


class GroupDirectory(Protocol):
    """The groups of the grid, as they come and go."""

    async def groups(self) -> Mapping[str, Sequence[LeaderLink]]:
        """The groups that are there now, each with its candidates."""
        ...
