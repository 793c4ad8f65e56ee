"""Which pricer is killed under memory pressure, by a table of snapshots, and when the next look is."""

from __future__ import annotations

import pytest

from raygrid.node.limits.pressure import WINDOW_S, PressureHistory, PricerSize, choose, is_watched, next_look_s
from raygrid.system.memory import Memory

MB, GB = 1024**2, 1024**3


def memory(available: int, reserve: int = GB, total: int = 24 * GB) -> Memory:
    return Memory(total, available, reserve, "the machine")


def chosen(snapshots: list[dict[int, int]], available: int, every_s: float = 1.0) -> tuple[int, int, bool] | None:
    """Which pricer is chosen after these snapshots, by how much it grew, and whether there are others."""
    history = PressureHistory()
    for number, snapshot in enumerate(snapshots):
        sizes = [PricerSize(pid, rss) for pid, rss in snapshot.items()]
        history.add(number * every_s, sizes)
    victim = choose(memory(available), sizes, history)
    return None if victim is None else (victim.size.pid, victim.grown, victim.crowded)


@pytest.mark.parametrize(
    ("name", "snapshots", "available", "expected"),
    [
        ("enough is left", [{1: 9 * GB}], 1 * GB, None),
        ("a lone hog", [{1: 5 * GB}], 512 * MB, (1, 5 * GB, False)),
        ("one grows, a larger one does not", [{1: 9 * GB, 2: GB}, {1: 9 * GB, 2: 3 * GB}], 0, (2, 2 * GB, True)),
        ("a new one is all growth", [{1: 9 * GB}, {1: 9 * GB, 2: 2 * GB}], 0, (2, 2 * GB, True)),
        ("both grow", [{1: GB, 2: GB}, {1: 2 * GB, 2: 3 * GB}], 0, (2, 2 * GB, True)),
        ("none grows: the largest", [{1: 3 * GB, 2: 2 * GB}] * 2, 512 * MB, (1, 0, True)),
        ("noise is no growth", [{1: 3 * GB, 2: 2 * GB}, {1: 3 * GB, 2: 2 * GB + MB}], 512 * MB, (1, 0, True)),
        ("small ones are not to blame", [{1: 10 * MB, 2: 5 * MB}], 512 * MB, None),
        ("killing them all would not do", [{1: 100 * MB, 2: 100 * MB}], 512 * MB, None),
        ("many small ones together would", [dict.fromkeys(range(6), 100 * MB)], 512 * MB, (0, 100 * MB, True)),
        ("nothing runs", [{}], 0, None),
        ("a pid that shrank", [{1: 4 * GB, 2: GB}, {1: 2 * GB, 2: GB + 512 * MB}], 0, (2, 512 * MB, True)),
    ],
)
def test_the_pricer_that_grew_most_is_chosen(
    name: str, snapshots: list[dict[int, int]], available: int, expected: tuple[int, int, bool] | None
) -> None:
    """The pricer that grew most within the last seconds, else the largest, and none where that would not help."""
    assert chosen(snapshots, available) == expected, name


def test_only_the_growth_of_the_last_seconds_counts() -> None:
    """A process that grew long ago and stands still is not chosen."""
    steady = [{1: min(8, second) * GB, 2: 0} for second in range(10)]
    steady += [{1: 8 * GB, 2: 0}] * int(WINDOW_S)
    assert chosen([*steady, {1: 8 * GB, 2: 2 * GB}], 0) == (2, 2 * GB, True)
    history = PressureHistory()
    for second in range(1_000):
        history.add(second, [PricerSize(1, second)])
    assert history.over_s <= WINDOW_S + 1
    history.clear()
    assert (history.last_at, history.over_s) == (None, 0.0)


def test_snapshots_are_taken_only_while_little_is_left() -> None:
    """With plenty of memory no process table is read."""
    assert not is_watched(memory(5 * GB))
    assert is_watched(memory(3 * GB))


@pytest.mark.parametrize(
    ("available", "seconds"),
    [(20 * GB, 1.0), (9 * GB, 1.0), (5 * GB, 0.5), (2 * GB, 0.125), (GB + 200 * MB, 0.05), (0, 0.05)],
)
def test_looks_come_sooner_as_memory_runs_out(available: int, seconds: float) -> None:
    """Before the headroom can be gone at 8 GB/s, at most 20 times and at least once a second."""
    assert next_look_s(memory(available)) == pytest.approx(seconds)
