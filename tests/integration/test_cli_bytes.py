"""The command line as a user runs it, with its stdout in a file: the file holds what the pricer wrote."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.support.small_grid import SmallGrid

RAYGRID = "import sys; from raygrid.cli import app; sys.exit(app())"
PRINTED = {
    r'printf "\216\346\210\370\n"': b"\x8e\xe6\x88\xf8\n",  # "trade" in Shift_JIS
    r'printf "\000\377\001no newline"': b"\x00\xff\x01no newline",
    r'printf "a\r\nb\r\n"': b"a\r\nb\r\n",
}


@pytest.mark.parametrize(("script", "printed"), PRINTED.items(), ids=("shift_jis", "data", "crlf"))
async def test_submit_and_result_write_the_pricers_bytes_into_a_file(
    tmp_path: Path, script: str, printed: bytes
) -> None:
    """`raygrid submit f > out` and `raygrid result JOB > out`, also where the locale is not UTF-8."""
    path = tmp_path / "in.sh"
    path.write_text(script)
    async with SmallGrid(tmp_path / "grid") as grid:
        written = [
            await raygrid(grid, tmp_path / "out-1", "submit", str(path), "--pricer", "shell", "--job-id", "j"),
            await raygrid(grid, tmp_path / "out-2", "result", "j"),
            await raygrid(grid, tmp_path / "out-3", "result", "j", LC_ALL="C", PYTHONUTF8="0"),
        ]

    assert written == [printed] * 3


async def test_a_pipe_from_a_shell_is_submitted(tmp_path: Path) -> None:
    """`raygrid submit <(…)` sends the output of the pipe; an empty pipe and a device are refused in a sentence."""
    async with SmallGrid(tmp_path / "grid") as grid:

        async def submit(what: str) -> tuple[int | None, bytes, bytes]:
            line = f'"$0" -c "$1" submit {what} --pricer shell'
            env = {**os.environ, "RAYGRID_URL": grid.url}
            command = ("bash", "-c", line, sys.executable, RAYGRID)
            shell = await asyncio.create_subprocess_exec(*command, env=env, stdout=PIPE, stderr=PIPE)
            async with asyncio.timeout(60):
                printed, text = await shell.communicate()
            return shell.returncode, printed, text

        script = "basename $0; seq 100000 | tail -1"
        assert (await submit(f"<(echo '{script}')"))[:2] == (0, b"input\n100000\n")
        code, printed, text = await submit("<(true)")
        assert (code, printed) == (1, b"")
        assert b"is empty, and an input must not be empty" in text
        code, printed, text = await submit("/dev/zero")
        assert (code, printed) == (1, b"")
        assert b"neither a file nor a pipe" in text
        os.mkfifo(tmp_path / "in.sh")
        feed = asyncio.create_task(asyncio.to_thread((tmp_path / "in.sh").write_text, "basename $0"))
        assert (await submit(str(tmp_path / "in.sh")))[:2] == (0, b"in.sh\n")
        await feed


async def raygrid(grid: SmallGrid, out: Path, *words: str, **environment: str) -> bytes:
    """Run a command with its stdout in a file; gives what is in the file then."""
    env = {**os.environ, "RAYGRID_URL": grid.url, **environment}
    with out.open("wb") as file:
        command = await asyncio.create_subprocess_exec(sys.executable, "-c", RAYGRID, *words, stdout=file, env=env)
        async with asyncio.timeout(60):
            assert await command.wait() == 0
    return out.read_bytes()
