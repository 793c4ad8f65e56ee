"""When a group counts as lost, or as idle: by its lease and its leader's reports."""

from __future__ import annotations

from raygrid.core.routing.lost_groups import LostGroups, LostGroupTimeouts, takes_jobs
from raygrid.models import GroupCapacity, NodeView

LOOK_S = 0.5


def group(name: str = "a", state: str = "ok", slots: int = 2) -> GroupCapacity:
    usable = slots if state in ("ok", "probation") else 0
    return GroupCapacity(name, usable, 0, 0, (NodeView(f"{name}-1", name, slots, 0, state),))


class Story:
    """A watcher that looks every half a second; leases are given by their ends."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now
        self.watch = LostGroups(LostGroupTimeouts(led_s=2.0, idle_s=7.0, start_s=30.0))

    def look(self, ends: dict[str, float], *heard: GroupCapacity, until: float) -> None:
        """Look until an instant; the leases end at those of `ends`."""
        while self.now < until:
            self.now += LOOK_S
            self.watch.observe({name: end - self.now for name, end in ends.items()}, heard, self.now)

    @property
    def lost(self) -> list[str]:
        return self.watch.lost(self.now)

    @property
    def idle(self) -> list[str]:
        return self.watch.idle(self.now)


def test_a_group_is_lost_when_its_lease_has_been_run_out_for_long_enough() -> None:
    """Two seconds after the lease ran out, not before; a group whose lease lives is not."""
    story = Story()
    story.look({"a": 103.0, "b": 200.0}, until=104.5)
    assert story.lost == []
    story.look({"a": 103.0, "b": 200.0}, until=105.0)
    assert story.lost == ["a"]


def test_a_group_that_is_led_again_is_not_lost() -> None:
    """Whenever the lease is taken anew the time starts anew."""
    story = Story()
    story.look({"a": 103.0}, until=106.0)
    assert story.lost == ["a"]
    story.look({"a": 110.0}, until=107.0)
    assert story.lost == []
    story.look({"a": 110.0}, until=111.5)
    assert story.lost == []


def test_one_look_is_not_enough() -> None:
    """If looks are far apart, three in a row have to find no leader."""
    story = Story()
    story.watch.observe({"a": 1.0}, (), 100.0)
    story.watch.observe({"a": -1.5}, (), 102.9)
    story.watch.observe({"a": -4.0}, (), 105.4)
    assert story.watch.lost(105.4) == []
    story.watch.observe({"a": -4.5}, (), 105.9)
    assert story.watch.lost(105.9) == ["a"]


def test_at_the_start_of_a_grid_groups_have_far_more_time() -> None:
    """A group that was not led since the watching began may be about to come up: it is lost after half a minute."""
    story = Story()
    story.look({"a": 20.0}, until=129.5)
    assert story.lost == []
    story.look({"a": 20.0}, until=131.0)
    assert story.lost == ["a"]


def test_after_a_gap_nothing_is_lost() -> None:
    """A store that was away for 5 s let all leases run out: each group gets as long to come back as at the start."""
    story = Story()
    story.look({"a": 200.0, "b": 200.0}, until=104.0)
    story.now = 109.0
    story.look({"a": 106.0, "b": 106.0}, until=115.0)
    assert story.lost == []
    story.look({"a": 200.0, "b": 106.0}, until=141.0)
    assert story.lost == ["b"]


def test_looks_that_fail_count_against_the_patience() -> None:
    """No lease could be renewed while a look failed: the time counts from there."""
    story = Story()
    story.look({"a": 103.0}, until=104.0)
    story.watch.failed(104.5)
    story.look({"a": 103.0}, until=106.0)
    assert story.lost == []
    story.look({"a": 103.0}, until=106.5)
    assert story.lost == ["a"]


def test_a_clock_put_forward_loses_no_group() -> None:
    """Leases that were alive at the last look cannot have been over for an hour at the next."""
    story = Story()
    story.look({"a": 200.0}, until=102.0)
    for _ in range(3):
        story.now += LOOK_S
        story.watch.observe({"a": -3600.0}, (), story.now)
    assert story.lost == []


def test_a_group_without_a_node_that_takes_jobs_becomes_idle() -> None:
    """Seven seconds after its last node was gone; a draining node does not count, one on probation does."""
    for gone in (GroupCapacity("a", 0, 0, 3), group(state="drained"), group(state="unhealthy")):
        story = Story()
        story.look({"a": 200.0}, group(), until=101.0)
        story.look({"a": 200.0}, gone, until=108.0)
        assert story.idle == []
        story.look({"a": 200.0}, gone, until=108.5)
        assert (story.idle, story.lost) == (["a"], [])
        story.look({"a": 200.0}, group(state="probation"), until=109.0)
        assert story.idle == []


def test_a_group_that_has_not_worked_yet_is_not_idle_for_long() -> None:
    """Its nodes may be about to start."""
    story = Story()
    story.look({"a": 200.0}, GroupCapacity("a", 0, 0, 3), until=129.0)
    assert story.idle == []
    story.look({"a": 200.0}, GroupCapacity("a", 0, 0, 3), until=131.0)
    assert story.idle == ["a"]


def test_a_group_without_a_report_is_not_idle() -> None:
    """Without its leader's report nothing is known of its nodes."""
    story = Story()
    story.look({"a": 200.0}, group(), until=101.0)
    story.look({"a": 200.0}, until=120.0)
    assert story.idle == []


def test_a_full_group_takes_jobs() -> None:
    """A quota that is used up does not make a group idle."""
    full = GroupCapacity("a", 0, 2, 0, (NodeView("a-1", "a", 2, 2, "ok"),))
    assert takes_jobs(full)
    assert not takes_jobs(GroupCapacity("a", 0, 0, 0))
