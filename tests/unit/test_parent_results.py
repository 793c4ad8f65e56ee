"""Where a parent reads results, and what it counts."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from raygrid.blobs import BlobStore
from raygrid.blobs.chunks import CHUNK, digests, pieces_of
from raygrid.core.result_sources import WORTH_A_REQUEST, NodePlace
from raygrid.errors import DamagedResultError, ResultExpiredError
from raygrid.models import BlobSlice, JobState, StoredJob
from raygrid.parent.results import MOST_IN_MEMORY, ResultReader
from raygrid.parent.traffic import ParentTraffic

KEY = "results/2030-01-01/pack"
NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Caches:
    """Caches of the nodes: what they hold by job, and which were asked for what."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.asked: list[str] = []

    async def results(self, address: str, key: str, job_ids: Sequence[str]) -> list[bytes | None]:
        assert (address, key) == ("agent:a1", KEY)
        self.asked += job_ids
        return [self.held.get(job_id) for job_id in job_ids]


class Story:
    """A parent that reads results of node `a1` in `rack-a`."""

    def __init__(self, directory: Path, home: str | None) -> None:
        self.caches, self.traffic, self.blobs = Caches(), ParentTraffic(), BlobStore(str(directory))
        places = {"a1": NodePlace("rack-a", "agent:a1")}
        self.chunks: dict[str, bytes] = {}
        self.reported: list[BlobSlice] = []
        self.results = ResultReader(
            self.blobs,
            self.caches,
            places.get,
            self.traffic,
            home,
            chunks_of=self.chunks_of,
            on_damage=self.on_damage,
        )

    async def chunks_of(self, job_id: str) -> bytes | None:
        return self.chunks.get(job_id)

    async def on_damage(self, result: BlobSlice) -> None:
        self.reported.append(result)

    def job(self, job_id: str, offset: int, data: bytes) -> StoredJob:
        place = BlobSlice(KEY, offset, len(data), hashlib.sha256(data).hexdigest())
        return StoredJob(
            job_id, "f", "p", "1", (), 0, None, None, None, "input", BlobSlice("", 0, 1, "d"), (),
            group_id="rack-a", state=JobState.DONE, attempts=1, node_id="a1", exit_code=0, signal=None,
            reason=None, message=None, stderr_tail=None, result=place, cancel_requested=False, revision=1,
            submitted_at=NOW, started_at=NOW, ended_at=NOW, purged_at=None,
        )  # fmt: skip

    def read(self) -> tuple[int, int]:
        return self.traffic.of("from_cache", "rack-a"), self.traffic.of("from_blobs", "rack-a")


async def test_small_results_come_from_the_cache_and_the_rest_of_them_from_the_blob_store(tmp_path: Path) -> None:
    """A result that the cache has dropped, or has in another size, is read from the blob store; both are counted."""
    story = Story(tmp_path, home="rack-b")
    story.blobs.put_now(KEY, b"onetwoooothree")
    story.caches.held = {"1": b"one", "3": b"of another attempt"}
    found = await story.results.read(
        [story.job("1", 0, b"one"), story.job("2", 3, b"twoooo"), story.job("3", 9, b"three")]
    )
    assert found == [b"one", b"twoooo", b"three"]
    assert story.caches.asked == ["1", "2", "3"]
    assert story.read() == (3, 11)


@pytest.mark.parametrize(("home", "counts"), [("rack-a", (WORTH_A_REQUEST, 0)), ("rack-b", (0, WORTH_A_REQUEST))])
async def test_a_large_result_comes_over_the_fewest_uplinks(tmp_path: Path, home: str, counts: tuple[int, int]) -> None:
    """Inside the rack from the node, across racks from the blob store, though both have it."""
    story = Story(tmp_path, home)
    data = b"x" * WORTH_A_REQUEST
    story.blobs.put_now(KEY, data)
    story.caches.held = {"1": data}
    assert await story.results.read([story.job("1", 0, data)]) == [data]
    assert story.read() == counts


