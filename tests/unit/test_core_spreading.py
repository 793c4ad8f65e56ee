"""Many jobs at once over the groups: no slot idles beside a queue, no queue overflows, nothing is random."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raygrid.core.routing.choice import RoutingPolicy, demand, rank
from raygrid.core.routing.spreading import deal, spread
from raygrid.models import GroupCapacity

LOAD = RoutingPolicy("least_loaded")
NEAR = RoutingPolicy("topology", site_distance={"LDN": {"PAR": 1.0, "NYC": 5.0}})

loads = st.builds(
    GroupCapacity,
    st.just(""),
    slots=st.integers(0, 40),
    running=st.integers(0, 60),
    queued=st.integers(0, 80),
    site=st.sampled_from([None, "LDN", "PAR", "NYC"]),
    mean_s=st.sampled_from([None, 0.01, 0.3, 4.0]),
)
grids = st.lists(loads, min_size=1, max_size=8).map(
    lambda groups: [replace(group, group_id=f"rack-{number}") for number, group in enumerate(groups)]
)
policies = st.builds(
    RoutingPolicy,
    st.sampled_from(["auto", "least_loaded", "topology", "hash"]),
    st.sampled_from([{}, NEAR.site_distance]),
    st.sampled_from([1.0, 1.25, 3.0]),
    st.sampled_from([0.0, 1.0]),
)
jobs = st.fixed_dictionaries(
    {
        "affinity": st.sampled_from([None, "book-1", "book-2"]),
        "site": st.sampled_from([None, "LDN", "TKY"]),
        "home": st.sampled_from([None, "rack-0", "rack-1"]),
    }
)


def group(name: str, slots: int = 4, running: int = 0, queued: int = 0, site: str | None = None) -> GroupCapacity:
    return GroupCapacity(name, slots, running, queued, site=site)


def after(groups: list[GroupCapacity], shares: list[tuple[str, int]]) -> list[GroupCapacity]:
    got = dict(shares)
    return [replace(each, queued=each.queued + got.get(each.group_id, 0)) for each in groups]


# --- for every policy -------------------------------------------------------------------------------------------


@given(policies, grids, st.integers(1, 3_000), st.integers(1, 300), jobs)
def test_every_job_gets_one_group_and_no_queue_overflows(
    policy: RoutingPolicy, groups: list[GroupCapacity], count: int, max_queued: int, job: dict[str, str | None]
) -> None:
    """As many are placed as there are, or as fit; no group gets beyond its limit, nor appears twice."""
    shares = spread(policy, groups, count, **job, max_queued=max_queued)
    fits = sum(max(0, max_queued - each.queued) for each in groups)
    assert sum(share for _, share in shares) == min(count, fits)
    assert all(share > 0 for _, share in shares)
    assert len({name for name, _ in shares}) == len(shares)
    got = {name for name, _ in shares}
    assert all(each.queued <= max_queued for each in after(groups, shares) if each.group_id in got)


@given(policies, grids, st.integers(1, 500), jobs)
def test_the_order_of_the_groups_does_not_matter(
    policy: RoutingPolicy, groups: list[GroupCapacity], count: int, job: dict[str, str | None]
) -> None:
    """Two parents that know the same decide the same."""
    assert spread(policy, groups, count, **job, max_queued=200) == spread(
        policy, groups[::-1], count, **job, max_queued=200
    )


@given(policies, grids, jobs, st.integers(1, 100))
def test_a_single_job_goes_where_it_ranks_first(
    policy: RoutingPolicy, groups: list[GroupCapacity], job: dict[str, str | None], max_queued: int
) -> None:
    """A batch of one is routed like a submit."""
    room = [each for each in groups if each.queued < max_queued]
    best = [(each.group_id, 1) for each in rank(policy, room, **job)[:1]]
    assert spread(policy, room, 1, **job, max_queued=max_queued) == best


@given(policies, grids, st.integers(1, 300), jobs)
def test_no_slot_idles_while_a_job_without_preference_queues(
    policy: RoutingPolicy, groups: list[GroupCapacity], count: int, job: dict[str, str | None]
) -> None:
    """Jobs that name neither affinity nor site queue only when every slot of the grid has a job."""
    shares = dict(spread(policy, groups, count, home=job["home"], max_queued=10_000))
    then = after(groups, list(shares.items()))
    queues = any(shares.get(each.group_id) and demand(each) > each.slots for each in then)
    idles = any(demand(each) < each.slots for each in then)
    assert not (queues and idles)


# --- by load ----------------------------------------------------------------------------------------------------


@given(grids, st.integers(1, 2_000))
def test_queues_end_within_one_job_per_slot(groups: list[GroupCapacity], count: int) -> None:
    """Of the groups that got jobs to queue, none has a queue longer by more than one job per slot than any other."""
    shares = dict(spread(LOAD, groups, count, max_queued=10_000))
    then = [each for each in after(groups, list(shares.items())) if each.slots]
    waiting = {each.group_id: max(0, demand(each) - each.slots) / each.slots for each in then}
    grown = [waiting[name] for name in shares if waiting.get(name, 0) > 0]
    if grown:
        assert max(grown) <= min(waiting.values()) + 1


def test_a_small_batch_leaves_no_rack_idle() -> None:
    """Twelve jobs on three idle racks of four slots: four each."""
    assert spread(LOAD, [group(name) for name in "abc"], 12, max_queued=100) == [("a", 4), ("b", 4), ("c", 4)]


def test_jobs_beyond_the_slots_queue_by_size() -> None:
    """A rack with three times the slots gets three times the queue; what ran or waited there before counts."""
    small, large, busy = group("small", 4), group("large", 12), group("busy", 4, running=4, queued=8)
    shares = dict(spread(LOAD, [small, large, busy], 16 + 40, max_queued=1_000))
    assert shares == {"small": 4 + 9, "large": 12 + 29, "busy": 2}
    then = {each.group_id: demand(each) / each.slots for each in after([small, large, busy], list(shares.items()))}
    assert max(then.values()) - min(then.values()) <= 0.5


def test_a_batch_costs_by_the_groups_not_by_the_jobs() -> None:
    """A hundred thousand jobs take about as long as a thousand; a loop over jobs would take a hundred times as long."""
    groups = [group(f"rack-{number}", 8) for number in range(50)]

    def seconds(count: int) -> float:
        begun = time.perf_counter()
        for _ in range(3):
            spread(LOAD, groups, count, max_queued=200_000)
        return time.perf_counter() - begun

    seconds(1_000)
    assert seconds(100_000) < 20 * seconds(1_000)


# --- by distance and by hash ------------------------------------------------------------------------------------


def test_a_named_site_is_filled_before_the_next_nearest() -> None:
    """Slots and a short queue at the site, then at the next nearest; what no site has room for is placed by load."""
    groups = [group("london", site="LDN"), group("paris", site="PAR"), group("york", site="NYC")]
    assert spread(NEAR, groups, 8, site="LDN", max_queued=100) == [("london", 8)]
    assert spread(NEAR, groups, 10, site="LDN", max_queued=100) == [("london", 8), ("paris", 2)]
    assert spread(NEAR, groups, 24 + 6, site="LDN", max_queued=100) == [("london", 10), ("paris", 10), ("york", 10)]


def test_the_parents_rack_fills_its_free_slots_first() -> None:
    """Under topology a batch without a site stays in the parent's rack as far as slots are free, and queues nowhere."""
    groups = [group("a", site="LDN"), group("b", site="LDN")]
    assert spread(NEAR, groups, 5, home="b", max_queued=100) == [("a", 1), ("b", 4)]
    assert spread(LOAD, groups, 4, home="b", max_queued=100) == [("a", 2), ("b", 2)]


def test_jobs_of_one_affinity_stay_together_within_the_bound() -> None:
    """On an idle grid one group gets all that its slots hold; of many it gets 1.25 times its share."""
    groups = [group(name) for name in "abcd"]
    policy = RoutingPolicy("hash")
    [(home, _)] = spread(policy, groups, 3, affinity="book", max_queued=1_000)
    shares = dict(spread(policy, groups, 400, affinity="book", max_queued=1_000))
    assert shares[home] == 125
    assert max(shares.values()) == 125


# --- shares -----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_every_part_of_a_batch_is_dealt_alike(counts: list[int]) -> None:
    """Each group gets its share, and of any first part of the batch its share of that, give or take one job."""
    shares = [(f"rack-{number}", count) for number, count in enumerate(counts)]
    dealt = deal(shares)
    assert Counter(dealt) == dict(shares)
    for end in range(len(dealt) + 1):
        seen = Counter(dealt[:end])
        assert all(abs(seen[name] - count * end / len(dealt)) <= len(counts) for name, count in shares)


@pytest.mark.parametrize("count", [1, 7])
def test_dealing_to_one_group_gives_it_all(count: int) -> None:
    """One group gets every job."""
    assert deal([("a", count)]) == ["a"] * count
