"""Reads jobs from the store that a node reports and this leader does not know.

A leader has only a window of its jobs in memory, and an earlier leader may have started jobs that it could not record.
Their answers count, and their running attempts are adopted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from raygrid.core.group.events import NodeReported
from raygrid.models import AttemptId, QueuedJob
from raygrid.store import JobStore
from raygrid.system.failure_log import log_failure

logger = logging.getLogger(__name__)

AT_ONCE = 500


class Lookup:
    """Completes replies of nodes; `is_unknown` is true for a job without a record or a pending write here."""

    def __init__(self, store: JobStore, group_id: str, is_unknown: Callable[[str], bool]) -> None:
        self._store = store
        self._group_id = group_id
        self._is_unknown = is_unknown

    async def complete(self, reply: NodeReported) -> NodeReported | None:
        """Add the unknown jobs of a reply; None if reading them failed and a report would be lost."""
        unknown = self._unknown(report.attempt for report in reply.reports)
        reported = len(unknown)
        unknown |= self._unknown(reply.state.running)
        if not unknown:
            return reply
        job_ids = list(unknown)
        found: list[QueuedJob] = []
        try:
            for start in range(0, len(job_ids), AT_ONCE):
                found += await self._store.unfinished_of(self._group_id, job_ids[start : start + AT_ONCE])
        except Exception as error:
            log_failure(logger, error, "group %s: cannot read reported jobs; trying again", self._group_id)
            return None if reported else reply
        here = {job.spec.job_id for job in found}
        logger.info(
            "group %s: node %s reports %d jobs that the leader did not know; %d are unfinished",
            self._group_id,
            reply.state.node_id,
            len(job_ids),
            len(here),
        )
        return replace(reply, found=tuple(found), gone=tuple(job_id for job_id in job_ids if job_id not in here))

    def _unknown(self, attempts: Iterable[AttemptId]) -> dict[str, None]:
        """The unknown job ids, without duplicates, in order."""
        job_ids = dict.fromkeys(attempt.job_id for attempt in attempts)
        return {job_id: None for job_id in job_ids if self._is_unknown(job_id)}
