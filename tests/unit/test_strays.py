"""A supervisor ends what jobs of a dead agent left, whatever its environment is, and spares Ray's processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.agent_process import running_with
from tests.support.lone_agent import wait_until

ROOT = Path(__file__).parents[2]

# It starts a program that starts others and dies, as an agent would, looks until its input ends, then ends all.
SUPERVISOR = """
import os, subprocess, sys, threading, time
from raygrid.system.orphans import Strays

strays = Strays(runs_jobs=sys.argv[2] == 'jobs')
os.environ.update(strays.variables)
agent = subprocess.Popen(["sh", "-c", sys.argv[1]], start_new_session=True)
strays.spare(agent.pid)
asked = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), asked.set()), daemon=True).start()
looks = 0
while not asked.wait(0.05):
    strays.look()
    looks += 1
print(strays.end_all(1.0, 5.0), flush=True)
"""

FORKS_ON = """
import os, sys, time
until = time.monotonic() + 60  # should nothing end it
while time.monotonic() < until:
    time.sleep(0.001)
    with open(sys.argv[1], "w") as beat:
        beat.write(str(os.getpid()))
    if os.fork():
        os._exit(0)
    os.setsid()
"""


@contextmanager
def supervised(script: str, below: str = "jobs") -> Iterator[subprocess.Popen[str]]:
    """A supervisor whose agent runs a script; `below` is the list of its processes."""
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, script, below],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def words(command: str) -> str:
    return command.replace(" ", "\0")


@pytest.mark.parametrize("environment", ["env -i", "env -u RAYGRID_SUPERVISOR RAYGRID_ATTEMPT=x"])
def test_a_process_that_lost_its_agent_is_killed_and_one_of_rays_is_not(environment: str) -> None:
    """Without the supervisor's variable a child that it adopted is a job's; with it, it is Ray's until the end."""
    stray, of_ray, held = (f"/bin/sleep 2222.{os.getpid()}{number}" for number in range(3))
    script = (
        f"setsid {environment} {stray} & setsid {of_ray} & setsid {environment} {held} & read -r x < $0; kill -9 $$"
    )
    with supervised(script.replace("$0", f"/proc/{os.getpid()}/comm")) as supervisor:
        wait_until(lambda: running_with(words(of_ray)))
        wait_until(lambda: not running_with(words(stray)))
        wait_until(lambda: not running_with(words(held)))
        time.sleep(0.5)
        assert running_with(words(of_ray))
        assert supervisor.communicate(timeout=15)[0] == "0\n"
    assert not running_with(words(of_ray))


def test_where_no_jobs_run_nothing_is_killed_before_the_end(tmp_path: Path) -> None:
    """On a cluster's head Ray's ssh masters lose their parents and write over their environment."""
    master = f"/bin/sleep 2224.{os.getpid()}"
    with supervised(f"setsid env -i {master} & touch {tmp_path}/ready", "no jobs") as supervisor:
        wait_until(lambda: (tmp_path / "ready").exists() and running_with(words(master)))
        wait_until(lambda: _parent(running_with(words(master))[0]) == supervisor.pid)
        time.sleep(0.5)
        assert running_with(words(master))
        assert supervisor.communicate(timeout=15)[0] == "0\n"
    assert not running_with(words(master))


def test_a_process_with_a_living_agent_is_left_to_it(tmp_path: Path) -> None:
    """At the end nothing is left below the supervisor."""
    held = f"/bin/sleep 2223.{os.getpid()}"
    with supervised(f"setsid env -i {held} & touch {tmp_path}/ready; exec sleep 60") as supervisor:
        wait_until(lambda: (tmp_path / "ready").exists() and running_with(words(held)))
        time.sleep(0.5)
        assert running_with(words(held))
        for pid in [each for each in running_with(words("sleep 60")) if _parent(each) == supervisor.pid]:
            os.kill(pid, 9)
        wait_until(lambda: not running_with(words(held)))


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_daemon_that_forks_on_does_not_escape(tmp_path: Path) -> None:
    """Each of its processes lives for a millisecond, in a session of its own and without an environment."""
    (tmp_path / "forks.py").write_text(FORKS_ON)
    beat = tmp_path / "beat"
    forks = f"setsid env -i {sys.executable} -S {tmp_path}/forks.py {beat} & while [ ! -s {beat} ]; do sleep 0.01; done"
    with supervised(forks):
        wait_until(beat.exists)

        def is_quiet() -> bool:
            before = beat.stat().st_mtime_ns  # not its text: the last process may have been killed while it wrote
            time.sleep(0.3)
            return beat.stat().st_mtime_ns == before

        wait_until(is_quiet)
