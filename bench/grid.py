"""Starts a grid for a measurement on this machine; it ends with the context and with this process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.tiers import settle
from raygrid.client import Client
from raygrid.local import free_port, start_grid, stop_grid
from raygrid.settings.model import load_settings


@dataclass(frozen=True, slots=True)
class BenchGrid:
    """A running grid: its client, address, state directory and supervisor."""

    client: Client
    url: str
    state_dir: Path
    pid: int


@contextmanager
def grid(pricers: Mapping[str, Mapping[str, Any]], *, slots: int, **settings: Any) -> Iterator[BenchGrid]:
    """Start a grid of one node with these pricers; further settings go to `load_settings`."""
    with tempfile.TemporaryDirectory(prefix="raygrid-bench-", ignore_cleanup_errors=True) as scratch:
        started = start_grid(
            load_settings(
                name="bench",
                pricers={name: dict(pricer) for name, pricer in pricers.items()},
                default_pricer=next(iter(pricers)),
                http={"port": free_port()},
                node={"slots": slots},
                storage={"state_dir": scratch},
                **settings,
            ),
            with_caller=True,
        )
        try:
            settle(started.pid)
            with Client(started.url) as client:
                yield BenchGrid(client, started.url, Path(scratch), started.pid)
        finally:
            stop_grid(started)
