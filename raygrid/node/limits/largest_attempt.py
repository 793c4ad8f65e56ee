"""Finds the attempt that fills a disk: of all attempts on this machine that use it, the one that takes most of it.

The agents of a machine share a disk, and each may kill only its own pricers. Each agent measures the directories of all
agents of the grid, so that all find the same attempt without communicating. Called by `disk.py` while a disk is nearly
full, which is rare: this code need not be fast.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from raygrid.node.attempt.workspace import SANDBOXES, TEMPORARY, short
from raygrid.node.limits.allocated import Allocated, allocated, deleted_but_open
from raygrid.node.limits.process_trees import processes_of
from raygrid.node.limits.running import Running
from raygrid.system.proc import Life, Process, process_table
from raygrid.system.processes import mark_of

_WORDS = 3  # at least, in a mark: the agent's directory, its life, and the attempt
RECENT_S = 10.0  # a file that was changed within this time counts as growing
SMALL = 1024**2  # an attempt that holds less does not count among those that share the disk
PLACES = ("jobs", "spare", TEMPORARY)  # directories of an agent for its attempts' files; each has one for each life


class LargestAttempt(NamedTuple):
    """An attempt that fills the disk, and the bytes of disk that it holds."""

    running: Running
    held: int


def find_largest(
    own: Sequence[Running],
    root: Path,
    reserve: int,
    orphans_of: Callable[[Sequence[Process]], Mapping[Life, str]] = lambda table: {},
) -> LargestAttempt | None:
    """The attempt of this agent that fills its disk; None if another agent's attempt fills it, or none does.

    Growth counts most: an attempt that wrote much an hour ago does not fill the disk now. If attempts hold little,
    another program fills the disk, and killing attempts would not help.

    Args:
        own: the agent's attempts that run, or that have just ended and still have files.
        root: the agent's directory; those of the machine's other agents have the same parent.
        reserve: bytes that were free when the node last took work; attempts have filled the disk only if one of them
            holds at least an even share of that.
        orphans_of: finds, in a table of processes, the attempts of those that left their pricer's session.
    """
    if not own:
        return None
    since_ns = time.time_ns() - int(RECENT_S * 1e9)
    device = os.stat(root).st_dev
    table = list(process_table())
    mine = {each.attempt: allocated(each.paths, changed_since_ns=since_ns) for each in own}
    for attempt, processes in processes_of(own, table, orphans_of(table)).items():
        pids = [process.pid for process in processes]
        mine[attempt] += deleted_but_open(pids, device, changed_since_ns=since_ns)
    paths = {path for each in own for path in each.paths}
    others = _others(root, device, paths, since_ns)
    for place, pids in _marked(table, others).items():
        others[place] += deleted_but_open(pids, device, changed_since_ns=since_ns)
    most = max(own, key=lambda each: _rank(mine[each.attempt], each.foreign_bytes))
    rank = _rank(mine[most.attempt], most.foreign_bytes)
    if any(_rank(each, 0) >= rank for each in others.values()):
        return None
    held = mine[most.attempt].held - most.foreign_bytes
    sharing = len(own) + sum(each.held >= SMALL for each in others.values())
    return LargestAttempt(most, held) if held * sharing >= reserve else None


def _rank(taken: Allocated, foreign_bytes: int) -> tuple[int, int]:
    return min(taken.growing, taken.held - foreign_bytes), taken.held - foreign_bytes


def _others(root: Path, device: int, mine: set[str], since_ns: int) -> dict[str, Allocated]:
    """By directory, the space of other agents' attempts, and of own attempts whose files are being removed."""
    found: dict[str, Allocated] = {}
    for life in _lives(root.parent, device):
        with contextlib.suppress(OSError):
            for name in os.listdir(life):
                path = f"{life}/{name}"
                if path in mine or name == TEMPORARY:  # whose directories are listed as well
                    continue
                place = path if name.startswith("@") else f"{life}/{name.partition('@')[0]}"  # with its ZIP beside it
                found[place] = found.get(place, Allocated()) + _of_attempt(path, since_ns)
    return found


def _lives(beside: Path, device: int) -> Iterator[str]:
    """The directories in which agents have attempts' files, on one disk."""
    for agent in beside.iterdir():
        for place in PLACES:
            with contextlib.suppress(OSError):
                top = agent / place
                if top.stat().st_dev == device:
                    yield from (str(life) for life in top.iterdir())
        with contextlib.suppress(OSError):
            for life in (agent / SANDBOXES).iterdir():
                for sandbox in life.iterdir():
                    with contextlib.suppress(OSError):  # it may end meanwhile
                        if sandbox.stat().st_dev == device:
                            yield from (str(sandbox), str(sandbox / TEMPORARY))


def _of_attempt(path: str, since_ns: int) -> Allocated:
    """The space of a file, or of a job directory without shared data, which belongs to the cache."""
    if not os.path.isdir(path):
        return allocated([path], changed_since_ns=since_ns)
    with contextlib.suppress(OSError):
        return allocated((f"{path}/{each}" for each in os.listdir(path) if each != "data"), changed_since_ns=since_ns)
    return Allocated()


def _marked(table: Sequence[Process], places: Mapping[str, Allocated]) -> dict[str, list[int]]:
    """By directory, the processes of other agents' attempts, recognised by their marks."""
    found: dict[str, list[int]] = {}
    by_attempt = {_attempt_of(Path(place)): place for place in places}
    for process in table:
        if process.is_zombie or (mark := mark_of(process.pid)) is None:
            continue
        words = mark.split("|")
        if len(words) < _WORDS:
            continue
        root, life, *_, attempt = words
        if (place := by_attempt.get((root, short(life), attempt))) is not None:
            found.setdefault(place, []).append(process.pid)
    return found


def _attempt_of(place: Path) -> tuple[str, str, str]:
    """The agent's directory, the life in short, and the attempt that a job directory belongs to."""
    around = place.parent
    life = around.parent if around.parent.parent.name == SANDBOXES else around
    return str(life.parent.parent), short(life.name), place.name
