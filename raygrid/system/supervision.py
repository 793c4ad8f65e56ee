"""Starts the supervisors of local grids and of cluster hosts, and sets the environment of processes that join Ray."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from raygrid.system.logs import DIRECTORY, VARIABLE, private
from raygrid.system.loopback import without_proxy

NO_UPLOADS = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
"""For processes that join Ray: below `uv run`, Ray would pack their working directory, such as a grid's whole state,
and send it to every worker; from 512 MiB on it fails. Must be set before Ray is imported."""

TIERS_STAY = {
    # Ray's memory monitor kills only Ray's own workers, which are the grid's tiers; agents watch the memory instead and
    # kill the pricer that grew most.
    "RAY_memory_monitor_refresh_ms": "0",
    # Ray gives its workers the highest out-of-memory score, and pricers inherit it: the kernel would kill a tier as
    # readily as a pricer.
    "RAY_worker_oom_score_adjustment": "0",
}
"""For all Ray nodes: keeps the tiers alive when memory runs out. Must be set before Ray is started."""

RAY_SETTINGS = {
    # Ray's ports are open to the machine's network; with this, every process needs the cluster's token.
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    # By default, Ray runs its workers, and so every pricer, at nice 15.
    "RAY_worker_niceness": "0",
    **TIERS_STAY,
    # The reaper, a child of the agent, must outlive the agent to clean up.
    "RAY_kill_child_processes_on_worker_exit": "0",
    "RAY_ROTATION_MAX_BYTES": str(32 * 1024**2),
    "RAY_SERVE_KV_TIMEOUT_S": "5",
}
"""For all Ray nodes of a local grid and of a cluster alike. Must be set before Ray is started."""

UTF8 = {"PYTHONUTF8": "1"}
"""For processes of a grid: file names are UTF-8 in all of them, independent of the locale. Pricers do not get it."""

_RUNTIME_HOOK = "RAY_RUNTIME_ENV_HOOK"
_TAIL_LINES = 12


def start_supervisor(module: str, given: bytes, directory: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a module as a process that outlives this one's terminal, in `directory`; its output is appended to a log.

    It gets `given` on its standard input, because settings may hold secrets, which must not be arguments.
    """
    log.parent.mkdir(mode=0o700, exist_ok=True)
    with open(log, "ab", opener=private) as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],  # -P: import nothing from the working directory
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=directory,
            env={**os.environ, **UTF8, VARIABLE: str(directory / DIRECTORY)},
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(given)
    return process


def environment_beside_ray(environment: Mapping[str, str], hosts: Iterable[str] = ()) -> dict[str, str]:
    """The environment for a process that joins Ray: no uploads, no proxy for this machine and `hosts`, UTF-8 names."""
    # `uv run` may have set the hook, which uploads files. They are not needed: raygrid is installed on every node.
    rest = {name: value for name, value in environment.items() if name != _RUNTIME_HOOK}
    return {**rest, **NO_UPLOADS, **UTF8, **without_proxy(environment, hosts)}


def prepare_to_join_ray() -> None:
    """Set the variables of `environment_beside_ray` in this process; call it before Ray is imported."""
    os.environ.pop(_RUNTIME_HOOK, None)
    os.environ.update(environment_beside_ray(os.environ))


def log_size(log: Path) -> int:
    """The size of a log in bytes; 0 if it does not exist."""
    return log.stat().st_size if log.exists() else 0


def log_end(log: Path, since: int = 0) -> str:
    """The last lines of a log, for an error message; `since` is the size at which the present run began."""
    with contextlib.suppress(OSError):
        data = log.read_bytes()
        lines = data[since if since <= len(data) else 0 :].decode(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])
    return "(no log)"
