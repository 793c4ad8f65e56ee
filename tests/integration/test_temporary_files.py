"""TMPDIR and RAYGRID_SLOT: what each job has for itself while it runs."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from raygrid.models import Outcome
from tests.support.http import unzip
from tests.support.lone_agent import lone_agent, order, reports_of, wait_until
from tests.support.small_grid import SmallGrid
from tests.support.warm import RUNS_ITS_INPUT, SPEAKS_RAW, WarmNode

MB = 1024**2


def files_below(place: Path) -> list[Path]:
    return [each for each in place.rglob("*") if not each.is_dir()]


async def test_jobs_with_one_fixed_temporary_file_read_their_own(tmp_path: Path) -> None:
    """Each of eight jobs finds its temporary directory empty, and in it what it wrote; nothing of it is kept."""
    fixed = (
        'ls "$TMPDIR"; echo {n} > "$TMPDIR/scratch"; sleep 0.2; cat "$TMPDIR/scratch"; echo "$TMPDIR $TMP $TEMP" >&2'
    )
    async with SmallGrid(tmp_path / "grid", slots=4) as grid:
        answers = await asyncio.gather(*(grid.submit(f"job-{n}", fixed.format(n=n)) for n in range(8)))
        for n, answer in enumerate(answers):
            files = unzip(answer)
            assert files["stdout.txt"] == f"{n}\n".encode()
            assert sorted(files) == ["manifest.json", "stderr.txt", "stdout.txt"]
            first, *others = files["stderr.txt"].decode().split()
            assert others == [first, first]
            assert not os.path.exists(f"{first}/scratch")
        assert files_below(grid.directory / "small" / "nodes" / "rack-a-1" / "tmp") == []


async def test_settings_may_put_temporary_files_elsewhere(tmp_path: Path) -> None:
    """A variable of the pricer's `env` wins, and that of the agent's environment is not passed on."""
    env = {"TMPDIR": str(tmp_path), "RAYGRID_SLOT": "9"}
    pricers = {"shell": {"command": ["sh", "{input}"], "env": env}}
    async with SmallGrid(tmp_path / "grid", pricers=pricers, slots=1) as grid:
        printed = unzip(await grid.submit("job", 'echo "$TMPDIR"; ls "$TMP"; echo "$RAYGRID_SLOT"'))["stdout.txt"]
        assert printed == f"{tmp_path}\n0\n".encode()


async def test_temporary_files_count_into_the_output_limit(tmp_path: Path) -> None:
    """A job that fills its temporary directory ends at its limit."""
    pricers = {"shell": {"command": ["sh", "{input}"], "output": 4 * MB}}
    async with SmallGrid(tmp_path / "grid", pricers=pricers) as grid:
        answer = await grid.submit("job", 'cat /dev/zero > "$TMPDIR/scratch"', timeout_s="30")
        assert answer.json()["reason"] == "output_limit"


async def test_a_socket_fits_into_a_temporary_directory(tmp_path: Path) -> None:
    """The directory is near the agent's own, so the path is short: a socket's address has at most 107 bytes."""
    async with SmallGrid(tmp_path / "grid") as grid:
        where = unzip(await grid.submit("job", 'printf %s "$TMPDIR"'))["stdout.txt"].decode()
        root = grid.directory / "small" / "nodes" / "rack-a-1"
        assert where.startswith(f"{root}/box/")
        assert len(where) - len(str(root)) <= len("/box/01234567/1000/tmp/0")


async def test_slots_have_numbers_that_no_two_jobs_share(tmp_path: Path) -> None:
    """Of 40 jobs on four slots, each has a number below four, and none shares it while it runs."""
    locks = tmp_path / "locks"
    locks.mkdir()
    script = f'mkdir {locks}/$RAYGRID_SLOT || exit 3; sleep 0.05; rmdir {locks}/$RAYGRID_SLOT; echo "$RAYGRID_SLOT"'
    async with SmallGrid(tmp_path / "grid", slots=4) as grid:
        answers = await asyncio.gather(*(grid.submit(f"job-{n}", script) for n in range(40)))
        assert {answer.status_code for answer in answers} == {200}
        assert {unzip(answer)["stdout.txt"] for answer in answers} == {b"0\n", b"1\n", b"2\n", b"3\n"}


async def test_an_agent_leaves_no_temporary_files(tmp_path: Path) -> None:
    """Neither a killed job nor a closed agent leaves any behind, nor does an earlier life."""
    earlier = tmp_path / "root" / "tmp" / "earlier" / "0"
    earlier.mkdir(parents=True)
    agent = lone_agent(tmp_path, slots=1)
    agent.open()
    try:
        assert not earlier.exists()
        agent.start(1, [order("job", 'echo x > "$TMPDIR/scratch"; touch ready; sleep 1000', timeout_s=0.5)])
        [report] = (await reports_of(agent, 1)).values()
        assert report.outcome is Outcome.TIMEOUT
        wait_until(lambda: files_below(tmp_path / "root" / "tmp") == [])
    finally:
        agent.close()
    wait_until(lambda: not list((tmp_path / "root" / "tmp").iterdir()))


LOOKS: dict[str, Any] = {
    "python": (
        RUNS_ITS_INPUT,
        "import json, tempfile\n"
        "names = ('TMPDIR', 'TMP', 'TEMP', 'RAYGRID_SLOT')\n"
        "found = [os.environ[name] for name in names]\n"
        "print(json.dumps([*found, tempfile.gettempdir(), job.slot, os.listdir(found[0])]))\n"
        "open(found[0] + '/scratch', 'w')",
    ),
    "raw": (
        SPEAKS_RAW,
        "t, s = job['tmp_dir'], job['slot']\n"
        "open(job['stdout'], 'w').write(json.dumps([t, t, t, str(s), t, s, os.listdir(t)]))\n"
        "open(t + '/scratch', 'w')\nanswer()",
    ),
}


@pytest.mark.parametrize("kind", LOOKS)
async def test_a_warm_pricer_gets_their_directory_with_each_job(tmp_path: Path, kind: str) -> None:
    """Each job in one process has an empty directory of its own; in Python, variables and `tempfile` follow."""
    program, looks = LOOKS[kind]
    with WarmNode(tmp_path, program) as node:
        places = set()
        for number in range(2):
            done = await node.run(f"job-{number}", looks)
            one, two, three, slot, gettempdir, reported, inside = json.loads(done.stdout)
            assert (two, three, gettempdir, slot, reported, inside) == (one, one, one, "0", 0, [])
            assert not os.path.exists(f"{one}/scratch")
            places.add(one)
        assert (len(places), node.started) == (1, 1)


async def test_a_warm_process_has_a_directory_of_its_own_between_jobs(tmp_path: Path) -> None:
    """What it puts there as it loads stays as long as it does; a variable of the settings is unchanged in its jobs."""
    program = RUNS_ITS_INPUT.replace(
        "def setup", "import tempfile\nloaded = tempfile.mkstemp()[1]\nhome = os.getcwd()\n\n\ndef setup"
    )
    looks = (
        "import tempfile, builtins\n"
        "kept = tempfile.mkstemp()[1]\n"
        "print(os.path.dirname(loaded) == home, os.path.exists(loaded), os.path.dirname(kept) == os.environ['TMPDIR'])"
    )
    with WarmNode(tmp_path, program) as node:
        for number in range(2):
            assert (await node.run(f"job-{number}", looks)).stdout == "True True True\n"
    env = {**node._env, "TMPDIR": str(tmp_path)}
    with WarmNode(tmp_path / "other", RUNS_ITS_INPUT, env={**env, "STARTS": str(tmp_path / "s")}) as node:
        looks = "import tempfile as t; print(os.environ['TMPDIR'], t.gettempdir(), os.environ['TMP'] != t.gettempdir())"
        assert (await node.run("job", looks)).stdout == f"{tmp_path} {tmp_path} True\n"


async def test_a_job_that_removes_the_directories_of_others_harms_no_later_job(tmp_path: Path) -> None:
    """Directories for later jobs are checked before they are used: each job finds an empty one of its own."""
    async with SmallGrid(tmp_path) as grid:
        await asyncio.gather(*(grid.submit(f"before-{number}", "sleep 1") for number in range(8)))  # several at once
        assert (await grid.submit("vandal", 'rm -rf "$(dirname "$TMPDIR")"')).status_code == 200
        for number in range(8):
            answer = await grid.submit(f"after-{number}", 'mktemp > /dev/null && ls "$TMPDIR" | wc -l')
            assert (answer.status_code, unzip(answer)["stdout.txt"].strip()) == (200, b"1"), answer.text
