"""Faults and their times, drawn from the seed. Every fault heals by itself, and `heal` ends all of them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from raygrid.errors import RaygridError
from tests.simulation.grid import GROUPS, Grid
from tests.simulation.network import Part, Weather
from tests.simulation.parents import SimulatedParent

Fault = Callable[["Faults"], str]
REST = frozenset({"db", "head", "client", "parent-1", "parent-2"})


class Faults:
    """Breaks a grid and mends it.

    Args:
        grid: the grid.
        random: draws what, when and for how long.
    """

    def __init__(self, grid: Grid, random: Random) -> None:
        self.grid = grid
        self.random = random
        self.count = 0
        self.is_over = False

    def plan(self, until_s: float) -> None:
        """Draw the faults of this run."""
        grid, random = self.grid, self.random
        if grid.calm:
            return
        if random.random() < 0.5:
            grid.network.weather = self._weather()
        kinds = random.sample(KINDS, random.randint(1, len(KINDS)))
        for _ in range(random.choice((1, 2, 4, 8, 12))):
            grid.later(until_s * random.random(), self._strike, random.choice(kinds))

    def _strike(self, fault: Fault) -> None:
        if not self.is_over:
            self.count += 1
            self.grid.trace(f"fault {fault(self)}")

    def heal(self) -> None:
        """End every fault: all parts are up, everything reaches everything, nothing is slow."""
        self.is_over = True
        grid = self.grid
        grid.trace("all faults end")
        grid.network.weather = Weather()
        grid.network.mend()
        grid.database.slow_s = 0.0
        self._revive(grid.store_part, grid.database)
        for host in grid.hosts:
            if grid.head.target is not None and host not in grid.head.target.members:
                grid.register(host)
        for part in grid.parts.values():
            grid.start_again(part)
            if part.process is not None:
                part.process.thaw()
        for agent in grid.agents():
            agent.disk_full, agent.disk_slow_s = False, 0.0
        for node_id in grid.hosts:
            grid.database.memory._drains.pop(node_id, None)

    # --- parts of faults ----------------------------------------------------------------------------------------

    def seconds(self, least: float, most: float) -> float:
        """A duration; short ones are more likely."""
        return least + (most - least) * self.random.random() ** 2

    def then(self, after_s: float, action: Callable[..., object], *args: Any) -> None:
        """Mend it after a while."""
        self.grid.later(after_s, action, *args)

    def any_part(self) -> Part[Any]:
        """Something that can crash or freeze."""
        return self.random.choice(list(self.grid.parts.values()))

    def any_host(self) -> str:
        """A host of a rack."""
        return self.random.choice(self.grid.hosts)

    def host_of_leader(self) -> str:
        """The host of a group's leader, or any if none leads."""
        leading = {name for _, name, _, candidate in self.grid.candidates() if candidate.leads}
        return self.random.choice(
            [part.host for part in self.grid.parts.values() if part.name in leading] or self.grid.hosts
        )

    def others(self, hosts: frozenset[str]) -> frozenset[str]:
        """All hosts but these."""
        return (REST | frozenset(self.grid.hosts)) - hosts

    def cut(self, one: frozenset[str], two: frozenset[str], for_s: float) -> str:
        """Part two sides from each other."""
        name = f"cut {self.count}"
        self.grid.network.cut(name, one, two)
        self.then(for_s, self.grid.network.mend, name)
        return f"{'+'.join(sorted(one))} is cut from {'+'.join(sorted(two))} for {for_s:.2f} s"

    def _weather(self) -> Weather:
        random = self.random
        return Weather(
            loss=random.choice((0.0, 0.01, 0.05)),
            doubled=random.choice((0.0, 0.02, 0.1)),
            late=random.choice((0.0, 0.02, 0.1)),
            late_s=random.choice((0.3, 2.0, 6.0)),
        )

    def _revive(self, part: Part[Any], target: object) -> None:
        if part.process is None:
            self.grid.start(part, lambda _: target)


