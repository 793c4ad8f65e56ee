"""What a leader reports to its parents, and how they wait for it."""

from __future__ import annotations

import asyncio

import pytest

from raygrid.leader.change_feed import ChangeFeed
from raygrid.models import JobState
from raygrid.transport.ports import JobChange


@pytest.mark.parametrize("steps", range(5))
async def test_a_wait_that_is_cancelled_as_its_answer_comes_is_cancelled(steps: int) -> None:
    """A loop that misses the one cancellation it gets would never end, nor would a wait for it."""
    news = ChangeFeed()
    waiting = asyncio.get_running_loop().create_task(news.wait(0, 30))
    await asyncio.sleep(0)
    news.publish([JobChange("job", JobState.RUNNING)])
    for _ in range(steps):
        await asyncio.sleep(0)
    in_time = waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled() or not in_time


async def test_a_wait_ends_with_the_change_or_with_its_time() -> None:
    news = ChangeFeed()
    await news.wait(0, 0.01)
    waiting = asyncio.get_running_loop().create_task(news.wait(0, 30))
    await asyncio.sleep(0)
    news.publish([JobChange("job", JobState.RUNNING)])
    async with asyncio.timeout(10):
        await waiting
    assert news.after(0) == ((JobChange("job", JobState.RUNNING),), False)
