"""The calls of parents to a candidate (`LeaderCalls`), passed on to its leader while it leads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raygrid.leader.election import Candidate
from raygrid.models import QueuedJob
from raygrid.settings.model import GridSettings
from raygrid.transport.ports import LeaderReply


class LeaderService:
    """Implements `LeaderCalls` on one candidate; `on_newer_settings` gets settings that are newer than all before."""

    def __init__(
        self,
        candidate: Candidate,
        settings: GridSettings,
        on_newer_settings: Callable[[GridSettings], None] = lambda settings: None,
    ) -> None:
        self._candidate = candidate
        self._on_newer_settings = on_newer_settings
        self.settings = settings

    async def enqueue(self, jobs: Sequence[QueuedJob]) -> None:
        """See `LeaderCalls.enqueue`."""
        self._candidate.leader.enqueue(jobs)

    async def forget(self, job_ids: Sequence[str]) -> None:
        """See `LeaderCalls.forget`."""
        await self._candidate.leader.forget(job_ids)

    async def cancel(self, job_ids: Sequence[str]) -> None:
        """See `LeaderCalls.cancel`."""
        self._candidate.leader.cancel(job_ids)

    async def changes(self, epoch: str, after: int, wait_s: float) -> LeaderReply:
        """See `LeaderCalls.changes`."""
        return await (await self._candidate.leading(wait_s)).changes(epoch, after, wait_s)

    async def configure(self, settings: GridSettings) -> None:
        """See `LeaderCalls.configure`. A restarted candidate has older settings until parents send newer ones."""
        if settings.deployed_at > self.settings.deployed_at:
            self.settings = settings
            self._on_newer_settings(settings)
        self._candidate.leader.configure(self.settings)

    async def hand_over(self) -> None:
        """See `LeaderCalls.hand_over`."""
        await self._candidate.hand_over()

    async def stand(self) -> None:
        """See `LeaderCalls.stand`."""
        self._candidate.stand()