# --- the faults -----------------------------------------------------------------------------------------------------


def _crash(faults: Faults) -> str:
    part = faults.any_part()
    down_s = faults.seconds(0.2, 5.0)
    faults.grid.kill(part, down_s)
    return f"{part.name} is killed, back after {down_s:.2f} s"


def _crash_leader(faults: Faults) -> str:
    part = faults.grid.parts[f"candidate-{faults.host_of_leader()}"]
    down_s = faults.seconds(0.2, 8.0)
    faults.grid.kill(part, down_s)
    return f"{part.name} is killed, back after {down_s:.2f} s"


def _crash_host(faults: Faults) -> str:
    grid, host = faults.grid, faults.any_host()
    down_s = faults.seconds(1.0, 10.0)
    for part in grid.parts.values():
        if part.host == host:
            grid.kill(part, down_s + 0.01)
    faults.cut(frozenset({host}), faults.others(frozenset({host})), down_s)
    faults.then(min(faults.seconds(0.5, 5.0), down_s / 2), grid.forget, host)
    faults.then(down_s, grid.register, host)
    return f"host {host} is off for {down_s:.2f} s"


def _crash_everything(faults: Faults) -> str:
    for part in faults.grid.parts.values():
        faults.grid.kill(part, faults.seconds(0.2, 3.0))
    return "everything is killed"


def _freeze(faults: Faults) -> str:
    part = (
        faults.any_part() if faults.random.random() < 0.5 else faults.grid.parts[f"candidate-{faults.host_of_leader()}"]
    )
    for_s = faults.seconds(0.2, 9.0)
    if part.process is None:
        return f"{part.name} is down, so it cannot freeze"
    part.process.freeze()
    faults.then(for_s, part.process.thaw)
    return f"{part.process.name} freezes for {for_s:.2f} s"


def _cut_host(faults: Faults) -> str:
    host = frozenset({faults.any_host()})
    return faults.cut(host, faults.others(host), faults.seconds(0.5, 10.0))


def _cut_rack(faults: Faults) -> str:
    group_id = faults.random.choice(GROUPS)
    rack = frozenset(host for host in faults.grid.hosts if faults.grid.group_of(host) == group_id)
    return faults.cut(rack, faults.others(rack), faults.seconds(0.5, 10.0))


def _cut_leader_from_store(faults: Faults) -> str:
    return faults.cut(frozenset({faults.host_of_leader()}), frozenset({"db"}), faults.seconds(0.5, 8.0))


def _cut_leader_from_node(faults: Faults) -> str:
    one, two = faults.host_of_leader(), faults.any_host()
    return faults.cut(frozenset({one}), frozenset({two}) - {one}, faults.seconds(0.5, 8.0))


def _cut_parent(faults: Faults) -> str:
    parent = frozenset({faults.random.choice(("parent-1", "parent-2"))})
    two = faults.random.choice((frozenset({"db"}), frozenset(faults.grid.hosts), frozenset({"client"})))
    return faults.cut(parent, two, faults.seconds(0.5, 8.0))


def _cut_store(faults: Faults) -> str:
    return faults.cut(frozenset({"db"}), faults.others(frozenset({"db"})), faults.seconds(0.5, 8.0))


def _cut_head(faults: Faults) -> str:
    return faults.cut(frozenset({"head"}), faults.others(frozenset({"head"})), faults.seconds(0.5, 8.0))


def _store_down(faults: Faults) -> str:
    grid = faults.grid
    part, for_s = grid.store_part, faults.seconds(0.2, 6.0)
    if part.process is not None:
        part.process.kill()
        part.process = part.target = None
        faults.then(for_s, faults._revive, part, grid.database)
    return f"the store is down for {for_s:.2f} s"


