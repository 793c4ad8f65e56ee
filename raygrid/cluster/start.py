"""Starts and stops the supervisor of a cluster's machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raygrid.cluster.shutdown_notice import cluster_token
from raygrid.cluster.spec import STOP, HostSpec
from raygrid.errors import RaygridError, SettingsError
from raygrid.system.lock import NAME as LOCK
from raygrid.system.lock import is_locked, try_lock
from raygrid.system.logs import DIRECTORY, SUPERVISOR, log_end
from raygrid.system.supervisor import start_supervisor

LOG = f"{DIRECTORY}/{SUPERVISOR}"
_POLL_S = 0.1


def is_supervised(directory: Path) -> bool:
    """Whether a supervisor runs for the directory."""
    return is_locked(directory / LOCK)


def _state(directory: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads((directory / "host.json").read_text())
        return found
    return {}


def adopt_environment(directory: Path) -> None:
    """Set in this process the variables of Ray on this machine, except those that are set already."""
    for name, value in _state(directory).get("ray", {}).items():
        os.environ.setdefault(name, value)


def start_host(spec: HostSpec, timeout_s: float = 120.0) -> bool:
    """Start Ray on this machine under a supervisor and wait until it is up; False if a supervisor runs already.

    Raises:
        RaygridError: Ray did not come up; the message names the log. The supervisor, if it runs, goes on trying.
    """
    spec.directory.mkdir(parents=True, exist_ok=True)
    spec.directory.chmod(0o700)  # Ray's state contains the deployed settings: API keys, the database's password
    until = time.monotonic() + timeout_s
    with _only_starter(spec.directory, until):
        _await_announcement(spec.directory)
        process = None if is_supervised(spec.directory) else _start_supervisor(spec)
        if process is None:
            _require_same(spec)
        while time.monotonic() < until:
            if _state(spec.directory).get("state") == "up":
                return process is not None
            if not is_supervised(spec.directory) if process is None else process.poll() is not None:
                break
            time.sleep(_POLL_S)
    log = spec.directory / LOG
    raise RaygridError(f"Ray did not come up on this machine; the end of {log}:\n{log_end(log)}")


def _require_same(spec: HostSpec) -> None:
    """Refuse a machine that runs with another spec."""
    known = _state(spec.directory).get("asked", {})
    differences = [
        f"{name}: it runs with {known[name]!r}, you asked for {value!r}"
        for name, value in spec.public.items()
        if name in known and known[name] != value
    ]
    if differences:
        raise SettingsError(
            "Ray runs on this machine already, with other settings:\n  "
            + "\n  ".join(differences)
            + "\nStop it first with `raygrid host stop`"
        )


def require_token(environment: Mapping[str, str]) -> None:
    """Refuse to start Ray without a token: it would fail repeatedly, and only its log would contain the reason.

    Raises:
        SettingsError: there is no token; the message explains how to make one.
    """
    if environment.get("RAY_AUTH_MODE") == "token" and not cluster_token(environment):
        raise SettingsError(
            "there is no token at ~/.ray/auth_token, and every machine of the cluster needs it: make one with "
            "`ray get-auth-token --generate` and copy it to all machines (`ray up cluster.yaml` copies it)"
        )


@contextlib.contextmanager
def _only_starter(directory: Path, until: float) -> Iterator[None]:
    """Let one process at a time start a supervisor; a second one waits, and then finds the first one's supervisor."""
    lock = try_lock(directory / "starting", max(0.0, until - time.monotonic()))
    if lock is None:
        raise RaygridError(f"another process is starting Ray on this machine; see {directory / LOG}")
    with lock:
        yield


def _start_supervisor(spec: HostSpec) -> subprocess.Popen[bytes]:
    for earlier in ("host.json", STOP):
        (spec.directory / earlier).unlink(missing_ok=True)
    return start_supervisor(
        "raygrid.cluster.supervisor", spec.to_json().encode() + b"\n", spec.directory, spec.directory / LOG
    )


def _await_announcement(directory: Path, timeout_s: float = 30.0) -> None:
    """Wait for a head that was stopped just now and still announces its shutdown to the workers."""
    until = time.monotonic() + timeout_s
    while _state(directory).get("state") == "stopped" and is_supervised(directory) and time.monotonic() < until:
        time.sleep(_POLL_S)


def stop_host(directory: Path, timeout_s: float = 60.0) -> bool:
    """Stop Ray on this machine; False if no supervisor runs.

    Raises:
        RaygridError: Ray did not stop in time.
    """
    if not is_supervised(directory):
        return False
    (directory / STOP).touch()
    until = time.monotonic() + timeout_s
    signalled: int | None = None
    while is_supervised(directory):
        if time.monotonic() > until:
            raise RaygridError(f"Ray did not stop within {timeout_s:g} s; see {directory / LOG}")
        pid = _state(directory).get("pid")  # None just after the start of the supervisor
        if pid is not None and pid != signalled:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            signalled = pid
        time.sleep(_POLL_S)
    return True
