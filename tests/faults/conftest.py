"""Fixtures of the tests that need hosts: they skip with a reason where hosts cannot be made."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.faults.hosts import DESK, Hosts, five_hosts, why_not
from tests.support.postgres import Postgres


def require_hosts() -> None:
    """Skip where hosts cannot be made; but fail under CI, where skips are not noticed."""
    reason = why_not()
    if reason is None:
        return
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; CI must be able to make hosts")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Five hosts, switched on, with nothing running on them."""
    require_hosts()
    with five_hosts() as made:
        yield made


@pytest.fixture(scope="module")
def desk_postgres(hosts: Hosts) -> Iterator[Postgres]:
    """A PostgreSQL server at the desk, which all hosts reach."""
    server = Postgres(listen=(DESK, "127.0.0.1"), networks=("10.88.0.0/24", "127.0.0.1/32"))
    server.open()
    try:
        yield server
    finally:
        server.close()