def _store_slow(faults: Faults) -> str:
    database = faults.grid.database
    database.slow_s, for_s = faults.seconds(0.1, 8.0), faults.seconds(0.5, 8.0)
    faults.then(for_s, setattr, database, "slow_s", 0.0)
    return f"the store takes up to {database.slow_s:.2f} s for {for_s:.2f} s"


def _step_store_clock(faults: Faults) -> str:
    step_s = faults.random.choice((-60.0, -2.0, 1.0, 2.5, 5.0))
    faults.grid.database.clock_offset_s += step_s
    if step_s < 0:  # a lease that is extended by as much would keep a group without a leader
        faults.then(4.0, faults.grid.database.catch_up, -step_s)
    return f"the store's clock steps by {step_s} s"


def _step_host_clock(faults: Faults) -> str:
    host = faults.any_host()
    step_s = faults.random.choice((-3600.0, -5.0, 5.0, 3600.0))
    faults.grid.wall_offsets[host] = faults.grid.wall_offsets.get(host, 0.0) + step_s
    for part in faults.grid.parts.values():
        if part.host == host and part.process is not None:
            part.process.wall_offset_s += step_s
    return f"the clock of {host} steps by {step_s} s"


def _disk(faults: Faults) -> str:
    agents = list(faults.grid.agents())
    if not agents:
        return "no agent is up, so no disk can fill"
    agent, for_s = faults.random.choice(agents), faults.seconds(0.5, 6.0)
    if faults.random.random() < 0.5:
        agent.disk_full = True
        faults.then(for_s, setattr, agent, "disk_full", False)
        return f"the disk of {agent.node_id} is full for {for_s:.2f} s"
    agent.disk_slow_s = faults.seconds(0.2, 5.0)
    faults.then(for_s, setattr, agent, "disk_slow_s", 0.0)
    return f"the disk of {agent.node_id} takes up to {agent.disk_slow_s:.2f} s for {for_s:.2f} s"


def _bad_weather(faults: Faults) -> str:
    network, for_s = faults.grid.network, faults.seconds(0.5, 8.0)
    before, network.weather = network.weather, faults._weather()
    faults.then(for_s, lambda: None if faults.is_over else setattr(network, "weather", before))
    return f"{network.weather} for {for_s:.2f} s"


def _hand_over(faults: Faults) -> str:
    grid, group_id = faults.grid, faults.random.choice(GROUPS)
    part = faults.random.choice(grid.parent_parts)

    async def ask() -> None:
        def hand_over(parent: SimulatedParent) -> object:
            return parent.hand_over(group_id)

        try:
            await grid.network.call("client", part, "handover", hand_over, 15.0)
        except RaygridError as error:
            grid.trace(f"no hand-over: {type(error).__name__}")

    grid.client.spawn(ask())
    return f"{group_id} is handed over"


def _drain(faults: Faults) -> str:
    memory, node_id = faults.grid.database.memory, faults.any_host()
    deadline_s = faults.random.choice((None, 0.0, 1.0))
    for_s = faults.seconds(0.5, 8.0)
    faults.grid.database.carry_out("put_drain", (node_id, deadline_s), {})
    faults.then(for_s, memory._drains.pop, node_id, None)
    return f"{node_id} is drained for {for_s:.2f} s, deadline {deadline_s}"


def _deploy(faults: Faults) -> str:
    grid = faults.grid
    grid.deploy()
    for part in grid.parent_parts:
        grid.kill(part, faults.seconds(0.1, 2.0))
    return f"version {grid.settings.pricers['sim'].version} is deployed"


KINDS: tuple[Fault, ...] = (
    _crash,
    _crash_leader,
    _crash_host,
    _crash_everything,
    _freeze,
    _cut_host,
    _cut_rack,
    _cut_leader_from_store,
    _cut_leader_from_node,
    _cut_parent,
    _cut_store,
    _cut_head,
    _store_down,
    _store_slow,
    _step_store_clock,
    _step_host_clock,
    _disk,
    _bad_weather,
    _hand_over,
    _drain,
    _deploy,
)