async def test_the_cache_replaces_a_result_that_the_blob_store_has_lost(tmp_path: Path) -> None:
    """When both copies are gone there is no result."""
    story = Story(tmp_path, home="rack-b")
    data = b"x" * WORTH_A_REQUEST
    job = story.job("1", 0, data)
    [lost] = await story.results.read([job])
    assert isinstance(lost, ResultExpiredError)
    story.caches.held = {"1": data}
    assert await story.results.read([job]) == [data]


# --- damaged copies -------------------------------------------------------------------------------------------------

OLD, NEW = "made by a release without digests of chunks", "with digests of chunks"


def flipped(data: bytes, at: int = -1) -> bytes:
    spoilt = bytearray(data)
    spoilt[at] ^= 1
    return bytes(spoilt)


@pytest.mark.parametrize("home", ["rack-a", "rack-b"], ids=("cache first", "blob store first"))
async def test_a_damaged_copy_is_never_given_and_the_other_one_is(tmp_path: Path, home: str) -> None:
    """After a flipped bit in the blob store or in the cache, whichever is read first, the intact copy is answered."""
    story = Story(tmp_path, home)
    data = b"x" * WORTH_A_REQUEST
    job = story.job("1", 0, data)
    for stored, held in ((flipped(data), data), (data, flipped(data))):
        story.blobs.put_now(KEY, stored)
        story.caches.held = {"1": held}
        assert await story.results.read([job]) == [data]


async def test_a_result_without_an_intact_copy_is_an_error_that_names_job_and_remedy(tmp_path: Path) -> None:
    """One result of a pack is damaged, in both places: the others are given, and its content is offered no more."""
    story = Story(tmp_path, home="rack-b")
    story.blobs.put_now(KEY, b"oneTwothree")
    story.caches.held = {"2": b"tWo"}
    jobs = [story.job("1", 0, b"one"), story.job("2", 3, b"two"), story.job("3", 6, b"three")]
    one, two, three = await story.results.read(jobs)
    assert (one, three) == (b"one", b"three")
    assert isinstance(two, DamagedResultError)
    assert "stored result of job 2 is damaged" in str(two)
    assert "submit the input under a new jobId" in str(two)
    assert story.reported == [jobs[1].result]
    with pytest.raises(DamagedResultError):
        await story.results.read_one(jobs[1])


async def test_swapped_and_truncated_results_are_damaged(tmp_path: Path) -> None:
    """Two results of one size that changed places, and a pack that ends early."""
    story = Story(tmp_path, home="rack-b")
    story.blobs.put_now(KEY, b"twoonefo")
    jobs = [story.job("1", 0, b"one"), story.job("2", 3, b"two"), story.job("3", 6, b"four")]
    found = await story.results.read(jobs)
    assert [type(each) for each in found] == [DamagedResultError] * 3


