"""The caches of a node: results by jobId, and local copies of shared data."""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raygrid.blobs import BlobStore, data_key
from raygrid.errors import BlobNotFoundError
from raygrid.models import SharedData
from raygrid.node.cache import LocalPackStore, ResultCache
from raygrid.node.shared_data import DataLink, SharedDataCache
from tests.support.lone_agent import wait_until

# --- results --------------------------------------------------------------------------------------------------------


def test_results_are_found_in_their_pack() -> None:
    """Each job's bytes are cut from its pack; another key or job gives nothing."""
    cache = ResultCache(LocalPackStore(), 100)
    cache.add("pack", b"aaabb", [("a", 0, 3), ("b", 3, 2)])
    assert cache.get("pack", ["b", "a", "c"]) == [b"bb", b"aaa", None]
    assert cache.get("other", ["a"]) == [None]


def test_the_least_recently_used_pack_goes_first() -> None:
    """Beyond the limit the least recently used pack goes; one that is too large is never kept."""
    cache = ResultCache(LocalPackStore(), 10)
    for key in ("one", "two"):
        cache.add(key, b"x" * 5, [(f"job-{key}", 0, 5)])
    cache.get("one", ["job-one"])
    cache.add("three", b"x" * 5, [("job-three", 0, 5)])
    assert [cache.get(key, [f"job-{key}"]) != [None] for key in ("one", "two", "three")] == [True, False, True]
    cache.add("huge", b"x" * 11, [("job-huge", 0, 11)])
    assert cache.get("huge", ["job-huge"]) == [None]
    assert cache.get("one", ["job-one"]) == [b"xxxxx"]


def test_a_jobs_later_result_is_not_given_for_its_earlier_one() -> None:
    """A job that ran twice here gives under each key only what is in that pack."""
    cache = ResultCache(LocalPackStore(), 100)
    cache.add("first", b"old", [("job", 0, 3)])
    cache.add("second", b"newer", [("job", 0, 5)])
    assert cache.get("first", ["job"]) == [None]
    assert cache.get("second", ["job"]) == [b"newer"]


def test_a_result_that_the_cache_has_lost_is_absent() -> None:
    """A cache may lose results; that is an answer, not an error."""

    class Forgetful(LocalPackStore):
        def get(self, handle: object) -> bytes | None:
            return None

    cache = ResultCache(Forgetful(), 100)
    cache.add("pack", b"a", [("a", 0, 1)])
    assert cache.get("pack", ["a"]) == [None]


# --- shared data ----------------------------------------------------------------------------------------------------


class Shared:
    """A cache of shared data, and job directories to link into."""

    def __init__(self, directory: Path, limit: int) -> None:
        self.blobs = BlobStore(str(directory / "blobs"))
        self.copies = directory / "copies"
        self.copies.mkdir()
        self.cache = SharedDataCache(self.copies, self.blobs, limit)
        self._directory = directory
        self._links: dict[str, list[DataLink]] = {}

    def stored(self, name: str, content: bytes) -> SharedData:
        digest = hashlib.sha256(content).hexdigest()
        self.blobs.put_now(data_key(digest), content)
        return SharedData(name, digest, len(content))

    def path(self, job: str, data: SharedData) -> Path:
        return self._directory / "jobs" / job / "data" / data.name

    def linked(self, job: str, data: SharedData) -> Path:
        path = self.path(job, data)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._links.setdefault(job, []).append(self.cache.link(data, path.parent))
        return path

    def released(self, job: str) -> bool:
        """End a job; gives whether it had its data unchanged."""
        directory = os.open(self._directory / "jobs" / job, os.O_RDONLY)
        try:
            return self.cache.release(self._links.pop(job), directory)
        finally:
            os.close(directory)


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    return Shared(tmp_path, 250)


def test_a_shared_input_is_fetched_once_for_many_jobs_at_once(shared: Shared) -> None:
    """Fifty jobs that start together fetch a shared input once."""
    curve = shared.stored("curve", b"x" * 100)
    with ThreadPoolExecutor(16) as threads:
        paths = list(threads.map(lambda number: shared.linked(f"job-{number}", curve), range(50)))
    assert {path.read_bytes() for path in paths} == {b"x" * 100}
    assert shared.cache.fetches == 1


def test_a_copy_that_a_pricer_changed_is_fetched_anew(shared: Shared) -> None:
    """A pricer that writes into a shared input in spite of its permissions harms no later job."""
    curve = shared.stored("curve", b"right")
    path = shared.linked("bad", curve)
    path.chmod(0o644)
    path.write_bytes(b"wrong")
    assert shared.linked("next", curve).read_bytes() == b"right"
    assert shared.cache.fetches == 2


@pytest.mark.parametrize("mode", [0o000, 0o644, 0o4755])
def test_a_copy_whose_permissions_a_pricer_changed_is_fetched_anew(shared: Shared, mode: int) -> None:
    """Else later jobs could not read it. The job itself had the right content."""
    curve = shared.stored("curve", b"right")
    shared.linked("first", curve)
    shared.linked("beside", curve)
    shared.path("first", curve).chmod(mode)
    assert shared.released("first")
    assert shared.released("beside")
    assert stat.S_IMODE(shared.linked("next", curve).stat().st_mode) == 0o444
    assert shared.linked("after", curve).read_bytes() == b"right"
    assert shared.cache.fetches == 2


