"""What starting a supervisor takes, be it of a grid on this machine or of a cluster's host."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from raygrid.system.logs import DIRECTORY, VARIABLE
from raygrid.system.loopback import without_proxy

NO_UPLOADS = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
"""For processes that join Ray: below `uv run`, Ray would pack their working directory, such as a grid's whole state,
and send it to every worker; from 512 MiB on it refuses to. Must be set before Ray is imported."""

TIERS_STAY = {
    # Ray's memory monitor can only kill Ray's own workers, which are the grid's tiers; the agents watch the memory and
    # kill the pricer that grew most instead.
    "RAY_memory_monitor_refresh_ms": "0",
    # Ray gives its workers the highest score there is, and pricers inherit it: the kernel would kill a tier as soon as
    # a pricer.
    "RAY_worker_oom_score_adjustment": "0",
}
"""For all Ray nodes: what keeps the tiers alive when memory runs out. Must be set before Ray is started."""

RAY_SETTINGS = {
    # Ray's ports are open to the machine's network: no process joins or asks without the cluster's token.
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    # Ray runs its workers, and so every pricer, at nice 15; here they are what the machine is for.
    "RAY_worker_niceness": "0",
    **TIERS_STAY,
    # An agent that ends must not take its reaper along, which cleans up after it.
    "RAY_kill_child_processes_on_worker_exit": "0",
    "RAY_ROTATION_MAX_BYTES": str(32 * 1024**2),
    "RAY_SERVE_KV_TIMEOUT_S": "5",
}
"""For all Ray nodes of a local grid and of a cluster alike. Must be set before Ray is started."""

UTF8 = {"PYTHONUTF8": "1"}
"""For processes of a grid: names of files are UTF-8 in all of them, whatever the locale of their starter. Pricers do
not get it: `node/attempt/runner.py` names what is passed on to them."""

_RUNTIME_HOOK = "RAY_RUNTIME_ENV_HOOK"
_TAIL_LINES = 12


def start_supervisor(module: str, given: bytes, directory: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a module as a process that outlives this one's terminal.

    Args:
        module: the module, run as a script.
        directory: what it works in, and by what others find it.
        given: what it finds on its standard input: settings may hold secrets, which do not belong into arguments.
        log: where its output goes, behind what is there.
    """
    log.parent.mkdir(mode=0o700, exist_ok=True)
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],  # nothing is imported from the directory
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
    """The environment for a process that joins Ray: nothing is uploaded, no proxy used here, names are UTF-8.

    Args:
        environment: what is set already.
        hosts: further hosts for which no proxy is used.
    """
    # The hook, too, may be the one of `uv run`; and raygrid is installed wherever its processes run.
    rest = {name: value for name, value in environment.items() if name != _RUNTIME_HOOK}
    return {**rest, **NO_UPLOADS, **UTF8, **without_proxy(environment, hosts)}


def prepare_to_join_ray() -> None:
    """Prepare this process for joining Ray, which must not be imported yet; see `environment_beside_ray`."""
    os.environ.pop(_RUNTIME_HOOK, None)
    os.environ.update(environment_beside_ray(os.environ))


def size_of(log: Path) -> int:
    """How many bytes a log has by now."""
    return log.stat().st_size if log.exists() else 0


def end_of(log: Path, since: int = 0) -> str:
    """The last lines of a log, for an error message.

    Args:
        log: the log.
        since: what it had by the begin of what the message is about; lines before are of earlier lives.
    """
    with contextlib.suppress(OSError):
        data = log.read_bytes()
        lines = data[since if since <= len(data) else 0 :].decode(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])
    return "(no log)"
