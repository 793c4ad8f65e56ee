"""A guarantee of every SQL store that is closed while it is used."""

from __future__ import annotations

import asyncio

import pytest

from raygrid.errors import UnavailableError
from raygrid.store import SqlStore
from tests.contract.test_job_store import new


async def refuses_when_closed_under_load(store: SqlStore) -> None:
    """Open and close it under load; each call is carried out or refused as unavailable, and it can be opened again."""
    await store.open()
    calls = [store.insert([new(f"j{number}")]) for number in range(50)] + [store.get(["j1"]) for _ in range(50)]
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    late = [asyncio.ensure_future(store.insert([new(f"late{number}")])) for number in range(50)]
    await store.close()
    answers = await asyncio.gather(*tasks, *late, return_exceptions=True)
    assert {type(answer) for answer in answers if isinstance(answer, BaseException)} <= {UnavailableError}
    for call in (store.insert([new("after")]), store.get(["j1"]), store.leases()):
        with pytest.raises(UnavailableError, match=r"closed.*try again"):
            await call
    await store.open()
    assert await store.get(["after"]) == {}
    await store.close()
