"""Jobs that are larger than the free memory: run again alone, then done, or failed with their size."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.room import MB, Room, hog
from tests.support.small_grid import SmallGrid


def with_memory(grid: SmallGrid, room: int) -> None:
    """Give the machine of the grid's nodes so many bytes."""
    for node in grid.nodes.values():
        node.agent._memory._gauge = Room(grid.settings.grid_dir, room)


async def test_a_job_that_fits_alone_is_done_alone(tmp_path: Path) -> None:
    """A job that was too large beside another one waits for the node, is charged no attempt and is done there."""
    async with SmallGrid(tmp_path, slots=3, placement={"max_attempts": 1}) as grid:
        with_memory(grid, 400 * MB)
        beside = asyncio.create_task(grid.submit("beside", hog(150, until=tmp_path / "go")))

        async def has_grown() -> bool:
            """Until then it might be the one that grew most."""
            seen = [node.agent._memory._gauge.look(None) for node in grid.nodes.values()]
            return all(each is not None and each.available <= 250 * MB for each in seen)

        await grid.until(has_grown)
        script = f"echo >> {tmp_path}/runs\n" + hog(220, 2.0)
        large = asyncio.create_task(grid.submit("large", script))

        async def waits_again() -> bool:
            known = grid.leaders["rack-a"].leader._state._jobs.get("large")
            return known is not None and known.alone

        await grid.until(waits_again)
        later = asyncio.create_task(grid.submit("later", "echo"))
        (tmp_path / "go").touch()
        assert [(await each).status_code for each in (beside, large, later)] == [200, 200, 200]
        assert (tmp_path / "runs").read_text() == "\n\n"


async def test_a_job_that_does_not_fit_alone_fails_with_its_size(tmp_path: Path) -> None:
    """The answer names the reason, the size and the remedy, and the neighbours are done."""
    async with SmallGrid(tmp_path, nodes=2, slots=2) as grid:
        with_memory(grid, 400 * MB)
        answers = await asyncio.gather(
            grid.submit("hog", f"echo >> {tmp_path}/runs\n" + hog(600)),
            *(grid.submit(f"good-{n}", "sleep 0.3; echo good") for n in range(8)),
        )
        assert [answer.status_code for answer in answers] == [422] + [200] * 8
        problem = answers[0].json()
        assert problem["reason"] == "memory_pressure"
        message = (await grid.status("hog"))["message"]
        assert "does not fit into the memory of node rack-a-" in message
        assert "the pricer's processes used" in message
        assert "more memory" in message
        # First beside others; then alone on its node, where pricers of the machine's other node may still run.
        assert 2 <= len((tmp_path / "runs").read_text()) <= 4
