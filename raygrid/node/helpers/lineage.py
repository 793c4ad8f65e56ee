"""Finds which pricer's job started a process below the agent: by its ancestors if they were seen, else by its mark.

The table of all processes is traced repeatedly, and the origin of each process is kept, because a daemon loses its
parents and may remove its mark. Ancestors come first, because a mark can be forged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raygrid.system.proc import Life, Process, environment_of, mount_namespace
from raygrid.system.processes import mark_in


@dataclass(frozen=True, slots=True)
class ProcessOrigin:
    """The pricers and the attempts (by name) that may have started a process; the attempts may have ended."""

    pricers: frozenset[str]
    attempts: frozenset[str]


@dataclass(frozen=True, slots=True)
class SpawnedPricer:
    """A process that the agent itself spawned for a pricer; `pid` is 0 while it is about to be spawned.

    `name` is its name in its mark; `attempt` is the name of the attempt that it runs, empty for a warm process between
    jobs. `age_s` tells how long ago it was announced.
    """

    pid: int
    pricer: str
    name: str
    attempt: str
    age_s: float = 0.0

    @property
    def origin(self) -> ProcessOrigin:
        """The origin of the processes below it."""
        return ProcessOrigin(frozenset((self.pricer,)), frozenset((self.attempt,) if self.attempt else ()))


@dataclass(slots=True)
class Trace:
    """The processes below the agent, without those that it spawned itself.

    Attributes:
        left: the orphans, which have become children of the agent, and all processes below them.
        zombies: orphans that have ended, and that an earlier trace saw alive.
        below: the pricers, and all processes that they started.
    """

    left: list[tuple[Process, ProcessOrigin]] = field(default_factory=list)
    zombies: list[Process] = field(default_factory=list)
    below: set[Life] = field(default_factory=set)


class Lineage:
    """The origins of the processes below one agent; not thread-safe.

    `mark_prefix` is what the marks of the agent's pricers begin with. If `own_process`, this process runs only the
    agent, so that an orphan without a mark comes from a pricer.
    """

    def __init__(self, mark_prefix: str, *, own_process: bool) -> None:
        self._prefix = mark_prefix
        self._own_process = own_process
        self._origins: dict[Life, ProcessOrigin] = {}
        # Those of the trace before: two traces may overlap, and use their tables in reverse order.
        self._earlier: dict[Life, ProcessOrigin] = {}
        self._spawned: set[Life] = set()
        self._candidates = _Candidates(None, {}, frozenset())
        self._environment = environment_of(os.getpid())

    def trace(
        self,
        table: Sequence[Process],
        roots: Sequence[SpawnedPricer],
        non_pricers: set[int],
        pricers: Mapping[str, bool],
        ended: frozenset[str] = frozenset(),
    ) -> Trace:
        """Find all processes that pricers started.

        Args:
            table: all processes, read before the other arguments, so that every living root of one is in `roots`.
            roots: what the agent has spawned for pricers or is about to spawn.
            non_pricers: children of the agent that are not pricers.
            pricers: the pricers that ever ran, and whether they ran since the last trace.
            ended: attempts that ended since the last trace and may have left processes behind.
        """
        me, own_session = os.getpid(), os.getsid(0)
        spawned = {root.pid: root for root in roots if root.pid}
        children: dict[int, list[Process]] = {}
        for process in table:
            children.setdefault(process.parent, []).append(process)
        before = self._earlier | self._origins
        self._earlier, self._origins = self._origins, {}
        own, self._spawned = self._spawned, set()
        candidates = _Candidates(self._candidates, before, ended)
        traced = Trace()
        unknown: list[Process] = []
        for process in children.get(me, ()):
            key = process.life
            if process.pid in non_pricers:
                continue
            if process.pid in spawned or key in own:  # the thread that spawned it reaps it
                self._spawned.add(key)
            if (root := spawned.get(process.pid)) is not None:
                candidates.add_root(process, root)
                self._walk(process, root.origin, children, before, traced, was_left=False)
            elif process.session != own_session and key not in own:
                origin = before.get(key)
                if process.is_zombie:
                    if origin is not None:
                        self._origins[key] = origin
                        traced.zombies.append(process)
                    continue
                if origin is None:
                    unknown.append(process)
                else:
                    candidates.add_orphan(process)
                    self._walk(process, origin, children, before, traced, was_left=True)
        for process in unknown:
            origin = self._of_orphan(process, roots, pricers, before, candidates)
            if origin is not None:
                candidates.add_orphan(process)
                self._walk(process, origin, children, before, traced, was_left=True)
        self._candidates = candidates.closed()
        return traced

    def _walk(
        self,
        top: Process,
        origin: ProcessOrigin,
        children: Mapping[int, Sequence[Process]],
        before: Mapping[Life, ProcessOrigin],
        traced: Trace,
        *,
        was_left: bool,
    ) -> None:
        """Note the origin of a process and of all below it."""
        waiting = [(top, origin)]
        while waiting:
            process, inherited = waiting.pop()
            key = process.life
            if key in self._origins:
                continue  # the table was read while processes started and ended
            own = self._origins[key] = inherited if process is top else before.get(key, inherited)
            traced.below.add(key)
            if was_left and not process.is_zombie:
                traced.left.append((process, own))
            waiting.extend((child, own) for child in children.get(process.pid, ()))

    def pricer_by_mark(self, pid: int) -> tuple[str | None, bool]:
        """The pricer in a process's mark, and whether it has a mark; (None, True) while it is being spawned."""
        environment = environment_of(pid) or b""  # a process can refuse that others read it
        if environment == self._environment:
            return None, True
        pricer, name = self._read_mark(environment)
        return pricer, name is not None

    def _read_mark(self, environment: bytes) -> tuple[str | None, str | None]:
        """The pricer and the name in a mark of this agent; (None, None) without such a mark."""
        mark = mark_in(environment)
        if mark is None or not mark.startswith(self._prefix):
            return None, None
        pricer, _, name = mark[len(self._prefix) :].partition("|")
        return pricer, name

    def _of_orphan(
        self,
        orphan: Process,
        roots: Sequence[SpawnedPricer],
        pricers: Mapping[str, bool],
        before: Mapping[Life, ProcessOrigin],
        candidates: _Candidates,
    ) -> ProcessOrigin | None:
        """The origin of an orphan that was not seen before; None if no pricer started it, or if it may be a pricer.

        A pricer that is being spawned looks like an orphan until its pid is noted. At first it has the environment of
        the agent, then none until its program runs, which takes as long as reading the program does. Of a process that
        is younger than the announcement of a pricer, that cannot be told from a daemon that hides its environment.
        """
        environment = environment_of(orphan.pid) or b""  # a process can refuse that others read it
        if environment == self._environment:
            return None
        if not environment and any(root.pid == 0 and orphan.age_s <= root.age_s for root in roots):
            return None
        pricer, name = self._read_mark(environment)
        if pricer is not None and name is not None:
            root = next((each for each in roots if each.name == name), None)
            if root is not None and root.pid == 0:
                return None
            if pricer in pricers and (root is None or not candidates.are_apart(orphan, root)):
                return root.origin if root is not None else ProcessOrigin(frozenset((pricer,)), frozenset((name,)))
        if not self._own_process:
            return None
        attempts = candidates.attempts_of(orphan)
        lately = frozenset(name for name, ran in pricers.items() if ran)
        if not lately:  # it descends from a process that was left behind earlier
            lately = frozenset(name for origin in before.values() for name in origin.pricers)
        return ProcessOrigin(lately, attempts)


