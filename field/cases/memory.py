"""A pricer that takes more memory than there is must be killed, and no part of the grid."""

from __future__ import annotations

import re
import threading
import time
import uuid

from field.account import Account
from field.case import Lane, case
from field.desk import Desk
from field.grid import Grid
from field.http import Answer
from field.tools import CC

ROOM_MB, HOG_MB = 900, 3_500
"""How much memory is left below the thresholds, and how much the pricer takes. Both thresholds are lowered, so that the
machine has memory left. The values are far apart, so that changes by other programs do not matter."""
WAIT_S = 70.0


def _meminfo() -> dict[str, int]:
    with open("/proc/meminfo", encoding="ascii") as file:
        return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file}


@case("memory", f"a pricer of {HOG_MB} MB where only {ROOM_MB} MB are left before the limit", CC, lane=Lane.ALONE)
def memory(desk: Desk, account: Account) -> None:
    """It ends as `memory_pressure`, and the message has its size; other jobs and the grid continue."""
    found = _meminfo()
    if found["MemAvailable"] < 2 * HOG_MB * 1024**2:
        account.skip("a pricer of much memory", f"needs {2 * HOG_MB} MB of free memory")
        return
    program = desk.build("cc", "hog.c", "hog")
    pricers = {
        "hog": {"command": [str(program), "{input}"]},
        "shell": {"command": ["sh", "{input}"]},
    }
    common = {"pricers": pricers, "default_pricer": "shell", "placement": {"max_attempts": 2}}
    grid = desk.new_grid({**common, "node": {"slots": 3}})
    # The variable is for Ray's own monitor, the setting for the agent's.
    left = found["MemAvailable"] - ROOM_MB * 1024**2
    grid.env["RAY_memory_usage_threshold"] = f"{1 - left / found['MemTotal']:.4f}"
    grid.settings["node"]["memory_reserve"] = left
    up = grid.up()
    if up.returncode != 0 and b"memory_reserve" in up.stderr:
        account.check("node.memory_reserve", "there is no such setting", right=False)
        del grid.settings["node"]["memory_reserve"]
        up = grid.up()
    account.check("a grid with lowered limits of memory", up.stderr[-100:], up.returncode == 0)
    _run_hog(account, grid, found["MemAvailable"])
    grid.down()


def _run_hog(account: Account, grid: Grid, available: int) -> None:
    before = _tiers(grid)
    neighbours: list[Answer] = []
    script = "i=0; while [ $i -lt 60 ]; do sleep 0.1; i=$((i+1)); done; printf well"
    others = [threading.Thread(target=lambda: neighbours.append(grid.submit(script))) for _ in range(2)]
    for each in others:
        each.start()
    job = f"hog-{uuid.uuid4()}"
    grid.submit(f"{HOG_MB}\n", "hog", job_id=job, prefer="respond-async")
    status = _wait(grid, job)
    for each in others:
        each.join(60)
    end = (
        f"{status.get('state')} {status.get('reason')} after {status.get('attempts')} attempts: {status.get('message')}"
    )
    given_back = _meminfo()["MemAvailable"] - available
    if status.get("state") == "done" and given_back > (HOG_MB - ROOM_MB) * 1024**2 * 0.7:
        other = f"other programs gave {given_back >> 20} MB back meanwhile, so that it had room"
        account.skip(f"a pricer of {HOG_MB} MB", other)
        return
    account.check(f"a pricer of {HOG_MB} MB", end, status.get("reason") == "memory_pressure" and _names_size(end))
    well = sum(answer.files.get("stdout.txt") == b"well" for answer in neighbours)
    account.check("its two neighbours", f"{well} of 2 done", well == 2)
    account.check("parent, leader and agent live on", _tiers(grid) - before, bool(before) and _tiers(grid) == before)


def _wait(grid: Grid, job: str) -> dict[str, object]:
    until = time.monotonic() + WAIT_S
    status: dict[str, object] = {}
    while time.monotonic() < until:
        try:
            status = grid.request("GET", f"/status/{job}", timeout_s=5).json or status
        except OSError:  # no parent answers
            status = {"state": "unknown", "message": "no parent answers"}
        if status.get("state") in {"done", "failed", "cancelled"}:
            return status
        time.sleep(0.3)
    return status


def _tiers(grid: Grid) -> frozenset[int]:
    """The processes of the grid's tiers, by their numbers."""
    return frozenset(pid for pid, title in grid.processes().items() if title.startswith("ray::"))


def _names_size(message: str) -> bool:
    return re.search(r"\d ?[MG]i?B", message) is not None
