"""A node and its blob store: what it reports of it, what it keeps, and what it never writes."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raygrid.blobs import BlobStore
from raygrid.core.group.events import AttemptOrder
from raygrid.models import AttemptId, AttemptReport, BlobSlice, NodeState, Outcome
from raygrid.node import health
from raygrid.node.agent import NodeAgent
from raygrid.node.attempt.stages import FinishedAttempt, ResultZip
from raygrid.node.cache import LocalPackStore, ResultCache
from raygrid.node.publisher import Publisher
from tests.support.lone_agent import lone_agent, order, reports_of, wait_until

pytestmark = pytest.mark.processes


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[NodeAgent]:
    BlobStore(str(tmp_path / "blobs")).create_marker_now("ours", make_directory=True)
    agent = lone_agent(tmp_path)
    agent.open()
    yield agent
    agent.close()


def for_store(marker: str, given: AttemptOrder) -> AttemptOrder:
    return replace(given, blobs=marker)


async def state(agent: NodeAgent) -> NodeState:
    return (await agent.reports(1, 0, 0, 0)).state


async def test_a_node_reports_at_once_which_blob_store_it_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The marker is in the very first answer, so that a grid's start waits for nothing."""
    BlobStore(str(tmp_path / "blobs")).create_marker_now("ours", make_directory=True)
    look = BlobStore.read_marker_now

    def slow(self: BlobStore) -> str | None:
        time.sleep(0.3)
        return look(self)

    monkeypatch.setattr(BlobStore, "read_marker_now", slow)
    agent = lone_agent(tmp_path)
    agent.open()
    node_state = await state(agent)
    agent.close()
    assert (node_state.marker, node_state.blobs, node_state.healthy) == ("ours", str(tmp_path / "blobs"), True)


async def test_a_node_reports_soon_that_its_blob_store_went_away(agent: NodeAgent, tmp_path: Path) -> None:
    """A poll that waits is answered when the marker vanishes; the leader then takes the node for unhealthy."""
    (tmp_path / "blobs").rename(tmp_path / "unmounted")
    began = time.monotonic()
    assert (await agent.reports(1, 0, 0, 30)).state.marker is None
    assert time.monotonic() - began < 5
    (tmp_path / "unmounted").rename(tmp_path / "blobs")
    assert (await agent.reports(1, 0, 0, 30)).state.marker == "ours"


async def test_a_result_is_not_stored_in_another_blob_store(agent: NodeAgent, tmp_path: Path) -> None:
    """An order's result belongs where its marker is; elsewhere the attempt failed for the grid's reasons."""
    agent.start(1, [for_store("theirs", order("job", "echo x"))])
    report = (await reports_of(agent, 1))[AttemptId("job", 1)]
    assert (report.outcome, report.result) == (Outcome.INFRASTRUCTURE, None)
    assert "another blob store" in (report.message or "")
    assert not (tmp_path / "blobs" / "results").exists()
    agent.start(1, [for_store("ours", order("job", "echo x", 2))])
    assert (await reports_of(agent, 2))[AttemptId("job", 2)].outcome is Outcome.EXITED


async def test_an_input_below_an_unmounted_share_is_not_lost(agent: NodeAgent, tmp_path: Path) -> None:
    """The missing input is no fault of the job: it runs elsewhere, and the node reports that it sees no marker."""
    given = for_store("ours", order("job", "echo x"))
    content = b"echo x"
    key = BlobSlice("inputs/2026-01-01/x", 0, len(content), hashlib.sha256(content).hexdigest())
    agent._blobs.put_now(key.key, content)
    given = replace(given, spec=replace(given.spec, inline=None, input=key))
    (tmp_path / "blobs").rename(tmp_path / "unmounted")
    agent.start(1, [given])
    reply = await agent.reports(1, 0, 0, 20)
    while not reply.reports:
        reply = await agent.reports(1, 0, 0, 20)
    assert reply.reports[0].outcome is Outcome.INFRASTRUCTURE
    assert "failed the attempt: the blob store" in (reply.reports[0].message or "")
    assert reply.state.marker is None  # in the same answer, so that the job is not handed back at once


def test_a_look_that_hangs_makes_the_node_unhealthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system that does not answer is reported, though the look at it never ends."""
    answer = threading.Event()
    monkeypatch.setattr(health, "STUCK_S", 0.1)
    monkeypatch.setattr(health, "FIRST_LOOK_S", 0.1)
    monkeypatch.setattr(BlobStore, "read_marker_now", lambda self: answer.wait(30))
    agent = lone_agent(tmp_path)
    agent.open()
    wait_until(lambda: "has not answered for" in (agent._health.why or ""))
    answer.set()
    wait_until(lambda: agent._health.why is None)
    agent.close()


# --- how long a result is kept --------------------------------------------------------------------------------------


class Away(BlobStore):
    """A blob store that takes nothing until the test allows it."""

    is_back = False
    tries = 0

    def put_now(self, key: str, data: bytes) -> None:
        self.tries += 1
        if not self.is_back:
            raise OSError("away")


def finished(took_s: float) -> FinishedAttempt:
    ended = datetime.now(UTC)
    report = AttemptReport(
        AttemptId("job", 1), Outcome.EXITED, 0, started_at=ended - timedelta(seconds=took_s), ended_at=ended
    )
    return FinishedAttempt(report, ResultZip(2, hashlib.sha256(b"PK").hexdigest(), b"PK", None))


def test_the_result_of_a_long_attempt_is_kept_through_an_outage(tmp_path: Path) -> None:
    """The result of a long attempt is kept for longer than two seconds without a blob store."""
    blobs, delivered = Away(str(tmp_path)), list[AttemptReport]()
    publisher = Publisher("n1", blobs, ResultCache(LocalPackStore(), 0), delivered.extend, lambda: False)
    publisher.start()
    publisher.put(finished(took_s=3600))
    wait_until(lambda: blobs.tries >= 5)
    assert delivered == []
    blobs.is_back = True
    wait_until(lambda: delivered)
    publisher.close()
    assert (delivered[0].outcome, delivered[0].result is not None) == (Outcome.EXITED, True)


def test_closing_does_not_wait_for_a_blob_store_that_is_away(tmp_path: Path) -> None:
    """An agent that stops drops results that it cannot store, instead of keeping them."""
    blobs, delivered = Away(str(tmp_path)), list[AttemptReport]()
    publisher = Publisher("n1", blobs, ResultCache(LocalPackStore(), 0), delivered.extend, lambda: False)
    publisher.start()
    publisher.put(finished(took_s=3600))
    wait_until(lambda: blobs.tries >= 1)
    began = time.monotonic()
    publisher.close()
    assert time.monotonic() - began < 10
    assert [report.outcome for report in delivered] == [Outcome.INFRASTRUCTURE]
