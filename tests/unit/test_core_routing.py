"""Choosing a group: by load, by distance, by hash."""

from __future__ import annotations

from collections import Counter

import pytest

from raygrid.core.routing.choice import RoutingPolicy, rank
from raygrid.models import GroupCapacity

LOAD, HASH, TOPOLOGY = (RoutingPolicy(policy) for policy in ("least_loaded", "hash", "topology"))
KEYS = [f"book-{number}" for number in range(2_000)]


def group(
    name: str,
    *,
    slots: int = 10,
    running: int = 0,
    queued: int = 0,
    site: str | None = None,
    mean_s: float | None = None,
) -> GroupCapacity:
    return GroupCapacity(name, slots, running, queued, site=site, mean_s=mean_s)


def order(policy: RoutingPolicy, *groups: GroupCapacity, affinity: str | None = None, site: str | None = None) -> str:
    return " ".join(found.group_id for found in rank(policy, groups, affinity=affinity, site=site))


# --- least loaded -------------------------------------------------------------------------------------------


def test_most_free_slots_first() -> None:
    """Free slots count without those that queued jobs are about to take."""
    assert order(LOAD, group("a", running=9), group("b", running=2), group("c", queued=5)) == "b c a"


def test_among_full_groups_the_shortest_queue_per_slot() -> None:
    """A long queue at a large group may be shorter than a short one at a small group."""
    large, small = (
        group("large", slots=100, running=100, queued=50),
        group("small", slots=2, running=2, queued=2),
    )
    assert order(LOAD, small, large) == "large small"


def test_equals_go_by_name() -> None:
    """The order does not depend on the order given."""
    assert order(LOAD, group("b"), group("c"), group("a")) == "a b c"


@pytest.mark.parametrize("policy", ["auto", "least_loaded", "topology", "hash"])
@pytest.mark.parametrize("affinity", [None, "book-1", "book-2", "book-3"])
def test_a_group_without_any_slot_comes_last(policy: str, affinity: str | None) -> None:
    """A rack that lost all its nodes gets nothing while another can work, however full or far that one is."""
    dead, full = group("dead", slots=0, site="LDN"), group("full", running=10, queued=500, site="NYC")
    assert order(RoutingPolicy(policy), dead, full, affinity=affinity, site="LDN") == "full dead"


def test_no_groups_is_no_choice() -> None:
    """Without groups every policy gives an empty list."""
    for policy in (LOAD, HASH, TOPOLOGY, RoutingPolicy()):
        assert rank(policy, [], affinity="k", site="LDN") == []


# --- topology -----------------------------------------------------------------------------------------------

DISTANCES = RoutingPolicy("topology", site_distance={"LDN": {"PAR": 1.0, "NYC": 5.0}})


def test_the_nearest_site_first_and_an_unknown_one_last() -> None:
    """The client's own site is at distance 0; a site without a given distance counts as far."""
    groups = [
        group("tokyo", site="TKY"),
        group("york", site="NYC"),
        group("here", site="LDN"),
        group("paris", site="PAR"),
    ]
    assert order(DISTANCES, *groups, group("nowhere"), site="LDN") == "here paris york nowhere tokyo"


def test_inside_a_site_the_load_decides() -> None:
    """Two racks of one site share its jobs by load."""
    assert order(DISTANCES, group("a", site="LDN", running=5), group("b", site="LDN"), site="LDN") == "b a"


def test_a_full_site_lets_the_next_one_help() -> None:
    """A near group without room comes after every group that has some, but before farther full ones."""
    near, far = group("near", running=10, queued=10, site="LDN"), group("far", site="NYC")
    full_far = group("full-far", running=10, queued=10, site="NYC")
    assert order(DISTANCES, near, full_far, far, site="LDN") == "far near full-far"


def test_without_a_site_topology_goes_by_load() -> None:
    """A job without a site has no preferred group."""
    assert order(DISTANCES, group("a", running=5, site="LDN"), group("b", site="TKY")) == "b a"


def test_a_short_queue_at_the_named_site_is_room() -> None:
    """One job per slot may wait at the site that a job names; the next one goes to the nearest other site."""
    far = group("far", site="NYC")
    assert order(DISTANCES, group("near", running=10, queued=9, site="LDN"), far, site="LDN") == "near far"
    assert order(DISTANCES, group("near", running=10, queued=10, site="LDN"), far, site="LDN") == "far near"


@pytest.mark.parametrize(
    ("mean_s", "patience_s", "limit"),
    [(None, 1.0, 10), (5.0, 1.0, 10), (0.25, 1.0, 40), (0.001, 1.0, 160), (5.0, 20.0, 40), (0.25, 0.0, 0)],
)
def test_the_allowed_queue_depends_on_run_times(mean_s: float | None, patience_s: float, limit: int) -> None:
    """Short jobs may form a longer queue: what is done within the allowed wait, from 1 up to 16 for each slot."""
    policy = RoutingPolicy("topology", patience_s=patience_s)
    far = group("far", site="NYC")
    assert policy.queue_limit(group("g", mean_s=mean_s)) == limit
    for queued, expected in ((limit - 1, "near far"), (limit, "far near")):
        near = group("near", running=10, queued=queued, site="LDN", mean_s=mean_s)
        assert order(policy, near, far, site="LDN") == expected


def test_when_no_site_has_room_the_load_decides() -> None:
    """A long queue at the named site is no better than a shorter one elsewhere."""
    near, far = group("near", running=10, queued=40, site="LDN"), group("far", running=10, queued=30, site="NYC")
    assert order(DISTANCES, near, far, site="LDN") == "far near"


