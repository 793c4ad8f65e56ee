"""The queue of ready jobs: priorities, first in first out, removal anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raygrid.core.group.priority_queue import PriorityQueue


def line_of(*jobs: tuple[str, int]) -> PriorityQueue:
    line = PriorityQueue()
    for job_id, priority in jobs:
        line.add(job_id, priority)
    return line


def test_the_more_urgent_go_first_and_equals_in_order_of_arrival() -> None:
    """Higher priority first, first in first out inside one."""
    line = line_of(("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -1))
    assert list(line) == ["b", "d", "a", "c", "e"]
    assert [line.pop() for _ in range(5)] == ["b", "d", "a", "c", "e"]


def test_a_retry_goes_to_the_head_of_its_own_priority() -> None:
    """With `first` a job stands before its equals, but not before the more urgent."""
    line = line_of(("a", 0), ("urgent", 5))
    line.add("again", 0, first=True)
    assert list(line) == ["urgent", "again", "a"]


def test_a_job_is_added_once() -> None:
    """Adding a job that waits already changes nothing, not even its place."""
    line = line_of(("a", 0), ("b", 0))
    line.add("b", 9, first=True)
    assert list(line) == ["a", "b"]
    assert len(line) == 2


def test_any_job_can_be_removed_from_any_place() -> None:
    """Removal closes the gap, returns whether the job was there, and drops an empty priority."""
    line = line_of(("a", 1), ("b", 0), ("c", 0))
    assert line.remove("b")
    assert not line.remove("b")
    assert line.remove("a")
    assert (list(line), "a" in line, "c" in line) == (["c"], False, True)


def test_an_empty_line_is_an_error() -> None:
    """Taking from an empty line is an error, and it has no lowest priority."""
    with pytest.raises(IndexError, match="empty"):
        PriorityQueue().pop()
    assert PriorityQueue().lowest_priority is None


def test_the_lowest_priority_follows_the_waiting_jobs() -> None:
    """It is the least urgent priority that a job waits with now."""
    line = line_of(("a", 3), ("b", -2))
    assert line.lowest_priority == -2
    line.remove("b")
    assert line.lowest_priority == 3


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 8), st.integers(-2, 2), st.booleans()),
            st.tuples(st.just("remove"), st.integers(0, 8)),
            st.tuples(st.just("pop")),
        )
    )
)
def test_it_behaves_like_a_sorted_list(steps: list[tuple[object, ...]]) -> None:
    """Whatever is done to it, the line equals a plain sorted list."""
    line, plain = PriorityQueue(), list[tuple[int, str]]()
    for step in steps:
        if step[0] == "add":
            _, number, priority, first = step
            assert isinstance(priority, int)
            line.add(f"j{number}", priority, first=bool(first))
            if f"j{number}" not in [job_id for _, job_id in plain]:
                ahead = [p for p, _ in plain if p > priority or (p == priority and not first)]
                plain.insert(len(ahead), (priority, f"j{number}"))
        elif step[0] == "remove":
            expected = any(job_id == f"j{step[1]}" for _, job_id in plain)
            assert line.remove(f"j{step[1]}") is expected
            plain = [entry for entry in plain if entry[1] != f"j{step[1]}"]
        elif plain:
            assert line.pop() == plain.pop(0)[1]
        assert list(line) == [job_id for _, job_id in plain]
        assert len(line) == len(plain)
