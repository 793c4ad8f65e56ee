"""A leader's writes, and what follows them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from raygrid.core.lease import Lease
from raygrid.leader.outbox import Outbox
from raygrid.models import JobState, JobUpdate


class Takes:
    """A job store that takes every write."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def record(self, group_id: str, term: int, updates: Sequence[JobUpdate]) -> None:
        self.taken += [update.job_id for update in updates]


async def test_a_leader_whose_news_break_steps_down() -> None:
    """Nobody would hear of the writes that follow, so another leader is to begin with what the store has."""
    store: Any = Takes()
    stale = asyncio.Event()

    def breaks(updates: Sequence[JobUpdate]) -> None:
        raise KeyError(updates[0].job_id)

    now = datetime.now(UTC)
    outbox = Outbox(store, Lease("rack-a", "me", 1, now), breaks, stale.set)
    outbox.put([JobUpdate("job", JobState.RUNNING, 1, "a1", now)])
    async with asyncio.timeout(10):
        await outbox.run()
    assert stale.is_set()
    assert store.taken == ["job"]
