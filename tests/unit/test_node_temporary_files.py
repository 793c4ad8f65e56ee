"""Directories for temporary files: each attempt finds its own empty, and an untouched one is used again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raygrid.node.attempt.remaining_writers import RemainingWriters
from raygrid.node.attempt.slot_numbers import SlotNumbers
from raygrid.node.attempt.temporary_files import VARIABLES, TemporaryDirectories, TemporaryDirectory


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "tmp" / "life"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def pool(place: Path) -> Iterator[TemporaryDirectories]:
    made = TemporaryDirectories(place)
    made.open()
    yield made
    made.close()


@pytest.fixture
def take(pool: TemporaryDirectories, tmp_path: Path) -> Iterator[Callable[[], TemporaryDirectory]]:
    within = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield lambda: pool.take(f"{tmp_path}/job.1", within)
    os.close(within)


Take = Callable[[], TemporaryDirectory]


def test_an_untouched_directory_is_used_again(pool: TemporaryDirectories, take: Take, place: Path) -> None:
    """No attempt makes a directory while one is free."""
    first = take()
    second = take()
    assert first.where != second.where
    assert os.listdir(first.where) == os.listdir(second.where) == []
    pool.give_back(first, RemainingWriters.NONE)
    assert take() is first
    assert len(list(place.iterdir())) == 2


def _leave_a_file(where: str) -> None:
    Path(where, "scratch").write_text("x")


def _leave_a_file_as_if_nothing_was(where: str) -> None:
    _leave_a_file(where)
    os.utime(where, ns=(10**9, 10**9))


def _use_and_clear(where: str) -> None:
    _leave_a_file(where)
    Path(where, "scratch").unlink()


def _replace(where: str) -> None:
    os.rmdir(where)
    os.mkdir(where)


def _leave_a_tree(where: str) -> None:
    inner = Path(where, "a", "b")
    inner.mkdir(parents=True)
    (inner / "f").write_text("x")
    inner.chmod(0)


@pytest.mark.parametrize(
    "touch",
    [
        _leave_a_file,
        _leave_a_file_as_if_nothing_was,
        _use_and_clear,
        _replace,
        _leave_a_tree,
        os.rmdir,
        lambda where: os.chmod(where, 0o500),
        lambda where: os.rename(where, f"{where}-aside"),
    ],
)
@pytest.mark.parametrize("late", [False, True], ids=["in-time", "late"])
def test_a_touched_directory_is_not_used_again(
    pool: TemporaryDirectories, take: Take, touch: Callable[[str], None], *, late: bool
) -> None:
    """Whatever an attempt did to its directory, also a warm one after its end, the next one finds its own empty."""
    first = take()
    if late:
        pool.give_back(first, RemainingWriters.WARM_PROCESS)
    touch(first.where)
    if not late:
        pool.give_back(first, RemainingWriters.NONE)
        assert not os.path.lexists(first.where) or os.listdir(first.where) == []
    second = take()
    assert second.state != first.state
    assert (os.listdir(second.where), os.stat(second.where).st_mode & 0o777) == ([], 0o700)
    pool.give_back(second, RemainingWriters.NONE)
    assert take() is second


def test_files_are_removed_and_the_directory_is_used_again(pool: TemporaryDirectories, take: Take) -> None:
    """A pricer that leaves its temporary files costs no new directory."""
    first = take()
    for name in ("a", "b"):
        Path(first.where, name).write_text("x")
    pool.give_back(first, RemainingWriters.NONE)
    assert os.listdir(first.where) == []
    assert take().where == first.where


def test_a_directory_that_a_process_may_still_use_is_removed(pool: TemporaryDirectories, take: Take) -> None:
    """An untouched directory is removed, too, if a process of the attempt may be left."""
    first = take()
    pool.give_back(first, RemainingWriters.UNKNOWN)
    assert not os.path.lexists(first.where)


@pytest.mark.parametrize("put", [None, "link"])
def test_a_pool_whose_directory_was_removed_makes_them_elsewhere(
    pool: TemporaryDirectories, take: Take, place: Path, tmp_path: Path, put: str | None
) -> None:
    """They are beside the job directory then; a link in the pool's place is not followed."""
    place.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if put is not None:
        place.symlink_to(elsewhere)
    made = take()
    assert made.where == f"{tmp_path}/job.1@tmp"
    assert os.listdir(made.where) == []
    pool.give_back(made, RemainingWriters.NONE)
    assert not os.path.lexists(made.where)
    assert list(elsewhere.iterdir()) == []


def test_settings_win(take: Take) -> None:
    """A variable that the pricer's settings set is not changed."""
    made = take()
    assert set(made.variables({})) == set(VARIABLES)
    assert set(made.variables({"TMPDIR": "/fast"})) == {"TMP", "TEMP"}


def test_numbers_of_slots_are_the_lowest_that_are_free() -> None:
    """With at most n in use they stay below n, whatever the order in which they come back."""
    numbers = SlotNumbers()
    assert [numbers.take() for _ in range(70)] == list(range(70))
    for number in (3, 69, 0):
        numbers.give_back(number)
    assert [numbers.take() for _ in range(4)] == [0, 3, 69, 70]
