"""Where a parent reads results, and what it counts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from raygrid.blobs import BlobStore
from raygrid.core.sources import WORTH_A_REQUEST, NodePlace
from raygrid.models import BlobSlice, Job, JobState
from raygrid.parent.results import Results
from raygrid.parent.traffic import ParentTraffic

KEY = "results/2030-01-01/pack"
NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Caches:
    """Caches of the nodes: what they hold by job, and who asked for what."""

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
        self.results = Results(self.blobs, self.caches, places.get, self.traffic, home)

    def job(self, job_id: str, offset: int, size: int) -> Job:
        place = BlobSlice(KEY, offset, size, "digest")
        return Job(
            job_id, "f", "p", "1", (), 0, None, None, None, "input", BlobSlice("", 0, 1, "d"), (),
            group_id="rack-a", state=JobState.DONE, attempts=1, node_id="a1", exit_code=0, signal=None,
            reason=None, message=None, stderr_tail=None, result=place, cancel_requested=False, revision=1,
            submitted_at=NOW, started_at=NOW, ended_at=NOW, purged_at=None,
        )  # fmt: skip

    def read(self) -> tuple[int, int]:
        return self.traffic.of("from_cache", "rack-a"), self.traffic.of("from_blobs", "rack-a")


async def test_small_results_come_from_the_cache_and_the_rest_of_them_from_the_blob_store(tmp_path: Path) -> None:
    """What the cache has let go of, or knows in another size, is read from the blob store; both are counted."""
    story = Story(tmp_path, home="rack-b")
    story.blobs.put_now(KEY, b"onetwoooothree")
    story.caches.held = {"1": b"one", "3": b"of another attempt"}
    found = await story.results.read([story.job("1", 0, 3), story.job("2", 3, 6), story.job("3", 9, 5)])
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
    assert await story.results.read([story.job("1", 0, len(data))]) == [data]
    assert story.read() == counts


async def test_the_cache_helps_out_where_the_blob_store_has_lost_a_result(tmp_path: Path) -> None:
    """The hot copy is as good as the lost one; when both are gone there is none."""
    story = Story(tmp_path, home="rack-b")
    data = b"x" * WORTH_A_REQUEST
    job = story.job("1", 0, len(data))
    assert await story.results.read([job]) == [None]
    story.caches.held = {"1": data}
    assert await story.results.read([job]) == [data]
