"""Starts and stops the supervisor of this machine."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from raygrid.cluster.spec import STOP, HostSpec
from raygrid.errors import RaygridError

LOG = "supervisor.log"
_POLL_S = 0.1
_LOG_TAIL = 12


def is_supervised(directory: Path) -> bool:
    """Whether a supervisor holds the directory."""
    try:
        with (directory / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _state(directory: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads((directory / "host.json").read_text())
        return found
    return {}


def adopt_environment(directory: Path) -> None:
    """Set Ray's variables in this process as they are for Ray on this machine; what is set already wins."""
    for name, value in _state(directory).get("ray", {}).items():
        os.environ.setdefault(name, value)


def start_host(spec: HostSpec, timeout_s: float = 120.0) -> bool:
    """Start Ray on this machine under a supervisor and wait until it is up; False where it runs already.

    Raises:
        RaygridError: it did not come up; says where the log is. A supervisor that runs goes on trying.
    """
    spec.directory.mkdir(parents=True, exist_ok=True)
    _await_farewell(spec.directory)
    if is_supervised(spec.directory):
        return False
    for name in ("host.json", STOP):
        (spec.directory / name).unlink(missing_ok=True)
    log = spec.directory / LOG
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "raygrid.cluster.supervisor"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it outlives this terminal
            cwd=spec.directory,
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        # Through a pipe, not arguments: a Redis URL may hold a password.
        pipe.write(spec.to_json().encode() + b"\n")
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if _state(spec.directory).get("state") == "up":
            return True
        if process.poll() is not None:
            break
        time.sleep(_POLL_S)
    raise RaygridError(f"Ray did not come up on this machine; the end of {log}:\n{_tail(log)}")


def _await_farewell(directory: Path, timeout_s: float = 30.0) -> None:
    """A head that was stopped a moment ago still tells its workers: wait for its end."""
    until = time.monotonic() + timeout_s
    while _state(directory).get("state") == "stopped" and is_supervised(directory) and time.monotonic() < until:
        time.sleep(_POLL_S)


def stop_host(directory: Path, timeout_s: float = 60.0) -> bool:
    """Stop Ray on this machine; False where no supervisor runs.

    Raises:
        RaygridError: it did not stop in time.
    """
    if not is_supervised(directory):
        return False
    pid = _state(directory).get("pid")
    if pid is None:
        raise RaygridError(f"the supervisor of {directory} is just starting; try again")
    (directory / STOP).touch()
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + timeout_s
    while is_supervised(directory):
        if time.monotonic() > until:
            raise RaygridError(f"Ray did not stop within {timeout_s:g} s; see {directory / LOG}")
        time.sleep(_POLL_S)
    return True


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_TAIL:])
    return "(no log)"
