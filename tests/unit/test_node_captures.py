"""The files that take what pricers print: the pricer's own hands on them change nothing, and none sees another's."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raygrid.node.beneath import BadOutputError
from raygrid.node.captures import Capture, CapturePool, Captures
from raygrid.node.workspace import captured


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "spare"
    made.mkdir()
    return made


@pytest.fixture
def pool(place: Path) -> Iterator[CapturePool]:
    made = CapturePool(str(place))
    made.open()
    yield made
    made.close()


def taken(pool: CapturePool, tmp_path: Path, *, named: bool = False) -> Captures:
    within = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    return pool.take(f"{tmp_path}/job.1", within, named=named)


def test_an_empty_pair_serves_again(pool: CapturePool, tmp_path: Path) -> None:
    """Nothing was printed: the next attempt gets the same two files."""
    first = taken(pool, tmp_path)
    pool.give_back(first)
    assert taken(pool, tmp_path) == first


@pytest.mark.parametrize(
    "spoil",
    [
        lambda capture: os.write(capture.file, b"price"),
        lambda capture: os.fchmod(capture.file, 0),
        lambda capture: os.link(capture.where, f"{capture.where}-too"),
        lambda capture: os.unlink(capture.where),
    ],
    ids=["printed", "permissions", "another-name", "removed"],
)
def test_a_pair_that_is_not_as_good_as_new_is_removed(
    pool: CapturePool, place: Path, tmp_path: Path, spoil: Callable[[Capture], object]
) -> None:
    """What a pricer did to one of its captures reaches no other attempt."""
    first = taken(pool, tmp_path)
    spoil(first.stderr)
    pool.give_back(first)
    assert {each.where for each in first}.isdisjoint(str(each) for each in place.iterdir())
    assert all(os.fstat(each.file).st_size == 0 for each in taken(pool, tmp_path))


def test_where_and_how_a_pricer_wrote_is_forgotten(pool: CapturePool, tmp_path: Path) -> None:
    """A pricer may move on in its stdout without a word, or have it append or not wait: the next one begins anew."""
    first = taken(pool, tmp_path)
    os.lseek(first.stdout.file, 100, os.SEEK_SET)
    fcntl.fcntl(first.stdout.file, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK)
    pool.give_back(first)
    second = taken(pool, tmp_path)
    assert second.stdout.file == first.stdout.file
    os.write(second.stdout.file, b"price")
    assert os.pread(second.stdout.file, 200, 0) == b"price"
    assert not fcntl.fcntl(second.stdout.file, fcntl.F_GETFL) & (os.O_APPEND | os.O_NONBLOCK)


def test_whoever_opens_them_by_name_finds_them(pool: CapturePool, tmp_path: Path) -> None:
    """A pair whose names lead elsewhere by now is not given to a pricer that is told the names."""
    first = taken(pool, tmp_path)
    os.rename(first.stdout.where, f"{first.stdout.where}-aside")
    os.symlink("/etc/passwd", first.stdout.where)
    pool.give_back(first)
    second = taken(pool, tmp_path, named=True)
    assert all(os.path.samestat(os.lstat(each.where), os.fstat(each.file)) for each in second)


def test_a_pool_whose_directory_was_removed_makes_them_beside_the_job(
    pool: CapturePool, place: Path, tmp_path: Path
) -> None:
    """A hostile pricer costs its node nothing: what the next one prints is captured all the same."""
    place.rmdir()
    made = taken(pool, tmp_path, named=True)
    assert [each.where for each in made] == [f"{tmp_path}/job.1@stdout", f"{tmp_path}/job.1@stderr"]
    assert all(each.is_in_place() for each in made)
    pool.give_back(made)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("put", "says"),
    [
        (os.mkfifo, "a special file"),
        (lambda name: os.symlink("/etc/passwd", name), "a symbolic link"),
        (os.mkdir, "another directory"),
    ],
    ids=["fifo", "link", "directory"],
)
def test_something_else_where_a_warm_pricer_should_have_written_is_no_output(
    pool: CapturePool, tmp_path: Path, put: Callable[[str], None], says: str
) -> None:
    """Who opens a capture by name is judged by what has that name; nothing is read through it."""
    stdout = taken(pool, tmp_path, named=True).stdout
    os.unlink(stdout.where)
    assert captured(stdout, by_name=True).size == 0
    put(stdout.where)
    with pytest.raises(BadOutputError, match=f"the pricer put {says} in the place of its stdout"):
        captured(stdout, by_name=True)


def test_what_a_warm_pricer_wrote_under_the_name_is_read(pool: CapturePool, tmp_path: Path) -> None:
    """Even where it wrote another file and gave it the capture's name."""
    stdout = taken(pool, tmp_path, named=True).stdout
    (tmp_path / "mine").write_bytes(b"price")
    os.rename(tmp_path / "mine", stdout.where)
    with captured(stdout, by_name=True).open() as file:
        assert file.read() == b"price"
