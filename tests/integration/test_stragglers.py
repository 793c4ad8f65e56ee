"""A job that hangs on one node is answered by another one."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.http import unzip
from tests.support.small_grid import PRICERS, SmallGrid

USUAL = 6


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_job_that_hangs_on_one_node_is_answered_by_its_second_attempt(tmp_path: Path) -> None:
    """The second attempt's answer is the job's, and the process of the first is killed."""
    shell = {**PRICERS["shell"], "straggler": {"factor": 2, "min_s": 0.5}}
    async with SmallGrid(tmp_path, nodes=2, slots=2, pricers={**PRICERS, "shell": shell}) as grid:
        for number in range(USUAL):
            assert (await grid.submit(f"usual-{number}", "echo quick")).status_code == 200
        hangs = f"if mkdir {tmp_path}/first; then echo $$ > {tmp_path}/pid; exec sleep 1000; fi; echo second"
        answer = await grid.submit("hangs", hangs)
        assert unzip(answer)["stdout.txt"] == b"second\n"
        status = await grid.status("hangs")
        assert (status["state"], status["attempts"]) == ("done", 2)
        pid = int((tmp_path / "pid").read_text())

        async def nothing_is_left() -> bool:
            return not is_alive(pid) and not any(node.agent._accepted.by_job for node in grid.nodes.values())

        await grid.until(nothing_is_left)
        assert await grid.status("hangs") == status


async def test_without_the_setting_no_job_runs_twice(tmp_path: Path) -> None:
    """A second attempt is made only if its pricer allows it."""
    async with SmallGrid(tmp_path, nodes=2, slots=2) as grid:
        for number in range(USUAL):
            await grid.submit(f"usual-{number}", "true")
        await grid.submit("slow", f"echo x >> {tmp_path}/runs; sleep 2")
        assert (tmp_path / "runs").read_text() == "x\n"
