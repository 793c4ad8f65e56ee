"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raygrid.client import Client
from raygrid.local import GridFile, start_grid, stop_grid
from tests.support.ray_grid import alive, descendants, settings_for, until


@pytest.fixture(scope="session")
def ray_grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridFile]:
    """One grid on real Ray for all tests that need one: two racks of one node, two slots each."""
    grid = start_grid(settings_for(tmp_path_factory.mktemp("grid")), racks=2, nodes=1)
    processes = descendants(grid.pid)
    yield grid
    stop_grid(grid)
    until(lambda: not alive(processes), within_s=20)


@pytest.fixture
def client(ray_grid: GridFile) -> Iterator[Client]:
    """A client of the grid on real Ray."""
    with Client(ray_grid.url) as connected:
        yield connected
