"""Directories for temporary files: each attempt finds its own empty, and an untouched one is used again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raygrid.node.attempt.temporary_files import VARIABLES, TemporaryDirectories, TemporaryDirectory
from raygrid.node.attempt.usage import RemainingWriters
from raygrid.node.slots import SlotNumbers


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
    dir_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield lambda: pool.take(f"{tmp_path}/job.1", dir_fd)
    os.close(dir_fd)


Take = Callable[[], TemporaryDirectory]


def test_an_untouched_directory_is_used_again(pool: TemporaryDirectories, take: Take, place: Path) -> None:
    """No attempt makes a directory while one is free."""
    first = take()
    second = take()
    assert first.path != second.path
    assert os.listdir(first.path) == os.listdir(second.path) == []
    pool.give_back(first, RemainingWriters.NONE)
    assert take() is first
    assert len(list(place.iterdir())) == 2


def _leave_a_file(path: str) -> None:
    Path(path, "scratch").write_text("x")


def _leave_a_file_as_if_nothing_was(path: str) -> None:
    _leave_a_file(path)
    os.utime(path, ns=(10**9, 10**9))


def _use_and_clear(path: str) -> None:
    _leave_a_file(path)
    Path(path, "scratch").unlink()


def _replace(path: str) -> None:
    os.rmdir(path)
    os.mkdir(path)


def _leave_a_tree(path: str) -> None:
    inner = Path(path, "a", "b")
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
        lambda path: os.chmod(path, 0o500),
        lambda path: os.rename(path, f"{path}-aside"),
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
    touch(first.path)
    if not late:
        pool.give_back(first, RemainingWriters.NONE)
        assert not os.path.lexists(first.path) or os.listdir(first.path) == []
    second = take()
    assert second.state != first.state
    assert (os.listdir(second.path), os.stat(second.path).st_mode & 0o777) == ([], 0o700)
    pool.give_back(second, RemainingWriters.NONE)
    assert take() is second


def test_files_are_removed_and_the_directory_is_used_again(pool: TemporaryDirectories, take: Take) -> None:
    """A pricer that leaves its temporary files costs no new directory."""
    first = take()
    for name in ("a", "b"):
        Path(first.path, name).write_text("x")
    pool.give_back(first, RemainingWriters.NONE)
    assert os.listdir(first.path) == []
    assert take().path == first.path


def test_a_directory_that_a_process_may_still_use_is_removed(pool: TemporaryDirectories, take: Take) -> None:
    """An untouched directory is removed, too, if a process of the attempt may be left."""
    first = take()
    pool.give_back(first, RemainingWriters.UNKNOWN)
    assert not os.path.lexists(first.path)


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
    assert made.path == f"{tmp_path}/job.1@tmp"
    assert os.listdir(made.path) == []
    pool.give_back(made, RemainingWriters.NONE)
    assert not os.path.lexists(made.path)
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