class _Candidates:
    """The attempts that may have started an orphan that was not seen before and has no mark.

    An attempt is none if its sandbox is known to be another one, or if its own process is younger than the orphan.
    Those that started the orphans of the trace before may have started it, too: a daemon forks anew and ends.

    Args:
        earlier: the candidates of the trace before.
        before: the origins of the processes of the traces before.
        ended: attempts that ended since then and may have left processes behind.
    """

    def __init__(
        self, earlier: _Candidates | None, before: Mapping[Life, ProcessOrigin], ended: frozenset[str]
    ) -> None:
        # The mount namespaces of spawned processes and of orphans, None for unknown ones: each sandbox has its own.
        self._namespaces: dict[Life, int | None] = {}
        self._orphans: set[Life] = set()
        self._earlier = earlier
        self._before = before
        self._ended = ended
        self._roots: list[tuple[Process, SpawnedPricer]] = []

    def closed(self) -> _Candidates:
        """The same, for the next trace."""
        self._earlier, self._before = None, {}
        return self

    def add_root(self, process: Process, root: SpawnedPricer) -> None:
        """Add a process that the agent spawned."""
        self._roots.append((process, root))
        self._namespace(process)

    def add_orphan(self, process: Process) -> None:
        """Add an orphan whose origin is known."""
        self._orphans.add(process.life)
        self._namespace(process)

    def are_apart(self, orphan: Process, root: SpawnedPricer) -> bool:
        """Whether an orphan and a spawned process are known to be in different sandboxes."""
        process = next((process for process, each in self._roots if each is root), None)
        return process is not None and _differ(self._namespace(orphan), self._namespace(process))

    def attempts_of(self, orphan: Process) -> frozenset[str]:
        """The attempts that may have started it; they may have ended."""
        own = self._namespace(orphan)
        found = set(self._ended)
        for process, root in self._roots:
            if process.started <= orphan.started and not _differ(own, self._namespace(process)):
                found |= root.origin.attempts
        earlier = self._earlier
        if earlier is not None:
            lives = earlier._orphans | {process.life for process, _ in self._roots}  # a warm process has had other jobs
            for life in lives & self._before.keys():
                if not _differ(own, earlier._namespaces.get(life)):
                    found |= self._before[life].attempts
        return frozenset(found)

    def _namespace(self, process: Process) -> int | None:
        life = process.life
        if life not in self._namespaces:
            known = None if self._earlier is None else self._earlier._namespaces.get(life)
            self._namespaces[life] = mount_namespace(process.pid) if known is None else known
        return self._namespaces[life]


def _differ(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one != other
