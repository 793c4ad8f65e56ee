"""The port of a grid on this machine: whether it is free, or will be soon."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from raygrid.errors import SettingsError
from raygrid.system.grid_file import down_command, running_grid
from raygrid.system.log_files import PARENT, has_log
from raygrid.system.logs import DIRECTORY
from raygrid.system.proc import all_pids, command_line_of
from raygrid.system.ray_directory import SHORT, of_user

DYING_S = 40.0
SUPERVISOR = b"raygrid.local.supervisor"
MOST_SOCKET_PATH = 107
"""Bytes; a limit of the kernel."""
# The longest path of Ray's sockets below the prefix.
_BELOW = "12345678/session_2030-12-31_23-59-59_999999_4194304/sockets/plasma_store.999"
_FIRST_FREE = 20_000  # above the ports that Ray gives to its workers
_TRIES = 50
_POLL_S = 0.1
_NEAR = 100
_CHECKS = 3
"""Checks in which a listener must look like another program: an ending process loses its files before its port."""


def free_port() -> int:
    """A port that no process uses now, and that the kernel does not choose for an outgoing connection meanwhile."""
    ports = range(_FIRST_FREE, _first_for_connections())
    # Not the generator that programs seed: two of them would try the same ports at the same time.
    for port in (*random.SystemRandom().sample(ports, min(_TRIES, len(ports))), 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("all ports of this machine are in use")


def _first_for_connections() -> int:
    """The first port that the kernel chooses for outgoing connections."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    return 32_768


def reachable(host: str) -> str:
    """An address at which a listener on `host` answers."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound


def ray_prefix(grid_dir: Path) -> str:
    """The beginning of the paths of a grid's Ray directories, the same at each start; see `system/ray_directory.py`.

    Ray puts Unix sockets below them, whose paths must be short. So they are neither in the grid's own directory nor in
    a temporary directory with a long path.

    Raises:
        SettingsError: no temporary directory has a short enough path; the message names the variable to set.
    """
    mark = hashlib.sha256(os.fsencode(grid_dir)).hexdigest()[:6]
    uid = os.geteuid()
    most = MOST_SOCKET_PATH - len(str(of_user("/", uid) / f"{mark}-{_BELOW}"))
    wanted = tempfile.gettempdir()
    for place in (wanted, *SHORT):
        if len(os.fsencode(place)) <= most and os.access(place, os.W_OK | os.X_OK):
            return str(of_user(place, uid) / f"{mark}-")
    raise SettingsError(
        f"Ray's sockets need a temporary directory whose path has at most {most} bytes, and {wanted} has "
        f"{len(os.fsencode(wanted))}; set TMPDIR to a shorter one (neither {' nor '.join(SHORT)} can be written)"
    )


def require_port(host: str, port: int, grid_dir: Path, patience_s: float = DYING_S) -> None:
    """Check that the parents can listen on their port; later the error would only be in a log.

    If a parent of an earlier start of this grid, which was killed just now, still runs, wait for its end.

    Raises:
        SettingsError: another process has the port; the message names the remedy.
    """
    until = time.monotonic() + patience_s
    checks = _CHECKS
    while (why := _why_not(host, port)) is not None:
        dying = has_log(grid_dir / DIRECTORY, PARENT)
        checks = _CHECKS if dying else checks - 1
        if checks and time.monotonic() < until:
            time.sleep(_POLL_S)
            continue
        if dying:
            raise SettingsError(
                f"cannot listen on {host} port {port}: processes of an earlier start of this grid still have it; "
                "try again in a minute"
            )
        whose, another = _whose(port), _another(host, port)
        raise SettingsError(f"cannot listen on {host} port {port}: {f'{whose}, or' if whose else f'{why};'} {another}")


def _whose(port: int) -> str | None:
    """The text that names this user's grid on the port and how to stop it; None if another program has the port."""
    for pid in all_pids():
        words = command_line_of(pid).split(b"\0")
        if SUPERVISOR not in words[:-1]:
            continue
        directory = Path(os.fsdecode(words[words.index(SUPERVISOR) + 1]))
        with contextlib.suppress(SettingsError, OSError):
            grid = running_grid(directory.name, directory.parent)
            if grid is not None and grid.pid == pid and urlsplit(grid.url).port == port:
                return f"your grid {grid.name} listens there; stop it with `{down_command(directory)}`"
    return None


def _another(host: str, port: int) -> str:
    """The advice to choose another port, with one that is free now."""
    near = next((each for each in range(port + 1, min(port + _NEAR, 65_536)) if _why_not(host, each) is None), None)
    choice = "another with --port" if near is None else f"--port {near}, which is free"
    return f"choose {choice} (or http.port in the settings)"


def _why_not(host: str, port: int) -> str | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        # The options of Serve: connections of a grid that was killed just now do not prevent a bind.
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            listener.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    with socket.socket(family, socket.SOCK_STREAM) as caller:
        caller.settimeout(1.0)
        return "another program listens there" if caller.connect_ex((reachable(host), port)) == 0 else None
