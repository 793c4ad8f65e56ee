"""Locales other than UTF-8: names of files are unchanged, in commands and in the tiers of a grid."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from raygrid.cluster.spec import HostSpec
from raygrid.system.ray_environment import environment_beside_ray
from raygrid.system.supervisor import start_supervisor
from tests.support.small_grid import SmallGrid

pytestmark = pytest.mark.asyncio(loop_scope="module")

RAYGRID = "import sys; from raygrid.cli import app; sys.exit(app())"
NAME = "取引\u3000é👩\u200d👧.csv"
# The C locale as Python would use it without its own remedies, and terminals that lack most characters.
LOCALES: list[dict[str, str]] = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "C"},
    {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "latin-1:strict"},
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grid(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SmallGrid]:
    pricers = {"show": {"command": ["sh", "-c", 'basename "$1"; cat "$1"', "sh", "{input}"]}}
    async with SmallGrid(tmp_path_factory.mktemp("grid"), pricers=pricers) as running:
        yield running


async def raygrid(grid: SmallGrid, environment: Mapping[str, str], *words: str | Path) -> bytes:
    """Run a command that has to succeed; gives what it printed."""
    env = {**os.environ, "RAYGRID_URL": grid.url, **environment}
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RAYGRID, *words, env=env, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(60):
        printed, text = await command.communicate()
    assert command.returncode == 0, text.decode()
    return printed


@pytest.mark.parametrize("environment", LOCALES, ids=lambda each: " ".join(f"{k}={v}" for k, v in each.items()))
async def test_commands_work_in_any_locale(grid: SmallGrid, tmp_path: Path, environment: dict[str, str]) -> None:
    """A file is submitted under its name and listed, its result unpacked; JSON is UTF-8."""
    job_id, path = f"locale-{LOCALES.index(environment)}", tmp_path / NAME
    path.write_bytes(b"content\n")
    assert await raygrid(grid, environment, "submit", path, "--job-id", job_id) == f"{NAME}\ncontent\n".encode()
    listed = (await raygrid(grid, environment, "jobs")).decode("latin-1")
    assert job_id in listed
    reported = json.loads(await raygrid(grid, environment, "status", job_id, "--json"))
    assert reported["input_name"] == NAME
    await raygrid(grid, environment, "status", job_id)
    await raygrid(grid, environment, "submit", path, "--batch-id", f"b-{job_id}", "--out", tmp_path / "果")
    assert (tmp_path / "果" / path.stem / "stdout.txt").read_bytes() == f"{NAME}\ncontent\n".encode()


AGENT = """
import asyncio, sys
from pathlib import Path
from tests.support.small_grid import SmallGrid

async def main():
    script = "import os, sys; print(ascii(os.fsencode(sys.argv[1]).decode())); open(chr(0x679c), 'w')"
    show = {"command": [sys.executable, "-c", script, "{input}"], "env": {"LC_ALL": "C.UTF-8"}}
    async with SmallGrid(Path(sys.argv[1]), pricers={"show": show}) as grid:
        name = sys.argv[2].encode().decode("unicode_escape")
        answer = await grid.http.post("/submit/a?wait=60", files={"file": (name, b"x")})
        print(answer.status_code, answer.headers["content-type"])
        sys.stdout.flush()
        sys.stdout.buffer.write(answer.content)

asyncio.run(main())
"""


async def test_tiers_take_names_in_any_locale(tmp_path: Path) -> None:
    """With the variables that tiers are started with, names are UTF-8 on disk and in results in the C locale, too."""
    root = Path(__file__).parents[2]
    env = {**os.environ, **environment_beside_ray(LOCALES[0]), "PYTHONPATH": str(root)}
    words = [sys.executable, "-c", AGENT, str(tmp_path), "\\u53d6\\u5f15.csv"]
    tiers = await asyncio.create_subprocess_exec(*words, env=env, cwd=root, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(90):
        printed, text = await tiers.communicate()
    assert printed.startswith(b"200 application/zip\n"), printed + text
    assert "果".encode() in printed


async def test_supervisors_start_tiers_in_utf8_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid on one machine and a host of a cluster set it, whatever the caller's own setting is."""
    monkeypatch.setenv("PYTHONUTF8", "0")
    assert HostSpec(Path(), head=True).environment(LOCALES[0])["PYTHONUTF8"] == "1"
    (tmp_path / "tell.py").write_text("import sys; print(sys.flags.utf8_mode, flush=True)")
    log = tmp_path / "log"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert await asyncio.to_thread(start_supervisor("tell", b"", tmp_path, log).wait, 30) == 0
    assert log.read_text() == "1\n"
