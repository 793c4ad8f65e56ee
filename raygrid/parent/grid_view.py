"""The grid as this parent sees it, for people: every group that it knows of, those that cannot be heard included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from raygrid.core.routing.lost_groups import takes_jobs
from raygrid.models import GroupCapacity, NodeView
from raygrid.parent.service import Parent

GROUPS_TOLD = 5
FORGOTTEN = timedelta(days=1)  # a group that is lost for longer and was never heard here is one that ops took away


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group for people.

    Attributes:
        load: what its leader told last; without slots where that is past.
        state: `ok`, `no_nodes` (no node takes jobs), `silent` (its leader does not answer), `lost` (nobody leads it).
        since: since when nobody leads it, for a lost one.
        unfinished: jobs of a lost one that have not ended nor moved to other groups yet.
    """

    load: GroupCapacity
    state: str
    since: datetime | None = None
    unfinished: int | None = None

    @property
    def why(self) -> str | None:
        """What is wrong with the group as a whole."""
        if self.state == "lost":
            assert self.since is not None
            return f"its group is lost: nobody has led it since {self.since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        return "the leader of its group does not answer" if self.state == "silent" else None

    @property
    def nodes(self) -> list[NodeView]:
        """Its nodes: lost, as far as anybody can tell, where the group cannot be heard."""
        if self.why is None:
            return list(self.load.nodes)
        return [replace(node, running=0, state="lost", why=self.why) for node in self.load.nodes]


def led(group: GroupCapacity) -> GroupView:
    """A group whose leader answers."""
    return GroupView(group, "ok" if takes_jobs(group) else "no_nodes")


def seen_groups(parent: Parent) -> list[GroupView]:
    """All groups that were ever heard by this parent or are lost, without what only the job store knows."""
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
    return views


async def all_groups(parent: Parent) -> list[GroupView]:
    """All groups; of lost ones with how many jobs they still have."""
    views = seen_groups(parent)
    lost = [view.load.group_id for view in views if view.state == "lost"]
    counts = await parent.store.count_unfinished(lost) if lost else {}
    return [_counted(view, counts.get(view.load.group_id, 0)) if view.state == "lost" else view for view in views]


def _counted(view: GroupView, count: int) -> GroupView:
    return replace(view, load=replace(view.load, queued=count), unfinished=count)


def why_not_ready(parent: Parent) -> str | None:
    """Why no job could run now, and what to do; None where one can."""
    views = seen_groups(parent)
    if any(view.state == "ok" and view.load.slots > 0 for view in views):
        return None
    if not views:
        return "no group has a leader yet"
    nodes = [node for view in views for node in view.nodes]
    if nodes and all(node.state in ("draining", "drained") for node in nodes):
        return f"all nodes are being drained; let one work again with `raygrid undrain {nodes[0].node_id}`"
    told = "; ".join(f"{view.load.group_id}: {_trouble(view)}" for view in views[:GROUPS_TOLD])
    more = f"; and {len(views) - GROUPS_TOLD} more groups" if len(views) > GROUPS_TOLD else ""
    return f"no group can take jobs now: {told}{more}"


def _trouble(view: GroupView) -> str:
    if view.state == "lost":
        assert view.since is not None
        return f"lost, nobody has led it since {view.since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if view.state == "silent":
        return "its leader does not answer"
    if not view.load.nodes:
        return "it has no node yet"
    return _nodes_in_words(view.load.nodes)


def _nodes_in_words(nodes: Sequence[NodeView]) -> str:
    counts = Counter(node.state for node in nodes)
    return "nodes are " + ", ".join(f"{state} ({count})" for state, count in sorted(counts.items()))
