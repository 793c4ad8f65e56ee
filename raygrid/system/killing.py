"""Ends processes: one without hitting a later one of its pid, all children of this one, all that a dead agent left.

A daemon can fork faster than the table of processes is read. So whole process groups are killed, which the kernel does
without letting one of them fork, and every way looks again until nothing is found. Linux only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping

from raygrid.system.proc import ChildrenOf, Process, all_pids, process_of, process_table
from raygrid.system.processes import mark_of, signal_group

STEP_S = 0.01
CLEAN_LOOKS = 3
TABLE_LOOKS = 2
NEWEST_LOOKS = 100
"""Looks at processes that came since the last one, for each look at the whole table."""


def signal_process(pid: int, started: int, number: signal.Signals, group: int = 0) -> bool:
    """Signal a process, if it is still the one that started then; False where that is not permitted.

    Args:
        pid: its process id.
        started: its start time in clock ticks since boot.
        number: the signal.
        group: its process group, to signal all of it, be the process gone or not; 0 for the process alone.
    """
    try:
        handle = os.pidfd_open(pid)
    except OSError:  # it has ended
        return _signal_group(group, number)
    try:
        process = process_of(pid)
        if process is not None and process.started == started:
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    finally:
        os.close(handle)
    return _signal_group(group, number)


def _signal_group(group: int, number: signal.Signals) -> bool:
    if group > 1 and group != os.getpgrp():
        signal_group(group, number)
    return True


def end_children(wanted: Callable[[int], bool], grace_s: float, within_s: float) -> int:
    """End children of this process (a subreaper), with all below them, and reap them; gives how many are left.

    Whatever a child leaves becomes this process's child in turn. Children in this process's own session are spared.

    Args:
        wanted: whether a child of a pid is to be ended.
        grace_s: the time from SIGTERM to SIGKILL.
        within_s: when to give up.
    """
    me, session = os.getpid(), os.getsid(0)
    began = time.monotonic()
    asked: set[int] = set()
    clean = 0
    left: set[int] = set()
    with contextlib.closing(ChildrenOf(me)) as children:
        while clean < CLEAN_LOOKS and (now := time.monotonic()) < began + within_s:
            kill = now >= began + grace_s
            pids = children.now()
            if pids is None:
                pids = {process.pid for process in process_table() if process.parent == me}
            left = set()
            for pid in pids:
                if not wanted(pid) or (process := process_of(pid)) is None or process.session == session:
                    continue
                left.add(pid)
                if process.is_zombie:
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(pid, os.WNOHANG)
                elif kill:
                    signal_process(pid, process.started, signal.SIGKILL, process.group)
                elif pid not in asked:
                    asked.add(pid)
                    signal_process(pid, process.started, signal.SIGTERM)
            clean = 0 if left else clean + 1
            if left and not kill:
                time.sleep(STEP_S)
    return len(left)


def kill_lineage(known: Iterable[tuple[int, int]], matches: Callable[[str], bool], within_s: float) -> int:
    """Kill processes that are known, or whose mark matches, with all below them, until none is left.

    Args:
        known: pids with their start times.
        matches: whether a mark is one of those.
        within_s: when to give up.

    Gives the number of processes killed.
    """
    doomed = dict(known)
    killed = clean = 0
    until = time.monotonic() + within_s
    while clean < TABLE_LOOKS and time.monotonic() < until:
        found = 0
        table: dict[int, Process] = {}
        for _ in range(NEWEST_LOOKS):
            newest = [pid for pid in all_pids() if pid not in table]
            for pid in newest:
                if (process := process_of(pid)) is None:
                    continue
                table[pid] = process
                if _is_doomed(process, table, doomed, matches):
                    doomed[pid] = process.started
                    found += 1  # at once: a daemon that forks is another process a moment later
                    signal_process(pid, process.started, signal.SIGKILL, process.group)
            if not newest:
                break
        killed += found
        clean = 0 if found else clean + 1
    return killed


def _is_doomed(
    process: Process, table: Mapping[int, Process], doomed: Mapping[int, int], matches: Callable[[str], bool]
) -> bool:
    if process.is_zombie or process.pid == os.getpid() or process.session == os.getsid(0):
        return False
    if doomed.get(process.pid) == process.started or _is_below(process, table, doomed):
        return True
    mark = mark_of(process.pid)
    return mark is not None and matches(mark)


def _is_below(process: Process, table: Mapping[int, Process], doomed: Mapping[int, int]) -> bool:
    """Whether a process descends from one that is to be killed, as far as the table was read."""
    seen = 0
    parent = table.get(process.parent)
    while parent is not None and seen < len(table):
        if doomed.get(parent.pid) == parent.started:
            return True
        parent, seen = table.get(parent.parent), seen + 1
    return False
