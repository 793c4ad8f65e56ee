"""The output limit counts the disk blocks of a pricer's files, wherever they are; not what it reserves."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.http import unzip
from tests.support.small_grid import SmallGrid

pytestmark = pytest.mark.asyncio(loop_scope="module")
MB = 1024**2
LIMIT = 4 * MB
PYTHON: dict[str, Any] = {"command": [sys.executable, "{input}"], "output": LIMIT}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grid(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SmallGrid]:
    async with SmallGrid(tmp_path_factory.mktemp("grid"), pricers={"python": PYTHON}) as running:
        yield running


async def failed(grid: SmallGrid, job_id: str, script: str) -> str:
    """Why a script fails for its output; it runs once."""
    answer = await grid.submit(job_id, script, pricer="python", timeout_s="30")
    assert (answer.status_code, answer.json()["reason"]) == (422, "output_limit"), answer.text
    assert (await grid.status(job_id))["attempts"] == 1
    detail: str = answer.json()["detail"]
    assert str(LIMIT) in detail
    return detail


async def test_reserved_space_is_no_output(grid: SmallGrid) -> None:
    """A memory file of 2 TB, as .NET makes one, and a file of 2 TB of holes that is removed again cost nothing."""
    script = (
        "import os, time\n"
        "os.ftruncate(os.memfd_create('doublemapper'), 2 * 1024**4)\n"
        "file = open('heap', 'wb')\n"
        "file.truncate(2 * 1024**4)\n"
        "time.sleep(1.5)\n"
        "os.unlink('heap')\n"
        "print('priced')\n"
    )
    answer = await grid.submit("reserves", script, pricer="python")
    assert answer.status_code == 200, answer.text
    assert unzip(answer)["stdout.txt"] == b"priced\n"


async def test_a_file_of_holes_cannot_be_a_result(grid: SmallGrid) -> None:
    """A file of 2 TB with nothing in it ends the job at its limit at once, without being read through."""
    detail = await failed(grid, "sparse", "open('sparse', 'wb').truncate(2 * 1024**4)")
    assert f"its files have {2 * 1024**4} bytes, holes included" in detail


@pytest.mark.parametrize(
    ("job_id", "script"),
    [
        ("halves", f"for n in range(2): open(f'part-{{n}}', 'wb').write(bytes({LIMIT // 2 + 1}))"),
        ("printed", f"print('x' * {LIMIT + 1})"),
        ("at-rest", f"open('large', 'wb').write(bytes({LIMIT + 1}))\nimport time; time.sleep(1000)"),
        ("slowly", "import time\nfor n in range(1000):\n    open(str(n), 'wb').write(bytes(500_000)); time.sleep(0.1)"),
        (
            "no-name",
            "import os, time\nfile = open('gone', 'wb', 0)\nos.unlink('gone')\n"
            "while True:\n    file.write(bytes(500_000)); time.sleep(0.05)",
        ),
        (
            "in-a-child",
            "import subprocess\nsubprocess.run(['sh', '-c', 'exec 3> gone; rm gone; cat /dev/zero >&3 & wait'])",
        ),
    ],
)
async def test_output_beyond_the_limit_ends_the_job(grid: SmallGrid, job_id: str, script: str) -> None:
    """It may be in one file or several, at once or slowly, with a name or without one."""
    await failed(grid, job_id, script)


async def test_output_of_exactly_the_limit_is_a_result(grid: SmallGrid) -> None:
    """The limit itself is allowed, in one file and in many small ones, however long the job goes on."""
    script = f"open('all', 'wb').write(bytes({LIMIT}))\nimport time; time.sleep(1.2)"
    assert (await grid.submit("exactly", script, pricer="python")).status_code == 200
    small = f"for n in range(1024): open(str(n), 'wb').write(bytes({LIMIT // 1024}))\nimport time; time.sleep(1.2)"
    assert (await grid.submit("small", small, pricer="python")).status_code == 200


async def test_input_and_shared_data_are_no_output(grid: SmallGrid) -> None:
    """A job may get more than it may write."""
    content = b"x" * (2 * LIMIT)
    stored = await grid.http.put("/data/curves", content=content)
    assert stored.status_code in (200, 201), stored.text
    script = "import time; time.sleep(1.5); print(len(open('data/curves').read()))\n#" + "x" * (2 * LIMIT)
    answer = await grid.submit("given", script, pricer="python", data="curves")
    assert answer.status_code == 200, answer.text
    assert unzip(answer)["stdout.txt"] == f"{2 * LIMIT}\n".encode()


async def test_the_limit_holds_while_a_job_is_given_time_to_end(tmp_path: Path) -> None:
    """A job that is past its time limit, and goes on writing instead of ending, is killed at its output limit."""
    script = (
        "import signal, time\n"
        "def fill(*_):\n"
        "    for n in range(10_000):\n        open(str(n), 'wb').write(bytes(500_000)); time.sleep(0.01)\n"
        "signal.signal(signal.SIGTERM, fill)\ntime.sleep(1000)"
    )
    pricers = {"python": {**PYTHON, "timeout_s": 1}}
    async with SmallGrid(tmp_path / "grid", pricers=pricers, node={"slots": 1, "kill_grace_s": 1000}) as grid:
        answer = await grid.submit("job", script, pricer="python")
        assert answer.json()["reason"] == "timeout"


async def test_files_outside_of_the_job_directory_count(grid: SmallGrid, tmp_path: Path) -> None:
    """Those that it has open for writing at a look, with what it writes into its own directory."""
    half = LIMIT // 2 + 1
    script = (
        f"import time\nfile = open('{tmp_path}/elsewhere', 'wb', 0)\nfile.write(bytes({half}))\n"
        f"open('own', 'wb').write(bytes({half}))\nprint('x', flush=True)\ntime.sleep(1000)"
    )
    assert f"{half} of them outside of its directories" in await failed(grid, "elsewhere", script)


async def test_no_output_counts_twice(grid: SmallGrid) -> None:
    """What is printed and what is in open files of the job directory and of TMPDIR counts as files there."""
    size = LIMIT // 4
    script = (
        "import os, sys, tempfile, time\n"
        "kept = [open('own', 'wb', 0), tempfile.TemporaryFile(), tempfile.NamedTemporaryFile()]\n"
        f"for file in kept[::2]: os.write(file.fileno(), bytes({size}))\n"
        f"os.write(1, bytes({size}))\n"
        f"open('/dev/null', 'wb').write(bytes({8 * LIMIT}))\n"  # so much written that its open files are looked at
        "time.sleep(2.5)\n"
    )
    answer = await grid.submit("once", script, pricer="python")
    assert answer.status_code == 200, answer.text
