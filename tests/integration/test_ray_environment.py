"""A real grid starts in environments as users have them: below `uv run`, beside a proxy, on one of several CPUs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raygrid.client import Client
from raygrid.local import free_port, running_grid
from raygrid.system.loopback import NO_PROXY
from tests.support.recording_proxy import recording_proxy

pytestmark = pytest.mark.own_grid

RAYGRID = Path(sys.executable).with_name("raygrid")
UV = shutil.which("uv", path=f"{RAYGRID.parent}:{os.environ.get('PATH', '')}")
TOO_MUCH_TO_UPLOAD = 700 * 1024**2


@pytest.mark.skipif(UV is None, reason="uv is not installed; `pip install uv` into this environment")
def test_a_grid_starts_below_uv_run_beside_a_proxy_and_on_one_cpu(tmp_path: Path) -> None:
    """With 700 MB in its state it starts in the usual time, asks no proxy, and has one slot; its logs stay."""
    assert UV is not None
    state = tmp_path / "100% a?b#c 価格"
    results = state / "here" / "blobs" / "results"
    results.mkdir(parents=True)
    with (results / "much").open("wb") as much:
        much.truncate(TOO_MUCH_TO_UPLOAD)  # a hole: Ray goes by the length
    port = free_port()
    cpu = min(os.sched_getaffinity(0))
    with recording_proxy() as proxy:
        environment = {**os.environ, **proxy.environment, "RAYGRID_STATE_DIR": str(state)}
        below_uv = ["taskset", "-c", str(cpu), UV, "run", "--no-project", "--python", sys.executable, str(RAYGRID)]

        def run(*words: str) -> str:
            done = subprocess.run(
                [*below_uv, *words], env=environment, capture_output=True, text=True, timeout=240, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        try:
            run("up", "--name", "here", "--port", str(port), "--pricer", "sh {input}")
            grid = running_grid("here", state)
            assert grid is not None
            with Client(grid.url) as client:
                [node] = client.nodes()
                assert node.slots == 1
                assert client.submit(b"echo $http_proxy$HTTP_PROXY.").result(60).stdout == ".\n"
            run("--url", grid.url, "wait-ready")
        finally:
            run("down", "--name", "here")
        assert proxy.asked == []
    logs = {log.name: log.read_text() for log in (state / "here" / "logs").glob("*.log")}
    assert sorted(logs) == ["agent-rack-a-1.log", "audit.log", "leader-rack-a.log", "parent.log", "supervisor.log"]
    requests = [json.loads(line)["action"] for line in logs.pop("audit.log").splitlines()]
    assert requests == ["POST /submit", "GET /result/{jobId}"]
    for name, text in logs.items():  # they stay when the grid is down
        who = name.partition(".")[0].replace("-", " ", 1)
        assert re.match(rf"2\d\d\d-\d\d-\d\dT[0-9:.]+Z INFO {who}: ", text), text[:200]
    assert (results / "much").stat().st_size == TOO_MUCH_TO_UPLOAD
    assert set(NO_PROXY) <= environment.keys()
