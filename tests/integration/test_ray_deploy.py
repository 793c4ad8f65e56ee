"""`raygrid deploy` on a grid of this machine, while jobs are queued, run and are submitted.

`DEPLOY_JOBS` is the number of jobs, 300 by default.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from raygrid.client import Client
from raygrid.local import free_port
from raygrid.models import JobState

pytestmark = pytest.mark.own_grid

JOBS = int(os.environ.get("DEPLOY_JOBS", "300"))


def settings(directory: Path, version: str, quota: int, port: int) -> Path:
    """A settings file with one pricer that waits for a file, then prints its version, a variable and its input."""
    wait = f"while [ ! -e {directory / 'gate'} ]; do sleep 0.05; done"
    command = ["sh", "-c", f'{wait}; echo {version} $FEED; cat "$1"', "sh", "{input}"]
    content = {
        "name": "deployed",
        "http": {"port": port},
        "node": {"slots": 2},
        "groups": {"rack-a": {"quota": quota}},
        "pricers": {"says": {"command": command, "version": version, "env": {"FEED": f"feed-{version}"}}},
    }
    path = directory / f"{version}.yaml"
    path.write_text(json.dumps(content))
    return path


def raygrid(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user whose Ray is elsewhere."""
    environment = {**os.environ, "RAYGRID_STATE_DIR": str(directory / "state"), "RAY_ADDRESS": "192.0.2.1:6379"}
    code = "import sys; from raygrid.cli import app; sys.exit(app())"
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_deployment_in_the_middle_of_many_jobs(tmp_path: Path) -> None:
    """Each job runs the definition of its submit, no submit fails, quotas follow, and `up` succeeds afterwards."""
    port = free_port()
    one, two = (settings(tmp_path, version, quota, port) for version, quota in (("one", 1), ("two", 2)))
    started = raygrid(tmp_path, "up", "--config", str(one))
    assert started.returncode == 0, started.stderr
    try:
        with Client(f"http://127.0.0.1:{port}") as client:
            first = client.map([f"{n}".encode() for n in range(JOBS // 2)])
            stop, during = threading.Event(), []

            def keep_submitting() -> None:
                while not stop.is_set():
                    during.append(client.submit(b"during"))
                    time.sleep(0.1)

            submitter = threading.Thread(target=keep_submitting)
            submitter.start()
            began = time.monotonic()
            deployed = raygrid(tmp_path, "deploy", "--config", str(two))
            took_s = time.monotonic() - began
            stop.set()
            submitter.join()
            assert deployed.returncode == 0, deployed.stderr
            assert "groups.rack-a.quota: 1 -> 2" in deployed.stdout
            assert "feed-" not in deployed.stdout + deployed.stderr
            left = sum(first.status().counts.get(state, 0) for state in (JobState.QUEUED, JobState.RUNNING))
            second = client.map([f"{n}".encode() for n in range(JOBS // 2)])
            (tmp_path / "gate").touch()
            ran: Counter[Any] = Counter()
            for jobs, version in ((first, "one"), (second, "two")):
                for result in jobs.results(300):
                    assert result.stdout == f"{version} feed-{version}\n{int(result.stdout.splitlines()[1])}"
                    assert result.manifest["version"] == version
                    ran[version, result.manifest["definition"]] += 1
            for job in during:
                status, result = job.status(), job.result(60)
                assert result.stdout == f"{status.version} feed-{status.version}\nduring"
                assert (result.manifest["version"], result.manifest["definition"]) == (
                    status.version,
                    status.definition,
                )
            assert sorted(count for _, count in ran.items()) == [JOBS // 2, JOBS // 2]
            assert {version for version, _ in ran} == {"one", "two"}
            assert {job.status().version for job in during} <= {"one", "two"}
            assert left == JOBS // 2
            print(f"{JOBS} jobs, {left} of the first half unfinished after the deployment, which took {took_s:.1f} s;")
            print(
                f"{len(during)} more submitted during it: {Counter(job.status().version for job in during)}; ran {ran}"
            )
            [group] = client.groups()
            assert group.slots == 2
        again = raygrid(tmp_path, "up", "--config", str(two))
        assert (again.returncode, "runs already" in again.stdout) == (0, True), again.stderr
        assert raygrid(tmp_path, "up", "--config", str(one)).returncode == 2
    finally:
        ended = raygrid(tmp_path, "down", "--config", str(two))
    assert ended.returncode == 0, ended.stderr
