"""Telling a job that kills its nodes from those that merely ran beside it.

A lost node is charged to every job that ran there, for it may be any of them, or none. Whoever ran beside the culprit
now and then has at most as many losses as the culprit. So it is enough to keep them apart in the end: a job that would
fail by one more loss runs on a node with no other suspect (a job that was on a lost node before), and only a loss
without another suspect beside it is charged to it. All others run as they come: a machine that merely died costs its
jobs no time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raygrid.core.group.entry import Entry
from raygrid.core.group.placement import NodeRecord

APART_S = 0.5  # a suspect for which no node with room will do looks again after this long


def at_last_chance(entry: Entry, max_attempts: int) -> bool:
    """Whether one more loss would be the end of a job that has lost nodes."""
    return entry.counts.losses > 0 and entry.counts.failures >= max_attempts - 1


def charged(lost: Sequence[Entry], max_attempts: int) -> list[bool]:
    """To which of the jobs that a lost node had the loss is charged, in their order.

    Jobs that were still waiting on the node for a slot are among them, for one may have got it unseen; it is for the
    caller not to charge these.
    """
    suspects = sum(entry.suspect for entry in lost)
    return [suspects == 1 or not at_last_chance(entry, max_attempts) for entry in lost]


def may_join(entry: Entry, node: NodeRecord, jobs: Mapping[str, Entry], max_attempts: int) -> bool:
    """Whether a suspect may run on a node, by what the node has."""
    others = (jobs.get(attempt.job_id) for attempt in node.held)
    suspects = [other for other in others if other is not None and other.suspect and other is not entry]
    if at_last_chance(entry, max_attempts):
        return not suspects
    return not any(at_last_chance(other, max_attempts) for other in suspects)
