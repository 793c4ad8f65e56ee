"""Turn any executable into a fault-tolerant compute grid.

The public names only. They are imported when first used: `import raygrid` alone loads neither Ray nor
anything else.
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
    """Connect to the grid that is configured or runs on this machine; where there is none, start one here.

    A grid that this call starts ends with `shutdown()` or with the process, even if that is killed; one that is to
    outlive it is started with `raygrid up`. Of a grid that runs already, only what the arguments say has to be so.
    A start takes some seconds, which is said on stderr in a notebook or at a prompt, and elsewhere by the logger
    `raygrid`, as INFO.

    Args:
        pricer: command of the pricer, such as `./pricer.exe {input}`, or a mapping from names to commands.
        config: path of a `grid.yaml`.
        racks: how many racks to start; by default 1.
        nodes: how many nodes in each rack; by default 1.

    Raises:
        SettingsError: a setting is wrong, or the grid that runs already is not as the arguments say.
    """
    import atexit  # noqa: PLC0415 - `import raygrid` stays light

    from raygrid.cli.local_grid import find_or_start  # noqa: PLC0415 - as above

    global _own_grid  # noqa: PLW0603 - shutdown() stops what init() started
    client, started = find_or_start(pricer, config, racks, nodes)
    if started is not None:
        _own_grid = started
        atexit.register(shutdown)
    return client


def shutdown() -> None:
    """Disconnect, and stop the grid if `init` started it."""
    from raygrid.client import default  # noqa: PLC0415 - `import raygrid` stays light

    global _own_grid
    default.forget()
    grid, _own_grid = _own_grid, None
    if grid is not None:
        from raygrid.local import stop_grid  # noqa: PLC0415 - `import raygrid` stays light

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