def test_a_copy_with_attributes_is_fetched_anew(shared: Shared) -> None:
    curve = shared.stored("curve", b"right")
    path = shared.linked("first", curve)
    path.chmod(0o644)
    os.setxattr(path, "user.left", b"x")
    path.chmod(0o444)
    assert shared.released("first")
    assert os.listxattr(shared.linked("next", curve)) == []


def rewrite(path: Path, content: bytes, *, hide: bool = True) -> None:
    """Write into a file in place; hidden, its size and times of access and modification are as before."""
    status = path.stat()
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)
    if hide:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def wait_for_the_clock(path: Path) -> None:
    """Wait until the file system's clock distinguishes a change from the one before."""
    before = path.stat().st_ctime_ns
    probe = path.with_name("probe")
    probe.touch()

    def has_moved() -> bool:
        probe.touch()
        return probe.stat().st_ctime_ns > before

    wait_until(has_moved)
    probe.unlink()


def test_a_change_that_size_and_time_do_not_show_is_found(shared: Shared) -> None:
    """Setting a file's times back does not hide that it was written into."""
    curve = shared.stored("curve", b"right")
    path = shared.linked("bad", curve)
    wait_for_the_clock(path)
    rewrite(path, b"wrong")
    assert shared.linked("next", curve).read_bytes() == b"right"
    assert shared.cache.fetches == 2


def test_every_attempt_that_had_a_changed_copy_is_marked(shared: Shared) -> None:
    """Also one that only read it, when the copy has been fetched anew already; later ones have the right one."""
    curve = shared.stored("curve", b"right")
    early = shared.linked("early", curve)
    shared.linked("reader", curve)
    wait_for_the_clock(shared.linked("bad", curve))
    assert shared.released("early")
    assert not early.exists()
    rewrite(shared.path("bad", curve), b"wrong")
    assert not shared.released("bad")
    assert shared.linked("next", curve).read_bytes() == b"right"
    assert not shared.released("reader")
    assert shared.released("next")
    assert shared.cache.fetches == 2


def test_a_change_right_after_the_start_is_found(shared: Shared) -> None:
    """A write within one tick of the clock after a copy was fetched is found, because the copy's time is set back."""
    curve = shared.stored("curve", b"right")
    rewrite(shared.linked("bad", curve), b"wrong", hide=False)
    assert not shared.released("bad")


def test_links_that_come_and_go_are_no_change(shared: Shared) -> None:
    """Links of other attempts, one that its pricer removed, and leaving the cache cost neither answer nor fetch."""
    first, second = shared.stored("first", b"x" * 100), shared.stored("second", b"y" * 200)
    for job in ("a", "b", "c"):
        shared.linked(job, first)
        wait_for_the_clock(shared.path(job, first))
    shared.path("a", first).unlink()
    assert shared.released("a")
    assert shared.released("b")
    assert shared.linked("d", first).read_bytes() == b"x" * 100
    assert shared.cache.fetches == 1
    shared.linked("e", second)
    assert [path.name for path in shared.copies.iterdir()] == [second.digest]
    assert (shared.released("c"), shared.released("d"), shared.released("e")) == (True, True, True)


def test_a_link_in_the_place_of_the_data_directory_is_not_followed(shared: Shared, tmp_path: Path) -> None:
    """A job that moved its shared data away loses no file of another job."""
    curve = shared.stored("curve", b"right")
    path = shared.linked("bad", curve)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "curve").write_bytes(b"mine")
    path.parent.rename(tmp_path / "away")
    path.parent.symlink_to(tmp_path / "elsewhere")
    assert shared.released("bad")
    assert (tmp_path / "elsewhere" / "curve").read_bytes() == b"mine"


def test_a_copy_that_a_pricer_removed_is_fetched_anew(shared: Shared) -> None:
    """A pricer that finds the copies and removes one harms no later job."""
    curve = shared.stored("curve", b"right")
    shared.linked("bad", curve)
    for copy in shared.copies.iterdir():
        copy.unlink()
    assert shared.linked("next", curve).read_bytes() == b"right"


def test_copies_stay_within_their_limit_and_in_use(shared: Shared) -> None:
    """The least recently used copy goes first, and jobs that have it keep it."""
    first, second, third = (shared.stored(name, name.encode() * 20) for name in ("first", "other", "third"))
    held = shared.linked("holder", first)
    shared.linked("a", second)
    shared.linked("b", first)
    shared.linked("c", third)
    assert sorted(path.name for path in shared.copies.iterdir()) == sorted([first.digest, third.digest])
    assert held.read_bytes() == b"first" * 20
    assert shared.linked("d", second).read_bytes() == b"other" * 20


def test_a_small_cache_under_many_jobs_never_fails_one(shared: Shared) -> None:
    """Copies that are dropped while others are being linked cost fetches, never a job."""
    inputs = [shared.stored(f"data-{number}", os.urandom(100)) for number in range(6)]
    with ThreadPoolExecutor(16) as threads:
        paths = list(threads.map(lambda n: shared.linked(f"job-{n}", inputs[n % 6]), range(600)))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert digests == [inputs[number % 6].digest for number in range(600)]


def test_content_that_does_not_match_its_digest_is_refused(shared: Shared) -> None:
    """A blob whose bytes do not match their digest never reaches a pricer."""
    curve = shared.stored("curve", b"right")
    shared.blobs.put_now(data_key(curve.digest), b"wrong")
    with pytest.raises(BlobNotFoundError, match="sha256 differs"):
        shared.linked("job", curve)
