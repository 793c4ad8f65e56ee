"""Ends processes: one (safe against reuse of its pid), all children of this process, or all that a dead agent left.

A daemon can fork faster than the process table can be read. So whole process groups are killed, during which the kernel
lets no member fork, and every function looks again until it finds nothing. Linux only.
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
"""How often new processes are looked for in each pass over the table."""


def signal_process(pid: int, started: int, number: signal.Signals, group: int = 0) -> bool:
    """Signal a process, if it is still the one with that start time (see `Life`); False if that is not permitted.

    A process group that is given is signalled as a whole, even if the process has ended.
    """
    with contextlib.suppress(OSError):  # it has ended
        handle = os.pidfd_open(pid)
        try:
            process = process_of(pid)
            if process is not None and process.started == started:
                signal.pidfd_send_signal(handle, number)
        except PermissionError:
            return False
        finally:
            os.close(handle)
    if group > 1 and group != os.getpgrp():
        signal_group(group, number)
    return True


def end_children(wanted: Callable[[int], bool], grace_s: float, within_s: float) -> int:
    """End and reap children of this process (a subreaper) and their descendants; returns how many are left.

    When a child ends, its children become this process's. Children in this process's own session are spared. `wanted`
    chooses children by pid; `grace_s` is the time from SIGTERM to SIGKILL.
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
    """Kill known processes (pid and start time) or processes with a matching mark, and all descendants of these.

    Returns how many were killed, at the latest after `within_s`.
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
                    found += 1
                    # Before the next process is read: a forking daemon is another process a moment later.
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
    """Whether a process descends from one that must be killed, as far as the table was read."""
    seen = 0
    parent = table.get(process.parent)
    while parent is not None and seen < len(table):
        if doomed.get(parent.pid) == parent.started:
            return True
        parent, seen = table.get(parent.parent), seen + 1
    return False
