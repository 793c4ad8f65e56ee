"""A whole grid in one process: which parts there are, how they start, crash and come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from raygrid.drill.history import ClientHistory
from raygrid.leader.election import Candidate
from raygrid.models import AttemptId
from raygrid.settings.model import GridSettings
from raygrid.settings.pricer import Pricer
from raygrid.settings.sections import Group, Node, Placement
from raygrid.store import BLOBS, JobStore
from tests.simulation.clock import WORLD, Process, VirtualLoop
from tests.simulation.invariants import Watch
from tests.simulation.leaders import SimulatedCandidate
from tests.simulation.memory_store import MemoryStore
from tests.simulation.network import Network, Part
from tests.simulation.nodes import RETRIED, SimulatedAgent
from tests.simulation.parents import MARKER, SimulatedParent
from tests.simulation.store import EPOCH, Database, store_for
from tests.simulation.trace import Trace
from tests.simulation.world import RayHead

GROUPS = ("rack-a", "rack-b")
NODES_PER_GROUP = 2
PARENTS = 2
WINDOWS = (2, 6, 8_192)


class Grid:
    """Parents, candidates, nodes and the job store.

    Attributes:
        calm: whether nothing is broken in this run.
        kinds: by job, what its pricer does.
        cancelled: jobs that a client wanted to be cancelled.
    """

    def __init__(
        self, loop: VirtualLoop, random: Random, *, calm: bool, store: type[MemoryStore] = MemoryStore
    ) -> None:
        self.loop = loop
        self.started_at = loop.time()
        self.random = random
        self.calm = calm
        self.trace = Trace(loop)
        self.network = Network(loop, random, self.trace)
        self.wall_base = EPOCH.timestamp()
        self.max_attempts = 4
        self.slots = 2
        self.no_prefetch = random.random() < 0.5
        self.settings = self._draw_settings()
        self.kinds: dict[str, str] = {}
        self.cancelled: set[str] = set()
        self._lives = 0
        self._left_over: dict[str, list[AttemptId]] = {}  # by agent
        self.wall_offsets: dict[str, float] = {}  # by host
        self.processes: list[Process] = []
        self.database = Database(loop, random, store)
        self.history = ClientHistory()  # what clients saw
        self.watch = Watch(self)
        self.database.observer = self.watch
        self.store_part: Part[Database] = Part("store", "db")
        self.head: Part[RayHead] = Part("head", "head")
        self.agent_parts: dict[str, Part[SimulatedAgent]] = {}
        self.candidate_parts: dict[str, list[Part[SimulatedCandidate]]] = {}
        self.parent_parts: list[Part[SimulatedParent]] = []
        self.client = self._process("client")

    def _draw_settings(self) -> GridSettings:
        random = self.random
        quota = random.choice((None, None, 3))
        placement = Placement(
            max_attempts=self.max_attempts,
            window=random.choice(WINDOWS),
            prefetch=0 if self.no_prefetch else 1,
            probation_s=2.0,
            node_timeout_s=random.choice((2.5, 5.0)),
            policy=random.choice(("least_loaded", "weighted_round_robin")),
        )
        return GridSettings(
            pricers={"sim": Pricer(command=("sim",), retry_exit_codes=frozenset({RETRIED}))},
            groups={GROUPS[0]: Group(quota=quota)},
            placement=placement,
            node=Node(slots=self.slots),
        )

    def deploy(self) -> None:
        """Deploy another version of the pricer: parents come with newer settings, which leaders and nodes learn."""
        before = self.settings
        pricer = before.pricers["sim"]
        newer = pricer.model_copy(update={"version": str(int(pricer.version) + 1)})
        settings = before.model_copy(update={"pricers": {"sim": newer}})
        self.settings = settings.deployed(before.deployed_at + 1)

    # --- what others ask ----------------------------------------------------------------------------------------

    def group_of(self, node_id: str) -> str:
        """The group of a node."""
        return node_id.rpartition("-")[0]

    def quota(self, group_id: str) -> int | None:
        """The quota of a group."""
        group = self.settings.groups.get(group_id)
        return group.quota if group else None

    def store_for(self, process: Process, host: str) -> JobStore:
        """The job store as a process reaches it."""
        return store_for(process, host, self.network, self.store_part, self.database)

    def agents(self) -> Iterator[SimulatedAgent]:
        """The agents that are up."""
        for part in self.agent_parts.values():
            if part.process is not None and part.target is not None:
                yield part.target

    def candidates(self) -> Iterator[tuple[str, str, Process, Candidate]]:
        """The candidates that are up: group, name, process and candidate."""
        for group_id, parts in self.candidate_parts.items():
            for part in parts:
                if part.process is not None and part.target is not None:
                    yield group_id, part.name, part.process, part.target.candidate

    @property
    def parts(self) -> dict[str, Part[Any]]:
        """Everything that can crash or freeze, by name."""
        found: list[Part[Any]] = [*self.agent_parts.values(), *self.parent_parts]
        for parts in self.candidate_parts.values():
            found += parts
        return {part.name: part for part in found}

    @property
    def hosts(self) -> list[str]:
        """The hosts of the racks."""
        return list(self.agent_parts)

    # --- start and end ------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start every part."""
        self.start(self.store_part, lambda _: self.database)
        self.start(self.head, lambda _: RayHead())
        self.database.memory._agreements[BLOBS] = MARKER
        for group_id in GROUPS:
            self.candidate_parts[group_id] = []
            for number in range(1, NODES_PER_GROUP + 1):
                name = f"{group_id}-{number}"
                self.agent_parts[name] = Part(name, name)
                self.candidate_parts[group_id].append(Part(f"candidate-{name}", name))
        for number in range(1, PARENTS + 1):
            self.parent_parts.append(Part(f"parent-{number}", f"parent-{number}"))
        for name in self.agent_parts:
            self.register(name)
        for part in self.parts.values():
            self.start_again(part)

    def register(self, host: str) -> None:
        """A host of a rack joins the Ray cluster."""
        books = self.head.target
        if books is not None and host in self.agent_parts:
            self._lives += 1
            books.members[host] = self._lives

    def forget(self, host: str) -> None:
        """Ray notices that a host is gone."""
        books = self.head.target
        if books is not None:
            books.members.pop(host, None)

    def start_again(self, part: Part[Any]) -> None:
        """A new life of a part, unless it has one."""
        if part.process is not None:
            return
        if part.name in self.agent_parts:
            self.start(part, lambda process: self._agent(part.name))
        elif part.name.startswith("candidate-"):
            group_id = self.group_of(part.host)
            self.start(part, lambda process: SimulatedCandidate(self, group_id, process.name, part.host, process))
        else:
            self.start(part, lambda process: SimulatedParent(self, part.host, process))

    def start(self, part: Part[Any], make: Callable[[Process], Any]) -> None:
        """A new life of a part."""
        self._lives += 1
        process = self._process(f"{part.name}.{self._lives}")
        process.wall_offset_s = self.wall_offsets.get(part.host, 0.0)
        self.trace(f"start {process.name}")
        part.process = process
        part.target = process.context.run(make, process)

    def _process(self, name: str) -> Process:
        process = Process(self.loop, name)
        self.processes.append(process)
        return process

    def _agent(self, name: str) -> SimulatedAgent:
        life = self._lives
        return SimulatedAgent(
            name,
            f"{name}.{life}",
            self.slots,
            self.loop,
            self.random,
            self.watch,
            first=life * 1_000_000,
            settings=self.settings,
            left_over=self._left_over.pop(name, ()),
        )

    def kill(self, part: Part[Any], down_s: float) -> None:
        """Kill a part; it comes back after a while."""
        if part.process is None:
            return
        self.trace(f"kill {part.process.name}")
        if isinstance(part.target, SimulatedAgent) and self._lives % 2:
            # Whatever cleans up after an agent was killed, too: its next life finds what it left.
            self._left_over[part.name] = part.target.begun
        part.process.kill()
        part.process = part.target = None
        self.later(down_s, self.start_again, part)

    def killer(self, agent: SimulatedAgent) -> None:
        """A pricer takes down the agent that runs it, and at times the leader on its host, too."""
        down_s = 0.5 + self.random.random()
        self.later(0.0, self.kill, self.agent_parts[agent.node_id], down_s)
        if self._lives % 3 == 0:
            for part in self.candidate_parts[self.group_of(agent.node_id)]:
                if part.host == agent.node_id:
                    self.later(0.0, self.kill, part, down_s)

    def later(self, delay_s: float, action: Callable[..., object], *args: Any) -> None:
        """Schedule an event of the grid."""
        self.loop.call_later(delay_s, action, *args, context=WORLD)

    def bury(self) -> list[asyncio.Task[Any]]:
        """End everything after the simulation; gives the tasks that are about to end."""
        self.network.over = True
        for process in self.processes:
            process.bury()
        tasks = list(asyncio.all_tasks(self.loop))
        for task in tasks:
            task.cancel()
        return tasks
