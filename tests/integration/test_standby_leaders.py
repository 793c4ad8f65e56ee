"""Two candidates for each group: one leads, the other takes over when the first dies, freezes or hands over.

Real parents, leaders, agents and pricers in one process; candidates are frozen and killed by what connects them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from raygrid.errors import UnavailableError
from raygrid.leader.election import TTL_S
from tests.support.elected_grid import ElectedGrid, StandingLeader

pytestmark = pytest.mark.leases

TAKE_OVER_S = TTL_S + 1.0


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[ElectedGrid]:
    async with ElectedGrid(tmp_path, candidates=2, nodes=2, slots=2) as running:
        yield running


def noting(path: Path, seconds: float = 0.0) -> str:
    """A script that leaves a line when it begins, so that a second run would be seen."""
    return f"echo $$ >> {path}; sleep {seconds}; echo done"


async def lead_of(grid: ElectedGrid) -> dict[str, Any]:
    group: dict[str, Any] = (await grid.http.get("/groups")).json()["groups"][0]
    return group


async def submit(grid: ElectedGrid, count: int, name: str, script: str) -> list[str]:
    job_ids = [f"{name}-{number}" for number in range(count)]
    answers = await asyncio.gather(*(grid.submit(job_id, script, wait=0) for job_id in job_ids))
    assert {answer.status_code for answer in answers} <= {200, 202}
    return job_ids


async def all_done(grid: ElectedGrid, job_ids: list[str]) -> None:
    for job_id in job_ids:
        assert (await grid.until_state(job_id, "done", "failed"))["state"] == "done"


async def running_jobs(grid: ElectedGrid, job_ids: list[str]) -> list[str]:
    return [job_id for job_id in job_ids if (await grid.status(job_id))["state"] == "running"]


async def test_the_other_candidate_takes_over_from_a_dead_leader(grid: ElectedGrid, tmp_path: Path) -> None:
    """Within the lease's time it leads in the next term; what ran goes on and is not begun again."""
    ran = tmp_path / "ran"
    first = await grid.leading("rack-a")
    job_ids = await submit(grid, 12, "before", noting(ran, 1.5))

    async def some_run() -> bool:
        return len(await running_jobs(grid, job_ids)) == 4

    await grid.until(some_run)
    before = await lead_of(grid)
    died_at = time.monotonic()
    await first.die()
    second = await grid.leading("rack-a", besides=first)
    assert time.monotonic() - died_at < TAKE_OVER_S
    assert (await grid.submit("after", "echo alive")).status_code == 200

    await all_done(grid, job_ids)
    assert second is not first
    assert len(ran.read_text().splitlines()) == 12
    after = await lead_of(grid)
    assert after["term"] > before["term"]
    assert after["leader"] != before["leader"]


async def test_a_frozen_leader_that_thaws_changes_nothing(grid: ElectedGrid, tmp_path: Path) -> None:
    """Its successor leads meanwhile; its late writes and orders are refused, and it stands by."""
    ran = tmp_path / "ran"
    first = await grid.leading("rack-a")
    job_ids = await submit(grid, 12, "cold", noting(ran, 1.0))
    first.gate.freeze()
    second = await grid.leading("rack-a", besides=first)
    await all_done(grid, job_ids)
    answers = [(await grid.http.get(f"/result/{job_id}")).content for job_id in job_ids]

    first.gate.thaw()

    async def stands_by() -> bool:
        return not first.candidate.leads

    await grid.until(stands_by)
    more = await submit(grid, 8, "warm", noting(ran))
    await all_done(grid, more)
    assert second.candidate.leads
    assert [(await grid.http.get(f"/result/{job_id}")).content for job_id in job_ids] == answers
    assert len(ran.read_text().splitlines()) == 20


async def test_a_planned_hand_over_loses_no_time(grid: ElectedGrid, tmp_path: Path) -> None:
    """Under load the lead goes to the other candidate and back; nothing is begun twice, and work hardly pauses."""
    ran = tmp_path / "ran"
    first = await grid.leading("rack-a")
    job_ids = await submit(grid, 60, "load", noting(ran, 0.1))
    took: list[float] = []
    leaders: list[StandingLeader] = [first]
    for _ in range(2):
        began = time.monotonic()
        answer = await grid.http.post("/groups/rack-a/handover")
        took.append(time.monotonic() - began)
        assert answer.status_code == 200, answer.text
        leaders.append(await grid.leading("rack-a", besides=leaders[-1]))
        assert answer.json()["term"] == len(leaders)
        assert (answer.json()["handed_over_by"], answer.json()["state"]) == ("local", "ok")
        [listed] = (await grid.http.get("/groups")).json()["groups"]
        assert listed["handed_over_at"] == answer.json()["handed_over_at"]

    await all_done(grid, job_ids)
    assert leaders[0] is leaders[2] is not leaders[1]
    assert len(ran.read_text().splitlines()) == 60
    assert max(took) < TTL_S  # not by waiting for the lease to run out


async def test_a_repeated_hand_over_does_not_give_the_lead_back(grid: ElectedGrid) -> None:
    """A request that names a term which is over changes nothing; several at once make one hand-over."""
    first = await grid.leading("rack-a")
    [group] = (await grid.http.get("/groups")).json()["groups"]
    asked = {"term": group["term"]}
    answers = await asyncio.gather(*(grid.http.post("/groups/rack-a/handover", params=asked) for _ in range(3)))
    answers.append(await grid.http.post("/groups/rack-a/handover", params=asked))
    assert {(each.status_code, each.json()["term"]) for each in answers} == {(200, group["term"] + 1)}
    assert len({each.json()["handed_over_at"] for each in answers}) == 1
    assert await grid.leading("rack-a") is not first


async def test_a_refused_hand_over_is_not_recorded(grid: ElectedGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    """`handed_over_by` names who handed the lead over, not who tried."""
    leader = await grid.leading("rack-a")

    async def refuse() -> None:
        raise UnavailableError("this leader is frozen")

    monkeypatch.setattr(leader.candidate, "hand_over", refuse)
    assert (await grid.http.post("/groups/rack-a/handover")).status_code == 503
    assert (await grid.store.leases())["rack-a"].hand_over is None


async def test_an_impossible_hand_over_is_refused(tmp_path: Path) -> None:
    """A group of one candidate keeps its leader, and an unknown group is 404."""
    async with ElectedGrid(tmp_path, candidates=1) as grid:
        leader = await grid.leading("rack-a")
        alone = await grid.http.post("/groups/rack-a/handover")
        unknown = await grid.http.post("/groups/rack-z/handover")
        assert (alone.status_code, alone.json()["type"]) == (409, "urn:raygrid:problem:hand-over")
        assert "only one candidate" in alone.json()["detail"]
        assert (unknown.status_code, unknown.json()["type"]) == (404, "urn:raygrid:problem:group-not-found")
        assert "rack-a" in unknown.json()["detail"]
        assert leader.candidate.leads
