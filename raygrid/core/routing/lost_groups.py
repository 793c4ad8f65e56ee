"""Which groups are lost, so that other groups take their jobs: decided by watching, never by a single look.

A group is **lost** when nobody holds its lease for a while: all that could lead it are gone, and its nodes can tell
nobody what they run. It is **idle** when it is led but has had no node that takes jobs for a while: what waits there
may as well run elsewhere.

Whoever watches may itself be what is cut off, and a job store that was away lets every lease run out. So a look that
failed counts against the patience, and after a gap all watching begins anew: a group that has not been seen at work
since then is given far more time, as at the start of a grid, where racks come up one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raygrid.models import GroupCapacity

LOOKS = 3  # at least so many in a row that found nobody in the lead
GAP_S = 3.0  # the life of a lease: in a longer gap, leases may have run out for want of a store


@dataclass(frozen=True, slots=True)
class LostGroupTimeouts:
    """How long a group is waited for.

    Attributes:
        led_s: since the lease ran out of a group that was seen in the lead.
        idle_s: since a group had a node that takes jobs.
        start_s: for either, of a group that was not seen at work since the watching began.
    """

    led_s: float = 2.0
    idle_s: float = 7.0
    start_s: float = 30.0


@dataclass(slots=True)
class _Seen:
    """What the looks have found of a group; instants on the watcher's clock."""

    led_at: float | None = None
    unled_since: float | None = None
    looks: int = 0
    worked: bool = False
    idle_since: float | None = None


def takes_jobs(group: GroupCapacity) -> bool:
    """Whether a group has a node that takes jobs, be it full now."""
    return group.slots > 0 or any(node.slots > 0 and node.state in ("ok", "probation") for node in group.nodes)


class LostGroups:
    """Watches the groups. Time (`now`, seconds) is the caller's and never falls."""

    def __init__(self, patience: LostGroupTimeouts) -> None:
        self._patience = patience
        self._seen: dict[str, _Seen] = {}
        self._looked_at: float | None = None
        self._failed_at = float("-inf")

    def looked(self, left_s: Mapping[str, float], groups: Sequence[GroupCapacity], now: float) -> None:
        """Take what a look has found.

        Args:
            left_s: by group, how long its lease lives on by the job store's clock; below zero since it ran out.
            groups: those whose leaders were heard lately.
            now: the instant.
        """
        if self._looked_at is not None and now - self._looked_at > GAP_S:
            self._seen.clear()
        self._looked_at = now
        for group_id in self._seen.keys() - left_s.keys():
            del self._seen[group_id]
        for group_id, left in left_s.items():
            seen = self._seen.setdefault(group_id, _Seen())
            if left > 0:
                seen.led_at, seen.unled_since, seen.looks = now, None, 0
                continue
            if seen.unled_since is None:
                # Where the store's clock was put forward, the lease cannot have run out before it was last seen alive.
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
        """Take that a look has failed: nobody could renew a lease then, either."""
        self._failed_at = now

    def lost(self, now: float) -> list[str]:
        """The groups that nobody leads any more, by name."""
        return sorted(group_id for group_id, seen in self._seen.items() if self._is_lost(seen, now))

    def _is_lost(self, seen: _Seen, now: float) -> bool:
        if seen.unled_since is None or seen.looks < LOOKS:
            return False
        patience_s = self._patience.start_s if seen.led_at is None else self._patience.led_s
        return now - max(seen.unled_since, self._failed_at) >= patience_s

    def idle(self, now: float) -> list[str]:
        """The groups that are led but have no node that takes jobs, by name."""
        patience = self._patience
        return sorted(
            group_id
            for group_id, seen in self._seen.items()
            if seen.unled_since is None
            and seen.idle_since is not None
            and now - seen.idle_since >= (patience.idle_s if seen.worked else patience.start_s)
        )
