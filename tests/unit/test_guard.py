"""A frozen process is killed, a working one is not, and no guard outlives its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from raygrid.system.guard import STEP_S
from raygrid.system.heartbeat import BEAT_S, Heartbeat, start_guard
from raygrid.system.orphans import VARIABLE
from raygrid.system.proc import environment_of
from tests.support.lone_agent import wait_until

pytestmark = pytest.mark.processes

LIMIT_S = 4.0
THREADED = f"""
import time
from raygrid.system.heartbeat import start_guarded
print(start_guarded({LIMIT_S}).pid, flush=True)
time.sleep(1000)
"""
LOOP = f"""
import asyncio, sys, time
from raygrid.system.heartbeat import start_guarded
async def main():
    heartbeat = start_guarded({LIMIT_S})
    heartbeat.follow(asyncio.get_running_loop())
    print(heartbeat.pid, flush=True)
    await asyncio.sleep({2 * LIMIT_S})
    print("hangs", flush=True)
    time.sleep(1000)
asyncio.run(main())
"""


@contextmanager
def owner(script: str = THREADED) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process that has a guard, and the guard's pid; neither is left."""
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None
        guard = int(process.stdout.readline())
        try:
            yield process, guard
        finally:
            process.kill()
            process.wait()
            wait_until(lambda: not lives(guard), within_s=10)


def lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    return False


def test_a_frozen_process_is_killed() -> None:
    """SIGKILL also reaches a stopped process, after the limit and not before; and its guard goes with it."""
    with owner() as (process, guard):
        process.send_signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        assert process.wait(timeout=20) == -signal.SIGKILL
        assert time.monotonic() - stopped_at > LIMIT_S - STEP_S
        wait_until(lambda: not lives(guard), within_s=5)


def test_a_process_that_works_is_not_killed_and_one_whose_loop_hangs_is() -> None:
    """While the loop turns nothing happens, long beyond the limit; once it hangs the process is killed."""
    with owner(LOOP) as (process, _):
        assert process.stdout is not None
        assert process.stdout.readline() == b"hangs\n", "it was killed while it worked"
        assert process.wait(timeout=20) == -signal.SIGKILL


def test_a_freeze_of_both_is_no_silence() -> None:
    """If the whole machine or container stood still, no process is killed for it."""
    with owner() as (process, guard):
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.5 * STEP_S)
        os.kill(guard, signal.SIGSTOP)
        time.sleep(2 * LIMIT_S)
        os.kill(guard, signal.SIGCONT)
        time.sleep(1.5 * STEP_S)  # the guard may well be the first to go on
        process.send_signal(signal.SIGCONT)
        time.sleep(LIMIT_S)
        assert process.poll() is None


def test_no_guard_outlives_its_owner() -> None:
    """However the owner ends, its end of the pipe is closed, and the guard ends at once."""
    with owner() as (process, guard):
        assert lives(guard)
        process.kill()
        process.wait()
        wait_until(lambda: not lives(guard), within_s=5)


def test_a_guard_is_small() -> None:
    """One runs beside every leader, so it loads almost no module."""
    with owner() as (_, guard):
        rollup = Path(f"/proc/{guard}/smaps_rollup")
        wait_until(lambda: "Rss" in rollup.read_text())
        time.sleep(0.5)  # so that it has loaded its modules
        [rss] = [int(line.split()[1]) for line in rollup.read_text().splitlines() if line.startswith("Rss:")]
        assert rss < 14_000, f"{rss} kB"


def test_a_guard_that_is_frozen_or_gone_delays_nothing() -> None:
    """A full pipe is not written to, a broken one ends the beat, and closing works either way."""
    with subprocess.Popen(["/bin/sleep", "1000"], stdin=subprocess.PIPE) as full:
        heartbeat = Heartbeat(full)
        assert full.stdin is not None
        with suppress(BlockingIOError):
            while True:
                os.write(full.stdin.fileno(), b"." * 65_536)
        time.sleep(2.5 * BEAT_S)
        assert heartbeat._thread.is_alive()
        full.kill()
        heartbeat._thread.join(timeout=10)
        assert not heartbeat._thread.is_alive()
        heartbeat.close()
    ends = Heartbeat(start_guard(["/bin/cat"]))
    ends.close()
    assert not lives(ends.pid)


def test_a_guard_gets_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes of the user can read its environment; it keeps the mark by which the supervisor spares it."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv(VARIABLE, "1.2")
    heartbeat = Heartbeat(start_guard(["/bin/cat"]))
    try:
        wait_until(lambda: environment_of(heartbeat.pid))  # for a moment of its start it has none
        environment = environment_of(heartbeat.pid) or b""
        assert f"{VARIABLE}=1.2".encode() in environment
        assert b"secret" not in environment
    finally:
        heartbeat.close()
