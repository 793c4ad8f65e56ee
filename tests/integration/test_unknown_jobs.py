"""What nodes run or have answered counts, though the leader has no place in memory for the job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from raygrid.core.attempt_counts import NO_ATTEMPTS
from raygrid.errors import UnavailableError
from raygrid.leader.dispatch import Leader
from raygrid.models import JobState, JobUpdate, QueuedJob
from tests.support.small_grid import SmallGrid


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[SmallGrid]:
    async with SmallGrid(tmp_path, slots=2, placement={"window": 2, "node_timeout_s": 1.0}) as running:
        yield running


async def held_by_a_node_and_unknown_to_the_store(grid: SmallGrid, tmp_path: Path) -> Leader:
    """The job `late` runs, the store has it as queued behind more jobs than a window holds, and there is no leader."""
    for name in ("late", "other"):
        script = f"echo x >> {tmp_path}/{name}; while [ ! -e {tmp_path}/end-{name} ]; do sleep 0.02; done; echo {name}"
        await grid.submit(name, script, wait=0)
        await grid.until_state(name, "running")
    for number in range(8):
        await grid.submit(f"urgent-{number}", "true", wait=0, priority=5)

    async def both_began() -> bool:
        return (tmp_path / "late").exists() and (tmp_path / "other").exists()

    await grid.until(both_began)
    before = grid.leaders["rack-a"].leader
    await before.close()
    lost = JobUpdate("late", JobState.QUEUED, NO_ATTEMPTS, None, before._outbox._lease.expires_at)
    await grid.store.record("rack-a", before._lease.term, [lost])
    assert (await grid.status("late"))["state"] == "queued"
    return before


async def test_an_attempt_of_a_job_beyond_the_window_is_adopted(grid: SmallGrid, tmp_path: Path) -> None:
    """It goes on under the next leader, and the job runs once."""
    await held_by_a_node_and_unknown_to_the_store(grid, tmp_path)
    await grid.new_leader("rack-a")
    await grid.until_state("late", "running", within_s=10)
    (tmp_path / "end-late").touch()
    await grid.until_state("late", "done", within_s=10)
    assert (tmp_path / "late").read_text() == "x\n"
    (tmp_path / "end-other").touch()
    await grid.until_state("urgent-7", "done")


@pytest.mark.parametrize("failures", [0, 8])
async def test_a_report_of_a_job_beyond_the_window_counts(
    grid: SmallGrid, tmp_path: Path, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer from a time without a leader is taken, also if the store is away longer than a node may be silent."""
    await held_by_a_node_and_unknown_to_the_store(grid, tmp_path)
    (tmp_path / "end-late").touch()

    async def reported() -> bool:
        return "late" not in grid.nodes["rack-a-1"].agent._accepted.by_job

    await grid.until(reported)
    look_up, asked = grid.store.unfinished_of, []

    async def away(group_id: str, job_ids: Sequence[str]) -> list[QueuedJob]:
        asked.append(job_ids)
        if len(asked) <= failures:
            raise UnavailableError("the job store is away")
        return await look_up(group_id, job_ids)

    monkeypatch.setattr(grid.store, "unfinished_of", away)
    await grid.new_leader("rack-a")
    status = await grid.until_state("late", "done", within_s=10)
    assert len(asked) == failures + 1
    assert (status["attempts"], (tmp_path / "late").read_text()) == (1, "x\n")
    (tmp_path / "end-other").touch()
    assert (await grid.until_state("other", "done"))["attempts"] == 1


async def test_an_attempt_of_a_job_that_has_ended_is_killed(grid: SmallGrid, tmp_path: Path) -> None:
    """If the store has the job as ended, its attempt is stopped and changes nothing."""
    before = await held_by_a_node_and_unknown_to_the_store(grid, tmp_path)
    over = JobUpdate(
        "late", JobState.FAILED, NO_ATTEMPTS, None, before._lease.expires_at, "infrastructure", None, "gave up"
    )
    await grid.store.record("rack-a", before._lease.term, [over])
    await grid.new_leader("rack-a")

    async def killed() -> bool:
        return "late" not in grid.nodes["rack-a-1"].agent._accepted.by_job

    await grid.until(killed, within_s=10)
    (tmp_path / "end-other").touch()
    await grid.until_state("urgent-7", "done")
    assert ((await grid.status("late"))["state"], (tmp_path / "late").read_text()) == ("failed", "x\n")
