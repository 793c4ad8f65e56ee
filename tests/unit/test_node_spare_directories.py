"""Job directories that are used again: as good as new, or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raygrid.models import AttemptId
from raygrid.node.attempt.directory import JobDirectory
from raygrid.node.attempt.usage import RemainingWriters
from raygrid.node.attempt.workspace import Workspace
from raygrid.system.proc import ChildrenOf
from tests.support.lone_agent import lone_agent, order, reports_of


@pytest.fixture
def places(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path, "life")
    made.open()
    return made


def used(places: Workspace, job_id: str, content: bytes, name: str = "trade.csv") -> JobDirectory:
    """A directory as an attempt has it while it runs."""
    directory = places.create(AttemptId(job_id, 1))
    directory.write_input(name, content)
    directory.pricer_ended(RemainingWriters.NONE)
    return directory


def spares(places: Workspace) -> list[Path]:
    return [each for each in places.spare.iterdir() if each.is_dir()]


def test_the_next_attempt_takes_over_a_directory_and_finds_nothing_of_the_earlier_one(places: Workspace) -> None:
    """Outputs are gone, the input is the new one with its length, and the paths carry the new job's name."""
    earlier = used(places, "one", b"a long input")
    (earlier.path / "out").write_text("x")
    (earlier.path / "link").symlink_to("/etc/passwd")
    os.write(earlier.captures.stdout.descriptor, b"printed")
    places.remove(earlier)
    assert list(places.jobs.iterdir()) == []
    [spare] = spares(places)
    inode = spare.stat().st_ino
    later = used(places, "two", b"short", "other.csv")
    assert later.path == places.jobs / "two.1"
    assert later.path.stat().st_ino == inode
    assert [(each.name, each.read_bytes()) for each in later.path.iterdir()] == [("other.csv", b"short")]
    assert [Path(each.path).read_bytes() for each in later.captures] == [b"", b""]
    assert spares(places) == []


def test_attempts_at_the_same_time_have_directories_of_their_own(places: Workspace) -> None:
    """One spare directory is for one attempt; the next gets a new one."""
    places.remove(used(places, "one", b"x"))
    assert len({used(places, name, b"x").path.stat().st_ino for name in ("two", "three")}) == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.chmod(0o500),
        lambda path: (path / "sub").mkdir(),
        lambda path: path.rename(path.with_name("elsewhere")),
        lambda path: (path.rename(path.with_name("elsewhere")), path.symlink_to(path.with_name("elsewhere"))),
    ],
    ids=["permissions", "a-directory", "moved", "a-link"],
)
def test_a_directory_that_is_not_as_good_as_new_is_not_kept(places: Workspace, spoil: Callable[[Path], object]) -> None:
    """What a pricer changed about the directory itself never reaches another attempt."""
    spoilt = used(places, "one", b"x")
    spoil(spoilt.path)
    places.remove(spoilt)
    assert spares(places) == []
    assert not spoilt.path.is_dir() or spoilt.path.is_symlink()


def test_an_input_that_has_another_name_elsewhere_is_not_written_over(places: Workspace, tmp_path: Path) -> None:
    """A pricer may have linked its input to a place of its own: the link keeps what it had."""
    earlier = used(places, "one", b"mine")
    os.link(earlier.path / "trade.csv", tmp_path / "kept")
    places.remove(earlier)
    used(places, "two", b"other")
    assert (tmp_path / "kept").read_bytes() == b"mine"


@pytest.mark.parametrize("leaves", [lambda path: path.chmod(0o755), lambda path: os.setxattr(path, "user.left", b"x")])
@pytest.mark.parametrize("writes", [False, True])
def test_the_next_input_has_no_permissions_or_attributes_of_an_earlier_one(
    places: Workspace, leaves: Callable[[Path], object], writes: bool
) -> None:
    """Whether only the input is left in the directory or other files were, too."""
    earlier = used(places, "one", b"x")
    before = (earlier.path / "trade.csv").stat().st_mode
    leaves(earlier.path / "trade.csv")
    if writes:
        (earlier.path / "out").write_text("x")
    earlier.outputs()
    places.remove(earlier)
    later = used(places, "two", b"y").path / "trade.csv"
    assert (later.read_bytes(), later.stat().st_mode, os.listxattr(later)) == (b"y", before, [])


def test_a_directory_that_a_process_may_still_write_to_is_not_kept(places: Workspace) -> None:
    """Unless the pricer is known to have left no process behind, its directory is removed."""
    watched = used(places, "one", b"x")
    watched.pricer_ended(RemainingWriters.UNKNOWN)
    places.remove(watched)
    assert (list(places.jobs.iterdir()), list(places.spare.iterdir())) == ([], [])  # nor are its captures


# A child of the pricer's own parent, in a session of its own: no orphan when the pricer ends.
BY_THE_SIDE = """
import ctypes, os, platform, signal, sys
number = {"x86_64": 56, "aarch64": 220}[platform.machine()]
CLONE_PARENT = 0x8000
if ctypes.CDLL(None).syscall(number, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0) == 0:
    os.setsid()
    os.execvp("sh", ["sh", "-c", sys.argv[1]])
"""


@pytest.mark.parametrize("kind", ["orphan", "sibling"])
async def test_what_outlives_a_pricer_cannot_write_into_the_next_jobs_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A job that starts before a daemon of the job before is found and killed sees nothing of what it writes."""
    now = ChildrenOf.now
    before = now(ChildrenOf(os.getpid())) or set()
    monkeypatch.setattr(ChildrenOf, "now", lambda thread: (now(thread) or set()) - before)
    (tmp_path / "sibling.py").write_text(BY_THE_SIDE)
    for number in range(5):  # the agent may find and kill the daemon before the next job begins
        if await daemon_lived(tmp_path / str(number), kind):
            return
    pytest.fail("the daemon never lived while the next job ran")


async def daemon_lived(place: Path, kind: str) -> bool:
    """Whether the daemon of a job lived while the next job ran, which saw nothing of what the daemon wrote."""
    place.mkdir()
    agent = lone_agent(place, slots=1)
    agent.open()
    gate, written, listing = place / "gate", place / "written", place / "listing"
    daemon = f"while [ ! -e {gate} ]; do sleep 0.01; done; echo stale > stale; touch {written}"
    start = {
        "orphan": f"setsid sh -c '{daemon}' & sleep 0.05",
        "sibling": f"exec {sys.executable} {place.parent}/sibling.py '{daemon}'",
    }
    look = f"touch {gate}; for i in 1 2 3 4 5 6 7 8 9; do [ -e {written} ] || sleep 0.05; done; ls > {listing}"
    try:
        agent.start(1, [order("clean", "true"), order("daemon", start[kind])])
        await reports_of(agent, 2)  # by then the directory is kept, if it is
        agent.start(1, [order("next", look)])
        await reports_of(agent, 3)
    finally:
        agent.close()
    assert listing.read_text() == "job.sh\n"
    return written.exists()


def test_an_earlier_lifes_spare_directories_are_removed(places: Workspace, tmp_path: Path) -> None:
    """A new life of the agent keeps nothing of what an earlier one had at rest."""
    places.remove(used(places, "one", b"x"))
    assert list(places.spare.iterdir()) != []
    Workspace(tmp_path, "next life").open()
    assert not places.spare.exists()
