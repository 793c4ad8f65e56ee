"""Turn any executable into a fault-tolerant compute grid.

This module has the public names. They are imported at their first use: `import raygrid` alone imports no other module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from raygrid import errors
    from raygrid.client import (
        AsyncBatchJobs,
        AsyncClient,
        AsyncJob,
        BatchJobs,
        BatchStatus,
        Client,
        Job,
        JobStatus,
        Result,
        as_completed,
    )
    from raygrid.client.default import connect, map, submit
    from raygrid.errors import (
        BusyError,
        ConflictError,
        ConnectionFailedError,
        DamagedResultError,
        GroupNotFoundError,
        HandOverError,
        InvalidRequestError,
        JobCancelledError,
        JobFailedError,
        JobNotFoundError,
        MismatchedResponseError,
        NodeNotFoundError,
        NotAuthorizedError,
        NotFinishedError,
        RaygridError,
        ResultExpiredError,
        SettingsError,
        TooLargeError,
        UnavailableError,
        UnknownDataError,
        UnknownPricerError,
        WaitTimeoutError,
    )
    from raygrid.local import GridFile

__version__ = "0.2.0"

__all__ = [
    "AsyncBatchJobs",
    "AsyncClient",
    "AsyncJob",
    "BatchJobs",
    "BatchStatus",
    "BusyError",
    "Client",
    "ConflictError",
    "ConnectionFailedError",
    "DamagedResultError",
    "GroupNotFoundError",
    "HandOverError",
    "InvalidRequestError",
    "Job",
    "JobCancelledError",
    "JobFailedError",
    "JobNotFoundError",
    "JobStatus",
    "MismatchedResponseError",
    "NodeNotFoundError",
    "NotAuthorizedError",
    "NotFinishedError",
    "RaygridError",
    "Result",
    "ResultExpiredError",
    "SettingsError",
    "TooLargeError",
    "UnavailableError",
    "UnknownDataError",
    "UnknownPricerError",
    "WaitTimeoutError",
    "as_completed",
    "connect",
    "errors",
    "init",
    "map",
    "shutdown",
    "submit",
]

_own_grid: GridFile | None = None


def init(
    pricer: str | Mapping[str, str] | None = None,
    config: str | Path | None = None,
    racks: int | None = None,
    nodes: int | None = None,
) -> Client:
    """Connect to the configured grid or to the one that runs on this machine; if there is none, start one here.

    A grid that this call starts ends with `shutdown()` or with the process, even if the process is killed; start a grid
    that must outlive it with `raygrid up`. A running grid must match the arguments that are given. A start takes some
    seconds; a message on stderr announces it in a notebook or at a prompt, elsewhere the logger `raygrid` (INFO).

    Args:
        pricer: command of the pricer, such as `./pricer.exe {input}`, or a mapping from names to commands.
        config: path of a `grid.yaml`.
        racks: number of racks to start; by default 1.
        nodes: number of nodes in each rack; by default 1.

    Raises:
        SettingsError: a setting is wrong, or the running grid does not match the arguments.
    """
    import atexit  # noqa: PLC0415 - `import raygrid` imports nothing

    from raygrid.cli.local_grid import find_or_start  # noqa: PLC0415 - as above

    global _own_grid  # noqa: PLW0603 - shutdown() stops what init() started
    client, started = find_or_start(pricer, config, racks, nodes)
    if started is not None:
        _own_grid = started
        atexit.register(shutdown)
    return client


def shutdown() -> None:
    """Disconnect, and stop the grid if `init` started it."""
    from raygrid.client import default  # noqa: PLC0415 - as above

    global _own_grid
    default.forget()
    grid, _own_grid = _own_grid, None
    if grid is not None:
        from raygrid.local import stop_grid  # noqa: PLC0415 - as above

        stop_grid(grid)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'raygrid' has no attribute {name!r}")
    if name == "errors":
        return importlib.import_module("raygrid.errors")
    if name.endswith("Error"):
        home = "raygrid.errors"
    elif name in ("connect", "map", "submit"):
        home = "raygrid.client.default"
    else:
        home = "raygrid.client"
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
