"""The grid as this parent sees it, for users: all groups that it knows, including silent and lost ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from raygrid.core.lease import HandOver
from raygrid.core.routing.lost_groups import takes_jobs
from raygrid.models import GroupCapacity, NodeView
from raygrid.parent.service import Parent

GROUPS_SHOWN = 5
FORGOTTEN = timedelta(days=1)  # a group that is lost for longer and has never answered this parent is not shown


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group for users.

    Attributes:
        load: the load that its leader reported last; without slots for a silent or lost group.
        state: `ok`, `no_nodes` (no node takes jobs), `silent` (its leader does not answer), `lost` (it has no leader).
        since: for a lost group, when the lease of its last leader expired.
        unfinished: for a lost group, the number of jobs that have neither ended nor moved to other groups.
        hand_over: the last hand-over that was requested and carried out, if any was.
    """

    load: GroupCapacity
    state: str
    since: datetime | None = None
    unfinished: int | None = None
    hand_over: HandOver | None = None

    @property
    def why(self) -> str | None:
        """Why the group as a whole cannot be used; None for other groups."""
        if self.state == "lost":
            assert self.since is not None
            return f"the group is lost: it has had no leader since {self.since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        return "the leader of the group does not answer" if self.state == "silent" else None

    @property
    def nodes(self) -> list[NodeView]:
        """Its nodes; those of a silent or lost group are shown as lost."""
        if self.why is None:
            return list(self.load.nodes)
        return [replace(node, running=0, state="lost", why=self.why) for node in self.load.nodes]


def led(group: GroupCapacity) -> GroupView:
    """A group whose leader answers."""
    return GroupView(group, "ok" if takes_jobs(group) else "no_nodes")


def seen_groups(parent: Parent) -> list[GroupView]:
    """All groups that are lost or have ever answered this parent; `unfinished` is not filled in."""
    lost = parent.sweeper.lost
    live = {group.group_id: group for group in parent.groups.capacities()}
    known = {group.group_id: group for group in parent.groups.capacities(silent_too=True)}
    views = []
    recent = datetime.now(UTC) - FORGOTTEN
    for group_id in sorted(known.keys() | {each for each, since in lost.items() if since > recent}):
        if group_id not in lost and group_id in live:
            views.append(led(live[group_id]))
            continue
        configured = parent.settings.groups.get(group_id)
        last = known.get(group_id) or GroupCapacity(group_id, 0, 0, 0, site=configured.site if configured else None)
        past = replace(last, slots=0, running=0, leaving=0)
        views.append(GroupView(past, "lost" if group_id in lost else "silent", lost.get(group_id)))
    return [replace(view, hand_over=parent.sweeper.hand_overs.get(view.load.group_id)) for view in views]


async def all_groups(parent: Parent) -> list[GroupView]:
    """All groups; lost ones with the number of their unfinished jobs."""
    views = seen_groups(parent)
    lost = [view.load.group_id for view in views if view.state == "lost"]
    counts = await parent.store.count_unfinished(lost) if lost else {}
    return [_counted(view, counts.get(view.load.group_id, 0)) if view.state == "lost" else view for view in views]


def _counted(view: GroupView, count: int) -> GroupView:
    return replace(view, load=replace(view.load, queued=count), unfinished=count)


def why_not_ready(parent: Parent) -> str | None:
    """Why no job can run now, and what to do; None if jobs can run."""
    views = seen_groups(parent)
    if any(view.state == "ok" and view.load.slots > 0 for view in views):
        return None
    if not views:
        return "no group has a leader yet"
    nodes = [node for view in views for node in view.nodes]
    if nodes and all(node.state in ("draining", "drained") for node in nodes):
        return f"all nodes are being drained; end the drain of one with `raygrid undrain {nodes[0].node_id}`"
    shown = "; ".join(f"{view.load.group_id}: {view.why or _nodes_in_words(view)}" for view in views[:GROUPS_SHOWN])
    more = f"; and {len(views) - GROUPS_SHOWN} more groups" if len(views) > GROUPS_SHOWN else ""
    return f"no group can take jobs now: {shown}{more}"


def _nodes_in_words(view: GroupView) -> str:
    counts = Counter(node.state for node in view.load.nodes)
    if not counts:
        return "the group has no node yet"
    return "nodes are " + ", ".join(f"{state} ({count})" for state, count in sorted(counts.items()))
