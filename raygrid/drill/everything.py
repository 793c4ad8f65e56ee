"""The drill that kills all processes of a grid on this machine with `kill -9` and starts the grid again.

It does not use an injector, because no part of Ray is left afterwards: the processes are those below the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import replace

from raygrid.drill.drill import Drill
from raygrid.drill.injector import FaultTarget
from raygrid.drill.report import Report
from raygrid.drill.scenarios import InjectedFault
from raygrid.errors import SettingsError, UnavailableError
from raygrid.local import GridFile, require_same, start_grid
from raygrid.settings.model import GridSettings
from raygrid.system.proc import start_time
from raygrid.system.relatives import descendants

SCENARIO = "everything"
START_S = 180.0
DEATH_S = 10.0
ON_ITS_WAY_S = 1.0  # answers sent before the fault arrive within this time after it


async def lose_everything(drill: Drill, grid: GridFile, settings: GridSettings, slots: int) -> Report:
    """Kill every process of a grid on this machine under load, start it again, and follow every job to its end.

    Recovery is the time from the fault to the first end of a job that was under way, including the start of the grid
    (`start_up_s`).

    Raises:
        SettingsError: the grid runs with other settings than these, so it could not be started as it was.
        UnavailableError: the load makes no progress.
    """
    if grid.started_with is None:
        raise SettingsError(f"the file of grid {grid.name} does not contain how it was started; restart the grid first")
    racks, nodes = grid.started_with.racks, grid.started_with.nodes
    require_same(grid, settings, racks, nodes)
    loop = asyncio.get_running_loop()
    load = await drill.prepare_load(slots, retry_s=START_S + 60)
    try:
        load.start()
        if not await load.until(lambda: load.ended >= 2 * slots, drill.patience.flow):
            raise UnavailableError(f"{SCENARIO}: the load makes no progress: {load.ended} jobs ended")
        at = loop.time()
        killed = await asyncio.to_thread(kill_all, grid.pid)
        drill.say(f"{SCENARIO}: killed all {killed} processes of grid {grid.name}; starting it again")
        await loop.run_in_executor(None, lambda: start_grid(settings, racks, nodes, START_S))
        up_at = loop.time()
        under_way = [job for job in load.jobs.values() if job.submitted_at < at]
        await load.until(lambda: all(job.ended_at is not None for job in under_way), drill.patience.recover)
        load.stop()
        await load.drained(drill.patience.drain)
        report = await drill.judge(SCENARIO, InjectedFault(at, FaultTarget(SCENARIO)), load, loop.time())
    finally:
        await load.close()
    ends = [job.ended_at for job in under_way if job.ended_at is not None and job.ended_at > at + ON_ITS_WAY_S]
    return replace(
        report,
        hit=f"kill all {killed} processes of grid {grid.name}",
        recovery_s=round(min(ends) - at, 3) if ends else None,
        more={"start_up_s": round(up_at - at, 3)},
    )


def kill_all(supervisor: int) -> int:
    """Kill a process and all its descendants at once; returns how many there were.

    They are stopped first, so that none starts another or shuts down in an orderly way meanwhile.
    """
    stopped: list[int] = []
    while new := [pid for pid in (supervisor, *descendants(supervisor)) if pid not in stopped]:
        for pid in new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        stopped += new
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + DEATH_S  # the port and the locks are free when the processes have ended
    while any(start_time(pid) is not None for pid in stopped) and time.monotonic() < until:
        time.sleep(0.01)
    return len(stopped)
