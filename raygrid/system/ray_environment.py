"""The environment variables of Ray nodes and of processes that join Ray."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from raygrid.system.loopback import without_proxy

NO_UPLOADS = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
"""For processes that join Ray: below `uv run`, Ray would pack their working directory, such as a grid's whole state,
and send it to every worker; from 512 MiB on it fails. Must be set before Ray is imported."""

RAY_SETTINGS = {
    # Ray's memory monitor kills only Ray's own workers, which are the grid's tiers; agents watch the memory instead and
    # kill the pricer that grew most.
    "RAY_memory_monitor_refresh_ms": "0",
    # Ray gives its workers the highest out-of-memory score, and pricers inherit it: the kernel would kill a tier as
    # readily as a pricer.
    "RAY_worker_oom_score_adjustment": "0",
    # Ray's ports are open to the machine's network; with this, every process needs the cluster's token.
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    # Ray would start an idle worker for each processor when a driver connects.
    "RAY_prestart_worker_first_driver": "0",
    # By default, Ray runs its workers, and so every pricer, at nice 15.
    "RAY_worker_niceness": "0",
    # The reaper, a child of the agent, must outlive the agent to clean up.
    "RAY_kill_child_processes_on_worker_exit": "0",
    "RAY_ROTATION_MAX_BYTES": str(32 * 1024**2),
    "RAY_SERVE_KV_TIMEOUT_S": "5",
}
"""For all Ray nodes of a local grid and of a cluster alike. Must be set before Ray is started."""

UTF8 = {"PYTHONUTF8": "1"}
"""For processes of a grid: file names are UTF-8 in all of them, independent of the locale. Pricers do not get it."""

_SETTINGS = ("RAYGRID__", "RAYGRID_API_KEY")

_RUNTIME_HOOK = "RAY_RUNTIME_ENV_HOOK"


def environment_beside_ray(environment: Mapping[str, str], hosts: Iterable[str] = ()) -> dict[str, str]:
    """The environment for a process that joins Ray: no uploads, no proxy for this machine and `hosts`, UTF-8 names."""
    # `uv run` may have set the hook, which uploads files. They are not needed: raygrid is installed on every node.
    rest = {name: value for name, value in environment.items() if name != _RUNTIME_HOOK}
    return {**rest, **NO_UPLOADS, **UTF8, **without_proxy(environment, hosts)}


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without the variables that are settings of raygrid, which may hold keys and passwords."""
    return {name: value for name, value in environment.items() if not name.upper().startswith(_SETTINGS)}


def prepare_to_join_ray() -> None:
    """Set the variables of `environment_beside_ray` in this process; call it before Ray is imported."""
    os.environ.pop(_RUNTIME_HOOK, None)
    os.environ.update(environment_beside_ray(os.environ))
