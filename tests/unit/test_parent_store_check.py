"""Whether jobs can be written: the store is asked seldom, and a slow moment does not count."""

from __future__ import annotations

import asyncio

import pytest

from raygrid.errors import UnavailableError
from raygrid.parent import store_check
from raygrid.parent.store_check import StoreCheck
from raygrid.store import LockedError
from tests.simulation.memory_store import MemoryStore


class Store(MemoryStore):
    """A store whose probes are counted, may fail, and may take their time."""

    def __init__(self) -> None:
        super().__init__()
        self.probes = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def probe(self) -> None:
        self.probes += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer is old at once, and a new one is waited for only shortly."""
    for name, value in (("FRESH_S", 0.0), ("AGAIN_S", 0.0), ("WAIT_S", 0.05)):
        monkeypatch.setattr(store_check, name, value)


async def test_many_questions_cost_one_write() -> None:
    """A hundred questions at once and one after the other cost one row."""
    store = Store()
    check = StoreCheck(store)
    await asyncio.gather(*(check.require() for _ in range(50)))
    for _ in range(50):
        await check.require()
    assert store.probes == 1


@pytest.mark.usefixtures("impatient")
async def test_an_error_of_the_store_is_shown_until_it_is_over() -> None:
    """The store's own message is passed on; the next look without an error ends that."""
    store = Store()
    check = StoreCheck(store)
    for error, text in (
        (UnavailableError("the disk is full"), "the disk is full"),
        (ValueError("odd"), "writing to the job store failed: odd"),
    ):
        store.error = error
        with pytest.raises(UnavailableError, match=text):
            await check.require()
    store.error = None
    await check.require()


@pytest.mark.usefixtures("impatient")
async def test_a_slow_moment_does_not_count() -> None:
    """While a look takes long, or ends because others write, the answer before counts, good or bad."""
    store = Store()
    check = StoreCheck(store)
    store.error = LockedError("locked")
    await check.require()
    store.gate.clear()
    await check.require()
    store.error = UnavailableError("the disk is full")
    store.gate.set()
    with pytest.raises(UnavailableError, match="the disk is full"):
        await check.require()
    store.error = LockedError("locked")
    with pytest.raises(UnavailableError, match="the disk is full"):
        await check.require()
    store.gate.clear()
    store.error = None
    with pytest.raises(UnavailableError, match="the disk is full"):
        await check.require()
    await check.close()
