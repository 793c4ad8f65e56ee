"""A script whose `raygrid.map` is interrupted by Ctrl-C, and the use of the lines that it prints then."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import raygrid
from raygrid.client import default
from tests.support.small_grid import SmallGrid

SCRIPT = """
import sys, raygrid
raygrid.connect(sys.argv[1])
for result in raygrid.map([b"echo first", b"sleep 3; echo second", b"sleep 60"], pricer="shell", batch_id="night"):
    print(result.stdout, flush=True)
"""
RAYGRID = "import sys; from raygrid.cli import app; sys.exit(app())"


async def test_the_lines_that_an_interrupted_map_prints_work(tmp_path: Path) -> None:
    """The jobs go on; the code gives the results and cancels the rest; the commands do the same in a shell."""
    async with SmallGrid(tmp_path / "grid", slots=3) as grid:
        script = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SCRIPT, grid.url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert script.stdout is not None
        async with asyncio.timeout(60):
            assert await script.stdout.readline() == b"first\n"
            script.send_signal(signal.SIGINT)
            _, stderr = await script.communicate()
        lines = [line.strip() for line in stderr.decode().splitlines()]
        assert lines[-1] == "KeyboardInterrupt"
        assert script.returncode == -signal.SIGINT
        assert "httpx" not in lines[0]

        lines = lines[: lines.index("Traceback (most recent call last):")]
        [read] = [line for line in lines if line.startswith("for ")]
        [cancel] = [line for line in lines if line.startswith("raygrid.connect")]
        [command] = [line for line in lines if line.startswith("raygrid ") and " result " in line]
        [stop] = [line for line in lines if line.startswith("raygrid ") and " cancel " in line]
        jobs = (await grid.http.get("/jobs", params={"batch": "night"})).json()["jobs"]
        assert len(jobs) == 3
        ids = [job["jobId"] for job in sorted(jobs, key=lambda job: job["submitted_at"] + job["jobId"])]
        await grid.until_state(ids[1], "done")
        await grid.until_state(ids[2], "running")
        assert await run(stop, tmp_path) == 0
        await grid.until_state(ids[2], "cancelled")
        assert await run(command, tmp_path) == 1  # one of the jobs was cancelled
        printed = sorted(path.read_text() for path in (tmp_path / "results").glob("*/stdout.txt"))
        assert printed[:2] == ["first\n", "second\n"]
        assert await asyncio.to_thread(execute, cancel) == ""
        text = await asyncio.to_thread(execute, read)
        assert text.count("<Result of job") == 2


async def run(line: str, directory: Path) -> int | None:
    """Run a command as printed."""
    program, *words = shlex.split(line)
    assert program == "raygrid"
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RAYGRID, *words, cwd=directory, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    async with asyncio.timeout(90):
        return await command.wait()


def execute(line: str) -> str:
    """Run a line of code as printed; gives its output."""
    printed = StringIO()
    with redirect_stdout(printed):
        try:
            exec(line, {"raygrid": raygrid})  # noqa: S102 - the line that the test is about
        except raygrid.JobCancelledError:
            pass
        finally:
            default.forget()
    return printed.getvalue()
