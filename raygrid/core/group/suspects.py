"""Distinguishes a job that kills its nodes from the jobs that ran next to it.

The loss of a node is charged to every job that ran there, because any of them may be the cause. A job next to the
culprit never has more losses than the culprit. So it is enough to separate suspects (jobs that were on a lost node)
before the last allowed attempt: a job that would fail by one more loss gets a node without other suspects, and such a
loss is charged only if no other suspect was on the node. All other jobs are placed as usual, so that the failure of a
machine does not delay its jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raygrid.core.group.entry import Entry
from raygrid.core.group.placement import NodeRecord

APART_S = 0.5  # delay before the next try for a suspect for which no node with room is suitable


def at_last_chance(entry: Entry, max_attempts: int) -> bool:
    """Whether one more loss would fail a job that has lost nodes before."""
    return entry.counts.losses > 0 and entry.counts.failures >= max_attempts - 1


def losses_to_charge(lost: Sequence[Entry], max_attempts: int) -> list[bool]:
    """For each job on a lost node, whether the loss is charged to it.

    `lost` includes jobs that waited on the node for a slot, because one of them may have started without a report. The
    caller must not charge these.
    """
    suspects = sum(entry.suspect for entry in lost)
    return [suspects == 1 or not at_last_chance(entry, max_attempts) for entry in lost]


def may_join(entry: Entry, node: NodeRecord, jobs: Mapping[str, Entry], max_attempts: int) -> bool:
    """Whether a suspect may run on a node, given the jobs that the node holds."""
    others = (jobs.get(attempt.job_id) for attempt in node.held)
    suspects = [other for other in others if other is not None and other.suspect and other is not entry]
    if at_last_chance(entry, max_attempts):
        return not suspects
    return not any(at_last_chance(other, max_attempts) for other in suspects)
