"""What all tests share: where the reference data is, and a PostgreSQL server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from raygrid.loopback import without_proxy
from tests.support.postgres import Postgres

# The one setting that says where the reference data lies; by default beside the project.
REFERENCE_DATA = Path(os.environ.get("RAYGRID_REFERENCE_DATA", Path(__file__).parents[2] / "shared" / "data"))

# Tests kill processes, never the machine's power: what they write may stay in memory. A disk that takes seconds for a
# flush, because everything else on it is busy, would let leases run out that no test has broken.
IN_MEMORY = Path("/dev/shm")
ROOM = 2 * 1024**3


# How long an example takes tells how busy the machine is.
hypothesis.settings.register_profile(
    "busy-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy-machine")


def pytest_configure() -> None:
    """Have temporary directories in memory, where there is room and nobody has said otherwise; no proxy for tests."""
    os.environ.update(without_proxy(os.environ))  # tests ask this machine with curl and with clients of all kinds
    if os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))


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