def large() -> bytes:
    """A ZIP of some megabytes whose stdout.txt is most of it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("stdout.txt", bytes(range(256)) * (MOST_IN_MEMORY // 256 + 8 * CHUNK // 256))
        archive.writestr("manifest.json", b"{}")
    return buffer.getvalue()


def stored(story: Story, data: bytes, kind: str, *, damaged_at: int | None = None) -> StoredJob:
    """A large result in the blob store, damaged at a byte."""
    story.blobs.put_now(KEY, data if damaged_at is None else flipped(data, damaged_at))
    if kind is NEW:
        story.chunks["1"] = digests(pieces_of(data))[1] or b""
    return story.job("1", 0, data)


async def gathered(chunks: AsyncIterator[bytes]) -> tuple[bytes, BaseException | None]:
    """The received bytes, and the error with which the stream broke off."""
    data = bytearray()
    try:
        async for chunk in chunks:
            data += chunk
    except DamagedResultError as error:
        return bytes(data), error
    return bytes(data), None


@pytest.mark.parametrize("kind", [OLD, NEW])
async def test_an_intact_large_result_comes_whole_and_so_does_its_stdout(tmp_path: Path, kind: str) -> None:
    """With and without recorded digests of chunks; what is read is counted."""
    story = Story(tmp_path, home="rack-b")
    data = large()
    job = stored(story, data, kind)
    assert await gathered(await story.results.stream(job)) == (data, None)
    assert story.read() == (0, len(data))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        printed = archive.read("stdout.txt")
    assert await gathered(await story.results.stdout(job)) == (printed, None)
    assert story.caches.asked == []


@pytest.mark.parametrize("kind", [OLD, NEW])
async def test_a_large_result_that_is_damaged_at_its_beginning_is_an_error_before_any_byte(
    tmp_path: Path, kind: str
) -> None:
    """The error can still set the status."""
    story = Story(tmp_path, home="rack-b")
    job = stored(story, large(), kind, damaged_at=17)
    for ask in (story.results.stream, story.results.stdout):
        with pytest.raises(DamagedResultError, match=r"job 1 is damaged.*new jobId"):
            await ask(job)
    assert set(story.reported) == {job.result}


async def test_a_large_result_without_digests_of_chunks_is_read_through_before_its_first_byte(tmp_path: Path) -> None:
    """Damage anywhere in it is known before anything is sent."""
    story = Story(tmp_path, home="rack-b")
    job = stored(story, large(), OLD, damaged_at=-1_000)
    with pytest.raises(DamagedResultError):
        await story.results.stream(job)


async def test_a_large_result_that_is_damaged_later_breaks_off_and_is_an_error_from_then_on(tmp_path: Path) -> None:
    """No byte of a damaged chunk leaves; the next request is refused before any byte, until the blob is whole again."""
    story = Story(tmp_path, home="rack-b")
    data = large()
    job = stored(story, data, NEW, damaged_at=9 * CHUNK + 5)
    came, error = await gathered(await story.results.stream(job))
    assert isinstance(error, DamagedResultError)
    assert came == data[: 8 * CHUNK]
    for ask in (story.results.stream, story.results.stdout):
        with pytest.raises(DamagedResultError):
            await ask(job)
    story.blobs.put_now(KEY, data)
    assert await gathered(await story.results.stream(job)) == (data, None)


@pytest.mark.parametrize("kind", [OLD, NEW])
@pytest.mark.parametrize("at", [17, 9 * CHUNK + 5], ids=("at its beginning", "in the middle"))
async def test_the_nodes_copy_takes_the_place_of_a_large_result_that_is_damaged(
    tmp_path: Path, kind: str, at: int
) -> None:
    """A result begun from the blob store goes on from the cache, at the right byte; a damaged copy there is no help."""
    story = Story(tmp_path, home="rack-b")
    data = large()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        printed = archive.read("stdout.txt")
    job = stored(story, data, kind, damaged_at=at)
    story.caches.held = {"1": data}
    assert await gathered(await story.results.stream(job)) == (data, None)
    assert await gathered(await story.results.stdout(job)) == (printed, None)
    story.caches.held = {"1": flipped(data)}
    try:
        came, error = await gathered(await story.results.stream(job))
    except DamagedResultError as refused:
        came, error = b"", refused
    assert isinstance(error, DamagedResultError)
    assert came == data[: len(came)]
    assert len(came) < len(data)


async def test_a_large_result_that_is_truncated_or_gone_is_reported_as_such(tmp_path: Path) -> None:
    """Truncated is damaged, and absent is expired."""
    story = Story(tmp_path, home="rack-b")
    data = large()
    job = stored(story, data, NEW)
    story.blobs.put_now(KEY, data[: 6 * CHUNK])
    came, error = await gathered(await story.results.stream(job))
    assert (came, type(error)) == (data[: 6 * CHUNK], DamagedResultError)
    await story.blobs.delete([KEY])
    with pytest.raises(ResultExpiredError, match="gone from the blob store"):
        await story.results.stream(job)
