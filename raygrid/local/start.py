"""Starts and stops the supervisor of a grid on this machine."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import time
from collections.abc import Callable, Collection

from raygrid.errors import RaygridError, SettingsError
from raygrid.local.executables import require_executables, require_sandboxes
from raygrid.local.port import ray_prefix, require_port
from raygrid.settings.model import GridSettings
from raygrid.system.filesystem import require_local_job_store
from raygrid.system.grid_file import GridFile, deploy_command, down_command, running_grid
from raygrid.system.lock import holder
from raygrid.system.logs import DIRECTORY, SUPERVISOR, log_end, log_size
from raygrid.system.proc import Life, life_of
from raygrid.system.supervisor import start_supervisor

LOG = f"{DIRECTORY}/{SUPERVISOR}"
LOCKED = 75
"""Exit code of a supervisor if another one runs for the same grid (EX_TEMPFAIL)."""

_POLL_S = 0.05


def start_grid(
    settings: GridSettings, racks: int = 1, nodes: int = 1, timeout_s: float = 180.0, *, with_caller: bool = False
) -> GridFile:
    """Start a grid on this machine and wait until it takes jobs; a running or starting grid that is the same is used.

    Args:
        settings: the grid's settings; its state is kept in `settings.grid_dir`.
        racks: number of groups.
        nodes: number of Ray nodes in each group.
        timeout_s: longest wait.
        with_caller: end the grid when this process ends, even if it is killed.

    Raises:
        SettingsError: the settings cannot work here, or the grid runs with others; the message names what to change.
        RaygridError: the grid did not come up; the message names the log.
    """
    if racks < 1 or nodes < 1:
        raise SettingsError(f"a grid needs at least 1 rack with 1 node, not {racks} with {nodes}")
    settings.require_safe_listening()
    require_executables(settings)
    require_sandboxes(settings)
    require_local_job_store(settings)
    ray_prefix(settings.grid_dir)  # raises here, because the supervisor would only log the error
    until = time.monotonic() + timeout_s
    while True:
        running = _running_or_free(settings, until)
        if running is not None:
            require_same(running, settings, racks, nodes)
            return running
        require_port(settings.http.host, settings.http.port, settings.grid_dir)
        started = _start(settings, racks, nodes, with_caller, until)
        if started is not None:
            return started


def require_same(
    grid: GridFile,
    settings: GridSettings,
    racks: int | None,
    nodes: int | None,
    compared: Collection[str] | None = None,
) -> None:
    """Refuse a running grid that differs from the wanted one.

    Args:
        grid: the running grid.
        settings: the wanted settings.
        racks: the wanted number; None for any.
        nodes: the wanted number; None for any.
        compared: the settings to compare, see `StartedWith.differences`; None for all of them.

    Raises:
        SettingsError: the message lists the differences and the remedy.
    """
    if compared is not None and not (compared or racks or nodes):
        return
    if grid.started_with is None:
        found = ["how it was started is unknown: its file does not contain the settings"]
    else:
        found = grid.started_with.differences(settings, racks, nodes, compared)
    if found:
        down = down_command(settings.grid_dir, settings.config)
        deploy = deploy_command(settings.grid_dir, settings.config)
        raise SettingsError(
            "\n  - ".join((f"grid {grid.name} runs already at {grid.url}, with other settings:", *found))
            + f"\nGive it new settings with `{deploy}`; where racks, nodes, addresses, storage or caches differ, "
            f"stop it first with `{down}`, or start another grid beside it with `raygrid up --name NAME --port PORT`"
        )


def _running_or_free(settings: GridSettings, until: float) -> GridFile | None:
    """The running grid of that name, if any; waits while one is starting or stopping."""
    while True:
        running = running_grid(settings.name, settings.grid_dir.parent)
        other = holder(settings.grid_dir)
        if running is not None or other is None:
            return running
        if time.monotonic() > until:
            raise RaygridError(
                f"grid {settings.name} is being started or stopped by process {other.pid}, which takes too long; "
                f"see {settings.grid_dir / LOG}, or stop it with `{down_command(settings.grid_dir, settings.config)}`"
            )
        time.sleep(_POLL_S)


def _start(settings: GridSettings, racks: int, nodes: int, with_caller: bool, until: float) -> GridFile | None:
    """Start a supervisor and wait for its grid; None if another supervisor runs."""
    for directory in (settings.grid_dir.parent, settings.grid_dir):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for directory in (settings.grid_dir, settings.grid_dir / "blobs"):
        if directory.exists():
            directory.chmod(0o700)  # earlier releases made the directory of blobs with the umask's permissions
    log = settings.grid_dir / LOG
    owner = life_of(os.getpid()) if with_caller else None
    given = pickle.dumps((settings, racks, nodes, owner))
    since = log_size(log)
    process = start_supervisor("raygrid.local.supervisor", given, settings.grid_dir, log)
    return _wait_until_up(process, settings, lambda: f"the end of {log}:\n{log_end(log, since)}", until)


def _wait_until_up(
    process: subprocess.Popen[bytes], settings: GridSettings, why: Callable[[], str], until: float
) -> GridFile | None:
    try:
        while time.monotonic() < until:
            grid = running_grid(settings.name, settings.grid_dir.parent)
            if grid is not None and grid.pid == process.pid:
                return grid
            if process.poll() == LOCKED:
                return None
            if process.poll() is not None:
                raise RaygridError(f"the grid did not start; {why()}")
            time.sleep(_POLL_S)
    except BaseException:
        _end(life_of(process.pid), 30.0)
        raise
    _end(life_of(process.pid), 30.0)
    raise RaygridError(f"the grid was not up in time; {why()}")


def stop_grid(grid: GridFile, timeout_s: float = 60.0) -> None:
    """Stop a grid on this machine with all its processes; its state is kept for the next start.

    Raises:
        RaygridError: the grid did not end in time.
    """
    if not _end(Life(grid.pid, grid.started), timeout_s):
        raise RaygridError(f"grid {grid.name!r} (process {grid.pid}) did not stop within {timeout_s:g} s")
    grid.remove()


def stop_supervisor(settings: GridSettings, timeout_s: float = 60.0) -> bool:
    """Stop a grid without a readable file, because it is starting or the file is damaged; gives whether one ran.

    Raises:
        RaygridError: the grid did not end in time.
    """
    supervisor = holder(settings.grid_dir)
    if supervisor is None:
        return False
    stop_grid(GridFile("", supervisor.pid, supervisor.started, settings.name, settings.grid_dir), timeout_s)
    return True


def _end(life: Life | None, timeout_s: float) -> bool:
    """Send a supervisor SIGTERM and, if it does not end, SIGKILL; its child processes end with it."""
    if life is None:
        return True
    for number, wait_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 10.0)):
        if life.is_over:
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(life.pid, number)
        until = time.monotonic() + wait_s
        while not life.is_over and time.monotonic() < until:
            time.sleep(_POLL_S)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(life.pid, os.WNOHANG)  # if the supervisor is a child of this process
    return life.is_over
