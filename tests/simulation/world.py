"""What the parts of a simulated grid use of the grid around them; `grid.py` puts it together.

The parts know this description and not the grid itself, which knows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from raygrid.drill.history import ClientHistory
from raygrid.leader.election import Candidate
from raygrid.settings.model import GridSettings
from raygrid.store import JobStore
from tests.simulation.clock import Process, VirtualLoop
from tests.simulation.network import Network, Part
from tests.simulation.nodes import SimulatedAgent
from tests.simulation.store import Database
from tests.simulation.trace import Trace


@dataclass
class RayHead:
    """What Ray's head knows: which hosts are there, each with the number of its registration."""

    members: dict[str, int] = field(default_factory=dict)


class World(Protocol):
    """The grid, as its parts see it; attributes as of `tests.simulation.grid.Grid`."""

    loop: VirtualLoop
    trace: Trace
    network: Network
    database: Database
    history: ClientHistory
    settings: GridSettings
    calm: bool
    no_prefetch: bool
    max_attempts: int
    slots: int
    wall_base: float
    kinds: dict[str, str]
    cancelled: set[str]
    head: Part[RayHead]
    agent_parts: dict[str, Part[SimulatedAgent]]

    def group_of(self, node_id: str) -> str:
        """The group of a node."""

    def quota(self, group_id: str) -> int | None:
        """The quota of a group."""

    def store_for(self, process: Process, host: str) -> JobStore:
        """The job store as a process reaches it."""

    def agents(self) -> Iterator[SimulatedAgent]:
        """The agents that are up."""

    def candidates(self) -> Iterator[tuple[str, str, Process, Candidate]]:
        """The candidates that are up: group, name, process and candidate."""

    def killer(self, agent: SimulatedAgent) -> None:
        """A pricer takes down the agent that runs it."""
