"""Which attempt fills a disk: the one whose files grow most, of all agents; none if something else took the room."""

from __future__ import annotations

import os
from pathlib import Path

from raygrid.models import AttemptId
from raygrid.node.limits import largest_attempt
from raygrid.node.limits.running import Running

MB = 1024**2
RESERVE = 8 * MB


def attempt(root: Path, name: str, size: int, *, old: bool = False, given: int = 0) -> Running:
    """An attempt of the agent at a root, with a file of this size."""
    place = root / "jobs" / "life" / f"{name}.1"
    place.mkdir(parents=True)
    (place / "out").write_bytes(bytes(size))
    if old:
        os.utime(place / "out", (1, 1))
    return Running(AttemptId(name, 1), 0.0, 60.0, None, 10**9, (str(place),), foreign_bytes=given)


def found(own: list[Running], root: Path) -> str | None:
    filler = largest_attempt.find_largest(own, root, RESERVE)
    return filler.running.attempt.job_id if filler else None


def test_the_larger_of_two_that_grow_is_chosen(tmp_path: Path) -> None:
    """Of two that grow, the larger one."""
    root = tmp_path / "node-1"
    own = [attempt(root, "small", MB), attempt(root, "large", 9 * MB)]
    assert found(own, root) == "large"
    filler = largest_attempt.find_largest(own, root, RESERVE)
    assert filler is not None
    assert filler.held >= 9 * MB


def test_growing_files_count_before_older_ones(tmp_path: Path) -> None:
    """A large file that was written long ago did not fill the disk now; if none grows, the largest counts."""
    root = tmp_path / "node-1"
    own = [attempt(root, "old", 12 * MB, old=True), attempt(root, "new", 9 * MB)]
    assert found(own, root) == "new"
    other = tmp_path / "other" / "node-1"
    assert (
        found([attempt(other, "old", 9 * MB, old=True), attempt(other, "older", 10 * MB, old=True)], other) == "older"
    )


def test_the_inputs_of_an_attempt_do_not_count(tmp_path: Path) -> None:
    """Inputs do not count."""
    root = tmp_path / "node-1"
    own = [attempt(root, "given", 12 * MB, given=11 * MB), attempt(root, "writes", 10 * MB)]
    assert found(own, root) == "writes"


def test_there_is_none_if_attempts_took_little(tmp_path: Path) -> None:
    """With less than an even share of what was free for attempts, something else on the machine took the rest."""
    one, two = tmp_path / "one" / "node-1", tmp_path / "two" / "node-1"
    assert found([], one) is None
    assert found([attempt(one, "alone", 7 * MB)], one) is None
    assert found([attempt(two, "first", 5 * MB), attempt(two, "second", 4 * MB)], two) == "first"


def test_all_agents_of_a_machine_find_the_same_one(tmp_path: Path) -> None:
    """The agent whose attempt it is ends it, and no other; an attempt that is being cleared away counts, too."""
    here, there = tmp_path / "node-1", tmp_path / "node-2"
    mine, theirs = attempt(here, "mine", 9 * MB), attempt(there, "theirs", 10 * MB)
    assert found([mine], here) is None
    assert found([theirs], there) == "theirs"
    (there / "jobs" / "life" / "theirs.1@zip").write_bytes(bytes(MB))
    attempt(here, "ended", 11 * MB)
    assert found([mine], here) is None
    assert found([theirs], there) is None


def test_attempts_in_sandboxes_of_other_agents_count_once(tmp_path: Path) -> None:
    """Their job directories and their temporary files, each of them; a sandbox that has ended hides no other."""
    here, there = tmp_path / "node-1", tmp_path / "node-2"
    mine = attempt(here, "mine", 9 * MB)
    life = there / "box" / "12345678"
    (life / "2" / "theirs.1").mkdir(parents=True)
    (life / "2" / "tmp" / "0").mkdir(parents=True)
    (life / "1").symlink_to(tmp_path / "ended")
    (life / "2" / "theirs.1" / "out").write_bytes(bytes(6 * MB))
    assert found([mine], here) == "mine", "it would be larger if it counted twice"
    (life / "2" / "tmp" / "0" / "scratch").write_bytes(bytes(10 * MB))
    assert found([mine], here) is None


def test_the_place_of_a_marked_process_is_its_job_directory() -> None:
    """In a sandbox and without one; a temporary directory belongs to no mark."""
    root = "/grid/node-2"
    assert largest_attempt._attempt_of(Path(root, "box", "12345678", "3", "job.1")) == (root, "12345678", "job.1")
    assert largest_attempt._attempt_of(Path(root, "jobs", "1234567890", "job.1")) == (root, "12345678", "job.1")
    assert largest_attempt._attempt_of(Path(root, "box", "12345678", "3", "tmp", "0"))[0] != root
