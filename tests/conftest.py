"""What all tests share: markers, the place of the reference data, and a PostgreSQL server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from raygrid.system.loopback import without_proxy
from tests.run import MARKED, ROOT
from tests.support.postgres import Postgres

# The one setting that says where the reference data lies; by default beside the project.
REFERENCE_DATA = Path(os.environ.get("RAYGRID_REFERENCE_DATA", Path(__file__).parents[2] / "shared" / "data"))

# Directories all of whose tests belong to one row.
ROW_OF_DIRECTORY = {Path(__file__).parent / "faults": "hosts", Path(__file__).parent / "hostile": "hostile"}

# Tests kill processes, never the machine's power: what they write may stay in memory. A disk that takes seconds for a
# flush, because everything else on it is busy, would let leases run out that no test has broken.
IN_MEMORY = Path("/dev/shm")
ROOM = 2 * 1024**3


# How long an example takes depends on the load of the machine, so it is not checked.
hypothesis.settings.register_profile(
    "busy-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy-machine")


def pytest_configure() -> None:
    """Have temporary directories in memory, where there is room and nobody has said otherwise; no proxy for tests."""
    os.environ.update(without_proxy(os.environ))  # tests ask this machine with curl and with clients of all kinds
    if os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))


@pytest.hookimpl(tryfirst=True)  # before pytest selects by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests whose directory or fixtures decide what they need."""
    for item in items:
        for directory, marker in ROW_OF_DIRECTORY.items():
            if item.path.is_relative_to(directory):
                item.add_marker(marker)
        fixtures = getattr(item, "fixturenames", ())
        for fixture, marker in (("ray_grid", "ray"), ("postgres", "postgres")):
            if fixture in fixtures:
                item.add_marker(marker)
        rows = [row for row in MARKED if item.get_closest_marker(row.name)]
        if len(rows) > 1:
            raise pytest.UsageError(f"{item.nodeid} has the markers of several rows: {', '.join(r.name for r in rows)}")
        if rows and not item.path.is_relative_to(ROOT / rows[0].directory):
            raise pytest.UsageError(f"{item.nodeid} has the marker {rows[0].name}: move it to {rows[0].directory}")


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Published cases with their answers; tests that need them say so when they are not there."""
    if not REFERENCE_DATA.is_dir():
        pytest.skip(f"no reference data at {REFERENCE_DATA}; set RAYGRID_REFERENCE_DATA to where it is")
    return REFERENCE_DATA


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL server for all tests; who kills or freezes it starts it again."""
    server = Postgres()
    try:
        server.open()
        yield server
    finally:
        server.close()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The URL of an empty database of the test's own."""
    with postgres.database() as url:
        yield url