def test_a_distance_given_one_way_counts_both_ways() -> None:
    """The distance from London to Paris need not be given again as the one from Paris to London."""
    groups = [group("a-tokyo", site="TKY"), group("london", site="LDN")]
    assert order(DISTANCES, *groups, site="PAR") == "london a-tokyo"


# --- the parent's own rack ----------------------------------------------------------------------------------


def seen_from(home: str, policy: RoutingPolicy, *groups: GroupCapacity, site: str | None = None) -> str:
    return " ".join(found.group_id for found in rank(policy, groups, site=site, home=home))


def test_topology_prefers_the_parents_rack_while_it_has_a_free_slot() -> None:
    """Without a site the own rack comes first, then its site, then farther ones; a queue is no room then."""
    own, beside = group("own", running=9, site="LDN"), group("beside", site="LDN")
    paris, york = group("paris", site="PAR"), group("york", site="NYC")
    assert seen_from("own", DISTANCES, york, paris, beside, own) == "own beside paris york"
    full = group("own", running=10, site="LDN")
    assert seen_from("own", DISTANCES, york, paris, beside, full) == "beside paris york own"


def test_the_parents_rack_does_not_outweigh_the_named_site() -> None:
    """A parent in New York sends a job for London to London, and to its own rack before one of the same site."""
    own, beside, london = group("own", running=5, site="NYC"), group("beside", site="NYC"), group("london", site="LDN")
    assert seen_from("own", DISTANCES, own, beside, london, site="LDN").split()[0] == "london"
    assert seen_from("own", DISTANCES, own, beside, london, site="NYC") == "own beside london"


def test_for_least_loaded_the_parents_rack_only_breaks_a_tie() -> None:
    """One free slot more elsewhere is enough; between exact equals payloads stay in the rack."""
    for policy in (LOAD, RoutingPolicy("auto")):
        assert seen_from("b", policy, group("a"), group("b", running=1)) == "a b"
        assert seen_from("b", policy, group("a"), group("b")) == "b a"


# --- hash ---------------------------------------------------------------------------------------------------


def owner(key: str, groups: list[GroupCapacity], policy: RoutingPolicy = HASH) -> str:
    return rank(policy, groups, affinity=key)[0].group_id


def test_a_key_stays_with_its_group() -> None:
    """The same key gets the same order of groups, however they are listed."""
    groups = [group(name) for name in "abcd"]
    assert rank(HASH, groups, affinity="k") == rank(HASH, groups[::-1], affinity="k")


def test_keys_spread_evenly() -> None:
    """Of 2,000 keys over four groups each gets its quarter, give or take a tenth of all."""
    counts = Counter(owner(key, [group(name) for name in "abcd"]) for key in KEYS)
    assert set(counts) == set("abcd")
    assert all(400 < count < 600 for count in counts.values())


def test_a_lost_group_moves_only_its_own_keys() -> None:
    """Keys of the groups that remain stay where they were; those of the lost one spread over all of them."""
    groups = [group(name) for name in "abcd"]
    before = {key: owner(key, groups) for key in KEYS}
    after = {key: owner(key, groups[:2] + groups[3:]) for key in KEYS}
    moved = {key for key in KEYS if before[key] != after[key]}
    assert moved == {key for key in KEYS if before[key] == "c"}
    assert {after[key] for key in moved} == {"a", "b", "d"}


def test_a_new_group_takes_keys_only_for_itself() -> None:
    """Adding a group moves keys to it, none between the others."""
    groups = [group(name) for name in "abc"]
    moved_to = {
        owner(key, [*groups, group("d")]) for key in KEYS if owner(key, [*groups, group("d")]) != owner(key, groups)
    }
    assert moved_to == {"d"}


def test_a_popular_key_does_not_overload_its_group() -> None:
    """A group above 1.25 times its fair share is skipped, and comes last instead of first."""
    key, names = "hot", "abcd"
    home = owner(key, [group(name) for name in names])

    def owner_with(queued: int) -> list[str]:
        groups = [group(name, running=10, queued=queued if name == home else 10) for name in names]
        return [found.group_id for found in rank(HASH, groups, affinity=key)]

    # Four groups of 10 slots, three with 20 jobs each: with 28 at home its share of 89 is 22.25,
    # and 1.25 times that is 27.8.
    assert owner_with(15)[0] == home
    assert owner_with(18)[-1] == home


def test_a_group_with_a_free_slot_is_never_over_its_bound() -> None:
    """On an idle grid the first jobs of a key stay together: a free slot is room enough."""
    groups = [group(name) for name in "abcd"]
    home = owner("hot", groups)
    busy = [group(name, running=9 if name == home else 0) for name in "abcd"]
    assert owner("hot", busy) == home


def test_auto_follows_the_jobs_options() -> None:
    """An affinity means hash, a site means topology, both mean hash inside the site, neither means load."""
    auto = RoutingPolicy("auto", site_distance={"LDN": {}})
    groups = [group(name, running=3 if name == "a" else 0, site="LDN" if name == "a" else "NYC") for name in "abc"]
    key = next(key for key in KEYS if owner(key, groups) == "c")
    assert order(auto, *groups, affinity=key)[0] == "c"
    assert order(auto, *groups, affinity=key, site="LDN")[0] == "a"
    assert order(HASH, *groups, affinity=key, site="LDN")[0] == "c"
    assert order(auto, *groups, site="LDN")[0] == "a"
    assert order(auto, *groups)[0] == "b"


def test_hash_without_a_key_goes_by_load() -> None:
    """A job without affinity is not forced onto one group."""
    assert order(HASH, group("a", running=5), group("b")) == "b a"
