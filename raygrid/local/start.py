"""Starts and stops the supervisor of a grid on this machine."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from raygrid.config import GridSettings
from raygrid.errors import RaygridError, SettingsError
from raygrid.local.grid_file import GridFile, running_grid, start_time

LOG = "supervisor.log"
_POLL_S = 0.05
_LOG_TAIL = 12


def start_grid(settings: GridSettings, racks: int = 1, nodes: int = 1, timeout_s: float = 180.0) -> GridFile:
    """Start a grid on this machine and wait until a job can be submitted.

    Args:
        settings: the grid's settings; its state goes under `settings.grid_dir` and survives the grid.
        racks: number of groups.
        nodes: Ray nodes in each.
        timeout_s: how long to wait.

    Raises:
        SettingsError: the settings cannot work here; says what to change.
        RaygridError: it did not come up; says where the log is.
    """
    if racks < 1 or nodes < 1:
        raise SettingsError(f"a grid needs at least 1 rack with 1 node, not {racks} with {nodes}")
    settings.require_safe_listening()
    running = running_grid(settings.name, settings.grid_dir.parent)
    if running is not None:
        return running
    _require_port(settings.http.host, settings.http.port)
    settings.grid_dir.mkdir(parents=True, exist_ok=True)
    settings.grid_dir.chmod(0o700)
    log = settings.grid_dir / LOG
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "raygrid.local.supervisor"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it outlives this terminal
            cwd=settings.grid_dir,
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        # Through a pipe, not a file or arguments: the settings may hold keys.
        pickle.dump((settings, racks, nodes), pipe)
    return _wait_until_up(process, settings, log, timeout_s)


def _require_port(host: str, port: int) -> None:
    """Say now what would otherwise stand in a log: that the parents cannot listen where they should."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    why = None
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        # As Serve binds: connections of a grid that was killed a moment ago are no obstacle.
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            listener.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            why = error.strerror
    with socket.socket(family, socket.SOCK_STREAM) as caller:
        caller.settimeout(1.0)
        if why is None and caller.connect_ex((reachable(host), port)) == 0:
            why = "somebody else listens there"
    if why is not None:
        raise SettingsError(f"cannot listen on {host} port {port}: {why}; choose another with --port or http.port")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def reachable(host: str) -> str:
    """An address at which a listener on `host` answers."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound


def _wait_until_up(process: subprocess.Popen[bytes], settings: GridSettings, log: Path, timeout_s: float) -> GridFile:
    until = time.monotonic() + timeout_s
    try:
        while time.monotonic() < until:
            grid = running_grid(settings.name, settings.grid_dir.parent)
            if grid is not None and grid.pid == process.pid:
                return grid
            if process.poll() is not None:
                raise RaygridError(f"the grid did not start; the end of {log}:\n{_tail(log)}")
            time.sleep(_POLL_S)
    except BaseException:
        _end(process.pid, start_time(process.pid), 30.0)
        raise
    _end(process.pid, start_time(process.pid), 30.0)
    raise RaygridError(f"the grid was not up within {timeout_s:g} s; the end of {log}:\n{_tail(log)}")


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_TAIL:])
    return "(no log)"


def stop_grid(grid: GridFile, timeout_s: float = 60.0) -> None:
    """Stop a grid on this machine and everything that belongs to it; its state stays for the next start.

    Raises:
        RaygridError: it did not end in time.
    """
    if not _end(grid.pid, grid.started, timeout_s):
        raise RaygridError(f"grid {grid.name!r} (process {grid.pid}) did not stop within {timeout_s:g} s")
    grid.remove()


def _end(pid: int, started: int | None, timeout_s: float) -> bool:
    """Ask a supervisor to end, then make it; what it started dies with it."""
    for number, wait_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 10.0)):
        if start_time(pid) != started or started is None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        until = time.monotonic() + wait_s
        while start_time(pid) == started and time.monotonic() < until:
            time.sleep(_POLL_S)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # where the supervisor is our own child
    return start_time(pid) != started
