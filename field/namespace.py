"""Runs as the first process of a PID namespace, and starts a grid there as the user nobody.

A job of that grid kills every process that it may signal. It has no sandbox, but it reaches only the processes of
nobody in this namespace.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

from field.grid import Grid, Ran
from field.tools import NOBODY

AS_NOBODY = (
    *("prlimit", "--nproc=4000", "--core=0"),
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"),
)
MOST_ATTEMPTS, MOST_STARTS = 2, 4
SETTINGS = {
    "sandbox": "off",  # in a sandbox the job reaches only itself
    "pricers": {"shell": {"command": ["sh", "{input}"]}},
    "node": {"slots": 2},
    "placement": {"max_attempts": MOST_ATTEMPTS},
}


def main(port: int) -> int:
    """Run the trials; prints a line of JSON for each."""
    if os.getpid() != 1:
        print("this runs as the first process of a PID namespace only", file=sys.stderr)
        return 2
    grid = _grid(port)
    try:
        _endless(grid)
        _cancelled(grid)
    finally:
        _command(grid, "down", "--name", grid.name)
    return 0


def _endless(grid: Grid) -> None:
    up = _up(grid)
    _tell("a grid of the user nobody, in a PID namespace of its own", up.stderr[-150:], up.returncode == 0)
    innocent = _submit(grid, "innocent", "sleep 2; printf well")
    killer = _submit(grid, "killer", "kill -9 -1")
    starts = 1
    while starts <= MOST_STARTS and not _ended(grid, killer, within_s=12):
        _up(grid)
        starts += 1
    status = grid.request("GET", f"/status/{killer}").json if _answers(grid) else {}
    end = f"{status.get('state')} {status.get('reason')} after {starts} starts, attempts: {status.get('attempts')}"
    _tell("kill -9 -1", end, status.get("reason") == "poison" and starts <= MOST_ATTEMPTS + 1)
    answer = grid.request("GET", f"/result/{innocent}?wait=20") if _answers(grid) else None
    printed = answer.files.get("stdout.txt") if answer else None
    _tell("a job that ran beside it", answer.short if answer else "no grid", printed == b"well")


def _cancelled(grid: Grid) -> None:
    """After such a job has killed the grid, cancelling the job before the next start stops it."""
    if not _answers(grid):
        _up(grid)
    killer = _submit(grid, "second", "kill -9 -1")
    _ended(grid, killer, within_s=12)
    done = _command(grid, "cancel", killer, "--name", grid.name, url=False)
    said = (done.stdout + done.stderr)[-150:]
    if not _tell("raygrid cancel JOB while the grid is down", said, done.returncode == 0):
        return
    _up(grid)
    time.sleep(2)
    status = grid.request("GET", f"/status/{killer}").json if _answers(grid) else {}
    _tell("that job after the next start", status.get("state"), status.get("state") == "cancelled")


def _grid(port: int) -> Grid:
    scratch = Path(os.environ["TMPDIR"]) / "grid"
    grid = Grid("isolated", port, scratch, dict(os.environ), dict(SETTINGS), before=AS_NOBODY)
    grid.write_settings()
    for path in (scratch, grid.config):
        shutil.chown(path, NOBODY, NOBODY)
    return grid


def _up(grid: Grid) -> Ran:
    done = grid.up()
    _reap()
    return done


def _command(grid: Grid, *words: str, url: bool = True) -> Ran:
    done = grid.command(*words, before=AS_NOBODY, env={} if url else {"RAYGRID_URL": ""})
    _reap()
    return done


def _submit(grid: Grid, job: str, script: str) -> str:
    grid.submit(script, job_id=job, prefer="respond-async")
    return job


def _answers(grid: Grid) -> bool:
    with contextlib.suppress(OSError):
        return grid.request("GET", "/health/live", timeout_s=5).status == 200
    return False


def _ended(grid: Grid, job: str, within_s: float) -> bool:
    """Wait until a job has ended; False if the grid has ended, or after `within_s`."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        _reap()
        if not _answers(grid):
            time.sleep(1.0)  # the rest of the grid ends as well
            return False
        with contextlib.suppress(OSError):
            if grid.request("GET", f"/status/{job}").json.get("state") in {"done", "failed", "cancelled"}:
                return True
        time.sleep(0.2)
    return False


def _reap() -> None:
    """Reap orphans, whose parent is the first process of the namespace."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _tell(tried: str, came_out: object, right: bool) -> bool:
    text = came_out.decode(errors="replace") if isinstance(came_out, bytes) else str(came_out)
    print(json.dumps({"tried": tried, "came_out": text, "right": right}), flush=True)
    return right


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
