"""Generates the page of the Python interface: its public names, for which mkdocstrings inserts the docstrings."""

from __future__ import annotations

from dataclasses import dataclass

from docs.reference.markdown import page, text

OPENING = """\
The [guide](../guides/python.md) has examples. `import raygrid` loads no other module: each name is imported at its
first use."""


@dataclass(frozen=True)
class Part:
    """One part of the page: a title, a sentence, and the names of a module in order."""

    title: str
    opening: str
    module: str
    names: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The full names."""
        return tuple(f"{self.module}.{name}" for name in self.names)


PARTS = (
    Part(
        "Functions",
        "They use one grid, which `init` or `connect` chooses.",
        "raygrid",
        ("init", "connect", "submit", "map", "as_completed", "shutdown"),
    ),
    Part(
        "Clients",
        "For more than one grid in a process, and for asyncio.",
        "raygrid",
        ("Client", "AsyncClient"),
    ),
    Part(
        "Jobs and results",
        "The values that clients return.",
        "raygrid",
        ("Job", "AsyncJob", "BatchJobs", "AsyncBatchJobs", "Result", "JobStatus", "BatchStatus"),
    ),
    Part(
        "Options of a submit",
        "Keyword arguments of every `submit` and `map`.",
        "raygrid.client.options",
        ("JobOptions",),
    ),
    Part(
        "Warm pricers",
        "What a warm pricer in Python imports; the [guide](../guides/warm-pricers.md) has an example.",
        "raygrid.pricer",
        ("serve", "PricerJob"),
    ),
    Part(
        "Errors",
        "All are below `RaygridError`. Each message states what happened, to which job, node or group, and what to do.",
        "raygrid.errors",
        (
            "RaygridError",
            "SettingsError",
            "InvalidRequestError",
            "UnknownPricerError",
            "UnknownDataError",
            "UnknownSiteError",
            "TooLargeError",
            "ConflictError",
            "NotAuthorizedError",
            "JobNotFoundError",
            "NodeNotFoundError",
            "GroupNotFoundError",
            "NotFinishedError",
            "ResultExpiredError",
            "JobFailedError",
            "JobCancelledError",
            "HandOverError",
            "BusyError",
            "UnavailableError",
            "DamagedResultError",
            "MismatchedResponseError",
            "WaitTimeoutError",
            "ConnectionFailedError",
        ),
    ),
)


def markdown() -> str:
    """The page, with one directive for each name."""
    parts = []
    for part in PARTS:
        parts += [f"## {part.title}", text(part.opening)]
        parts += [f"::: {path}" for path in part.paths]
    return page("Python", OPENING, parts)
