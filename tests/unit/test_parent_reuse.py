"""When a parent proposes that a job takes over a result, and when it lets the job run instead."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from raygrid.blobs import BlobStore
from raygrid.core.attempt_counts import AttemptCounts
from raygrid.errors import UnavailableError
from raygrid.models import AttemptId, AttemptReport, BlobSlice, JobSpec, JobState, JobUpdate, NewJob, Outcome
from raygrid.parent import reuse as reuse_module
from raygrid.parent.reuse import Reuse
from raygrid.settings.content_key import ContentKeys
from raygrid.settings.model import load_settings
from tests.contract.test_job_store import AT
from tests.simulation.memory_store import MemoryStore

SETTINGS = load_settings(
    None,
    pricers={"kept": {"command": "price {input}", "reuse": "content"}, "plain": {"command": "price {input}"}},
)
KEY = "results/2026-03-01/pack"


def job(job_id: str, line: str = "book", pricer: str = "kept") -> NewJob:
    return NewJob(JobSpec(job_id, pricer, "1", BlobSlice("", 0, 4, line), inline=b"book"), "rack-a", "f")


class Blobs(BlobStore):
    """A directory that may be away, or hang, when it is asked for sizes."""

    def __init__(self, directory: Path) -> None:
        super().__init__(str(directory))
        self.asked: list[set[str]] = []
        self.away = False
        self.hangs = threading.Event()
        self.hangs.set()

    async def sizes(self, keys: Collection[str]) -> Mapping[str, int]:
        self.asked.append(set(keys))
        if self.away:
            raise UnavailableError("the blob store is away")
        await asyncio.to_thread(self.hangs.wait)
        return await super().sizes(keys)


class Story:
    """A parent's look at a store in which the job `ran` left 9 bytes of a pack."""

    def __init__(self, directory: Path) -> None:
        self.store, self.blobs = MemoryStore(), Blobs(directory)
        self.reuse = Reuse(SETTINGS, self.store, self.blobs)

    async def ran(self, made: NewJob, result: BlobSlice) -> None:
        """A job that has ended."""
        job_id = made.spec.job_id
        content = ContentKeys().key(made.spec, SETTINGS.pricers["kept"])
        await self.store.insert([made])
        lease = await self.store.acquire_lease("rack-a", "leader", 60)
        assert lease is not None
        report = AttemptReport(AttemptId(job_id, 1), Outcome.EXITED, 0, result=result, content=content)
        update = JobUpdate(job_id, JobState.DONE, AttemptCounts(1), "n1", AT, report=report)
        await self.store.record("rack-a", lease.term, [update])

    async def sources(self, *jobs: NewJob) -> list[str | None]:
        """The jobs whose results are proposed."""
        return [each.source for each in await self.reuse.with_sources(jobs)]


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    made = Story(tmp_path)
    made.blobs.put_now(KEY, b"x" * 20)
    await made.ran(job("ran"), BlobSlice(KEY, 11, 9, "r"))
    yield made
    made.blobs.hangs.set()
    await made.reuse.close()


async def test_a_result_of_equal_content_is_proposed(story: Story) -> None:
    """Only for a job with the same content and a pricer whose results are reused."""
    jobs = [job("j1"), job("j2", "other"), job("j3", pricer="plain"), job("j4")]
    found = await story.reuse.with_sources(jobs)
    assert [each.source for each in found] == ["ran", None, None, "ran"]
    assert [replace(each, source=None) for each in found] == jobs


async def test_without_reuse_no_store_is_asked(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of other pricers cost neither a look into the job store nor one into the blob store."""
    monkeypatch.setattr(story.store, "reusable", None)
    assert await story.sources(job("j1", pricer="plain")) == [None]
    assert story.blobs.asked == []


async def test_many_results_of_one_pack_cost_one_look(story: Story) -> None:
    """The blob store is asked for each blob once, and not at all where nothing was found."""
    await story.ran(job("also", "also"), BlobSlice(KEY, 0, 11, "r"))
    assert await story.sources(job("j1"), job("j2"), job("j3", "also")) == ["ran", "ran", "also"]
    assert await story.sources(job("j4", "unheard of"), job("j5", "new")) == [None, None]
    assert story.blobs.asked == [{KEY}]


async def test_jobs_submitted_one_by_one_share_looks(story: Story) -> None:
    """Hundreds of single submits at once are looked up in a few calls."""
    found = await asyncio.gather(*(story.sources(job(f"j{number}")) for number in range(300)))
    assert found == [["ran"]] * 300
    assert len(story.blobs.asked) <= 2


@pytest.mark.parametrize("left", [None, b"x" * 19], ids=["gone", "too short"])
async def test_an_incomplete_result_is_not_proposed(story: Story, left: bytes | None) -> None:
    """A blob that is gone or was cut short means that the job runs."""
    await story.blobs.delete([KEY])
    if left is not None:
        story.blobs.put_now(KEY, left)
    assert await story.sources(job("j1")) == [None]


async def test_a_blob_store_that_is_away_only_costs_a_run(story: Story) -> None:
    """Nothing is proposed while the blob store cannot be asked, and everything again once it can."""
    story.blobs.away = True
    assert await story.sources(job("j1")) == [None]
    story.blobs.away = False
    assert await story.sources(job("j1")) == ["ran"]


async def test_a_blob_store_that_hangs_holds_no_submit_for_long(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks are given up after a while and take few threads; when it answers, results are proposed again."""
    monkeypatch.setattr(reuse_module, "LOOK_S", 0.1)
    story.blobs.hangs.clear()
    for number in range(reuse_module.LOOKS + 3):
        assert await story.sources(job("j1"), job(f"other-{number}", f"{number}")) == [None, None]
    assert len(story.blobs.asked) == reuse_module.LOOKS
    story.blobs.hangs.set()
    async with asyncio.timeout(60):
        while await story.sources(job("j1")) != ["ran"]:
            await asyncio.sleep(0.02)


async def test_closing_does_not_wait_for_a_blob_store_that_hangs(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent can be closed while a look hangs."""
    monkeypatch.setattr(reuse_module, "LOOK_S", 0.1)
    story.blobs.hangs.clear()
    assert await story.sources(job("j1")) == [None]
    async with asyncio.timeout(30):
        await story.reuse.close()
