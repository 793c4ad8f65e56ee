"""The files that take what pricers print: what a pricer does to its own changes nothing, and none sees another's."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raygrid.node.attempt import captures as captures_module
from raygrid.node.attempt.captures import Capture, CapturePool, Captures
from raygrid.node.attempt.safe_paths import BadOutputError
from raygrid.system import system_calls


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "spare"
    made.mkdir()
    return made


@pytest.fixture
def pool(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CapturePool]:
    monkeypatch.setattr(captures_module, "MIN_FREE", 0)  # so that the next attempt gets the pair of the last one
    made = CapturePool(str(place))
    made.open()
    yield made
    made.close()


def taken(pool: CapturePool, tmp_path: Path, *, by_name: bool = False) -> Captures:
    dir_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    return pool.take(f"{tmp_path}/job.1", dir_fd, by_name=by_name)


def inodes(captures: Captures) -> list[int]:
    return [os.fstat(each.descriptor).st_ino for each in captures]


def test_an_empty_pair_is_used_again(pool: CapturePool, tmp_path: Path) -> None:
    """Nothing was printed: the next attempt gets the same two files."""
    first = taken(pool, tmp_path)
    before = inodes(first)
    pool.give_back(first)
    assert inodes(taken(pool, tmp_path)) == before


def replace_by_link(capture: Capture) -> None:
    os.unlink(capture.path)
    os.symlink("/etc/passwd", capture.path)


def link_another(path: str) -> None:
    Path(f"{path}.other").touch()
    os.link(f"{path}.other", path)


def replace_by_directory(capture: Capture) -> None:
    os.unlink(capture.path)
    os.mkdir(capture.path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda capture: os.write(capture.descriptor, b"price"),
        lambda capture: os.fchmod(capture.descriptor, 0),
        lambda capture: os.link(capture.path, f"{capture.path}-too"),
        lambda capture: os.unlink(capture.path),
        lambda capture: os.rename(capture.path, f"{capture.path}-aside"),
        replace_by_link,
        replace_by_directory,
        lambda capture: reserve(capture, 1024**2),
        lambda capture: os.dup(capture.descriptor),
    ],
    ids=["printed", "permissions", "other-name", "removed", "renamed", "link", "directory", "room", "passed-on"],
)
def test_a_pair_that_is_not_as_good_as_new_is_not_used_again(
    pool: CapturePool, tmp_path: Path, spoil: Callable[[Capture], object]
) -> None:
    """What a pricer did to one of its captures, or which process still has it, reaches no other attempt."""
    first = taken(pool, tmp_path)
    before = inodes(first)
    spoil(first.stderr)
    pool.give_back(first)
    second = taken(pool, tmp_path)
    assert before[1] not in inodes(second)
    for each in second:
        status = os.lstat(each.path)
        assert os.path.samestat(status, os.fstat(each.descriptor))
        assert (status.st_size, status.st_blocks) == (0, 0)


def test_what_was_printed_leaves_the_disk_with_its_attempt(pool: CapturePool, place: Path, tmp_path: Path) -> None:
    """It may be much; whether the pair is used again is decided only when another attempt comes."""
    first = taken(pool, tmp_path)
    os.write(first.stdout.descriptor, b"price")
    pool.give_back(first)
    assert list(place.iterdir()) == []


def reserve(capture: Capture, size: int) -> None:
    """Take room on the disk without a size."""
    subprocess.run(["fallocate", "--keep-size", f"--length={size}", capture.path], check=True)


def test_a_files_position_flags_and_locks_are_reset(pool: CapturePool, tmp_path: Path) -> None:
    """A pricer may seek in its stdout, lock it, or set it to append: the next one begins anew."""
    first = taken(pool, tmp_path)
    before = inodes(first)
    os.lseek(first.stdout.descriptor, 100, os.SEEK_SET)
    fcntl.fcntl(first.stdout.descriptor, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK | os.O_DIRECT)
    fcntl.flock(first.stdout.descriptor, fcntl.LOCK_EX)
    pool.give_back(first)
    second = taken(pool, tmp_path)
    assert inodes(second) == before
    with open(second.stdout.path, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.write(second.stdout.descriptor, b"price")
    assert os.pread(second.stdout.descriptor, 200, 0) == b"price"
    assert not fcntl.fcntl(second.stdout.descriptor, fcntl.F_GETFL) & (os.O_APPEND | os.O_NONBLOCK | os.O_DIRECT)


def test_a_disk_without_leases_gets_new_files(
    pool: CapturePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the kernel cannot show whether another process has a file open, none is used twice."""
    control = system_calls.control

    def refuses(file: int, command: int, argument: int) -> int:
        if command == fcntl.F_SETLEASE:
            raise OSError(22, "Invalid argument")
        return control(file, command, argument)

    first = taken(pool, tmp_path)
    before = inodes(first)
    pool.give_back(first)
    monkeypatch.setattr(system_calls, "control", refuses)
    assert set(before).isdisjoint(inodes(taken(pool, tmp_path)))


def test_a_pool_whose_directory_was_removed_makes_them_beside_the_job(
    pool: CapturePool, place: Path, tmp_path: Path
) -> None:
    """A hostile pricer costs its node nothing: the output of the next one is captured all the same."""
    place.rmdir()
    made = taken(pool, tmp_path)
    assert [each.path for each in made] == [f"{tmp_path}/job.1@stdout", f"{tmp_path}/job.1@stderr"]
    assert all(os.path.samestat(os.lstat(each.path), os.fstat(each.descriptor)) for each in made)
    pool.give_back(made)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("put", "fragment"),
    [
        (os.mkfifo, "a special file"),
        (lambda name: os.symlink("/etc/passwd", name), "a symbolic link"),
        (os.mkdir, "another directory"),
        (link_another, "a hard link"),
    ],
    ids=["fifo", "link", "directory", "hard-link"],
)
def test_a_special_file_in_place_of_a_warm_pricers_output_is_no_output(
    pool: CapturePool, tmp_path: Path, put: Callable[[str], None], fragment: str
) -> None:
    """A pricer that opens a capture by name leaves another kind of file there; nothing is read through it."""
    stdout = taken(pool, tmp_path, by_name=True).stdout
    os.unlink(stdout.path)
    assert stdout.printed().size == 0
    put(stdout.path)
    with pytest.raises(BadOutputError, match=f"the pricer replaced its stdout by {fragment}"):
        stdout.printed()


def test_a_file_that_a_warm_pricer_wrote_under_the_captures_name_is_read(pool: CapturePool, tmp_path: Path) -> None:
    """Also if it wrote another file and gave it that name."""
    stdout = taken(pool, tmp_path, by_name=True).stdout
    (tmp_path / "mine").write_bytes(b"price")
    os.rename(tmp_path / "mine", stdout.path)
    with stdout.printed().open() as file:
        assert file.read() == b"price"
