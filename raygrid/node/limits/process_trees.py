"""Finds which processes of the machine belong to which pricer of this agent, or of other agents of the same grid.

A process belongs to the pricer in whose session it is or from which it descends. A process that left both (a daemon)
belongs to the attempt that started it, as traced by `helpers/lineage.py`; for other agents' pricers, to the pricer
whose mark it carries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from raygrid.models import AttemptId
from raygrid.node.limits.pressure import LEAST, PricerSize
from raygrid.node.limits.running import Running
from raygrid.system.proc import Life, Process
from raygrid.system.processes import ancestor, mark_of


def processes_of(
    own: Sequence[Running], table: Sequence[Process], orphans: Mapping[Life, str]
) -> dict[AttemptId, list[Process]]:
    """By attempt of this agent, the processes in its session, those that descend from it, and its orphans.

    `orphans` are those of `Helpers.attempts_of_orphans`. A process without one certain attempt belongs to none.
    """
    by_root = {each.pid: each.attempt for each in own if each.pid and not each.ended}
    by_name = {each.attempt.name: each.attempt for each in own}
    parents, roots = {process.pid: process.parent for process in table}, set(by_root)
    found: dict[AttemptId, list[Process]] = {each.attempt: [] for each in own}
    for process in table:
        root = process.session if process.session in roots else ancestor(process.pid, parents, roots)
        attempt = by_root[root] if root in roots else by_name.get(orphans.get(process.life, ""))
        if attempt is not None:
            found[attempt].append(process)
    return found


@dataclass(slots=True)
class ProcessTree:
    """A pricer's own process (`pid`) and all that it started (`members`, including `pid`).

    Its mark names its agent and attempt; `is_own` states whether that is this agent. `rss` is the resident memory of
    all members, bytes, to which the caller may add their files in memory.
    """

    pid: int
    mark: str
    is_own: bool
    members: list[int] = field(default_factory=list)
    rss: int = 0

    @property
    def size(self) -> PricerSize:
        """Its size, for the decision."""
        return PricerSize(self.pid, self.rss)


def trees(
    table: Iterable[Process], own: Mapping[int, str], own_prefix: str, nodes: str, orphans: Mapping[Life, str]
) -> list[ProcessTree]:
    """The pricers of a machine, from the table of its processes.

    Args:
        table: all processes.
        own: the marks of this agent's running pricers, by pid.
        own_prefix: what the marks of all this agent's processes begin with.
        nodes: the parent directory of this grid's agents, with which all their marks begin.
        orphans: by process that left this agent's pricers, the name of the attempt that started it.
    """
    processes = {process.pid: process for process in table if not process.is_zombie}
    found = {pid: ProcessTree(pid, mark, is_own=True) for pid, mark in own.items() if pid in processes}
    for process in processes.values():
        if process.pid == process.session and process.pid not in found:
            mark = mark_of(process.pid)
            if mark is not None and mark.startswith(f"{nodes}/") and not mark.startswith(own_prefix):
                found[process.pid] = ProcessTree(process.pid, mark, is_own=False)
    by_mark = {tree.mark: tree for tree in found.values()}
    by_attempt = {mark.rpartition("|")[2]: tree for mark, tree in by_mark.items() if tree.is_own}
    for process in processes.values():
        tree = found.get(process.session) or _around(process, processes, found)
        if tree is None and (attempt := orphans.get(process.life)) is not None:
            tree = by_attempt.get(attempt)
        elif tree is None and process.rss_bytes >= LEAST:
            tree = by_mark.get(mark_of(process.pid) or "")
        if tree is not None:
            tree.members.append(process.pid)
            tree.rss += process.rss_bytes
    return list(found.values())


def _around(process: Process, processes: Mapping[int, Process], found: Mapping[int, ProcessTree]) -> ProcessTree | None:
    """The pricer that a process descends from."""
    for _ in range(len(processes)):
        parent = processes.get(process.parent)
        if parent is None:
            return None
        if (tree := found.get(parent.pid) or found.get(parent.session)) is not None:
            return tree
        process = parent
    return None  # parents form a loop, because the table was read while processes started and ended
