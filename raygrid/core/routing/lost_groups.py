"""Detects lost and idle groups, so that other groups take their jobs; it takes several looks, never a single one.

A group is **lost** when no candidate has held its lease for a while: it has no leader that its nodes could report to.
It is **idle** when it has a leader but no node that takes jobs for a while: its queued jobs may run elsewhere.

The watching parent itself may be cut off, and every lease expires while the job store is unavailable. So a timeout
counts from the last failed look at the earliest, and after a gap between looks the observation starts again. A group
that has not worked since the observation began gets a much longer timeout, as at the start of a grid, where racks come
up one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raygrid.models import GroupCapacity

LOOKS = 3  # minimum number of successive looks without a leader
GAP_S = 3.0  # the TTL of a lease: in a longer gap, leases may have expired because the store was unavailable


@dataclass(frozen=True, slots=True)
class LostGroupTimeouts:
    """Timeouts after which a group counts as lost or idle.

    Attributes:
        led_s: after the lease of a group expired that was seen with a leader.
        idle_s: after a group last had a node that takes jobs.
        start_s: replaces either one for a group that has not worked since the observation began.
    """

    led_s: float = 2.0
    idle_s: float = 7.0
    start_s: float = 30.0


@dataclass(slots=True)
class _Observation:
    """The findings about a group; instants on the watcher's clock."""

    led_at: float | None = None
    unled_since: float | None = None
    looks: int = 0
    worked: bool = False
    idle_since: float | None = None


def takes_jobs(group: GroupCapacity) -> bool:
    """Whether a group has a node that takes jobs, even if it is full now."""
    return group.slots > 0 or any(node.slots > 0 and node.state in ("ok", "probation") for node in group.nodes)


class LostGroups:
    """Observes the groups. `now` (seconds) is on the caller's clock and never decreases."""

    def __init__(self, patience: LostGroupTimeouts) -> None:
        self._patience = patience
        self._seen: dict[str, _Observation] = {}
        self._looked_at: float | None = None
        self._failed_at = float("-inf")

    def observe(self, left_s: Mapping[str, float], groups: Sequence[GroupCapacity], now: float) -> None:
        """Record the findings of a look.

        Args:
            left_s: by group, seconds until its lease expires by the job store's clock; negative after that.
            groups: the groups whose leaders answered lately.
            now: the instant.
        """
        if self._looked_at is not None and now - self._looked_at > GAP_S:
            self._seen.clear()
        self._looked_at = now
        for group_id in self._seen.keys() - left_s.keys():
            del self._seen[group_id]
        for group_id, left in left_s.items():
            seen = self._seen.setdefault(group_id, _Observation())
            if left > 0:
                seen.led_at, seen.unled_since, seen.looks = now, None, 0
                continue
            if seen.unled_since is None:
                # If the store's clock was put forward: the lease did not expire before it was last seen unexpired.
                seen.unled_since = now if seen.led_at is None else max(now + left, seen.led_at)
            seen.looks += 1
        heard = {group.group_id: group for group in groups}
        for group_id, seen in self._seen.items():
            group = heard.get(group_id)
            if group is None:
                seen.idle_since = None
            elif takes_jobs(group):
                seen.worked, seen.idle_since = True, None
            elif seen.idle_since is None:
                seen.idle_since = now

    def failed(self, now: float) -> None:
        """Record a failed look: candidates could not renew their leases then, either."""
        self._failed_at = now

    def lost(self, now: float) -> list[str]:
        """The names of the groups without a leader, sorted."""
        return sorted(group_id for group_id, seen in self._seen.items() if self._is_lost(seen, now))

    def _is_lost(self, seen: _Observation, now: float) -> bool:
        if seen.unled_since is None or seen.looks < LOOKS:
            return False
        patience_s = self._patience.start_s if seen.led_at is None else self._patience.led_s
        return now - max(seen.unled_since, self._failed_at) >= patience_s

    def idle(self, now: float) -> list[str]:
        """The names of the groups with a leader but without a node that takes jobs, sorted."""
        patience = self._patience
        return sorted(
            group_id
            for group_id, seen in self._seen.items()
            if seen.unled_since is None
            and seen.idle_since is not None
            and now - seen.idle_since >= (patience.idle_s if seen.worked else patience.start_s)
        )
