"""Runs Schemathesis with all checks against a grid of its own: requests that the description allows and forbids.

The first rounds have keys with one role each, so that refusals are tried, too. Then rounds with a key that has every
role follow one another, each with another seed, until the cases are done.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

from field.desk import Desk
from field.grid import Grid
from security.explained import EXPLAINED
from security.row import Row

KEY = "schemathesis-has-every-role"
ROLES = ("submit", "read", "data", "operate")
ROUND = 100  # cases for each operation in a round
ROUND_OF_ROLE = 10
MOST_ROUND_S = 3600
DRAIN_S = 1.0
COUNTED_IN = "RAYGRID_SECURITY_EXPLAINED"
_GENERATED = re.compile(r"^\s+([\d,]+) generated", re.MULTILINE)
# They run no program of their own, so that every job is done: a failed job is no answer to a bad request.
SETTINGS: dict[str, Any] = {
    "pricers": {"copy": {"command": ["cp", "{input}", "copy"]}, "args": {"command": ["true", "{args}"]}},
    "default_pricer": "args",
    "node": {"slots": 2},
}


def run(cases: int, scratch: Path) -> list[Row]:
    """Start a grid, run that many cases and more until a round ends, and stop the grid."""
    desk = Desk(scratch, Path(__file__).resolve().parents[1], None, 0)
    try:
        grid = desk.new_grid(dict(SETTINGS))
        grid.settings["http"] = {"port": grid.port, "api_keys": [{"name": "security", "key": KEY}]}
        up = grid.up()
        if up.returncode != 0:
            return [Row("Schemathesis", "0 cases", 0, f"no grid: {up.stderr.decode(errors='replace')[-300:]}", False)]
        with _without_drains(grid):
            return _rounds(grid, cases, scratch)
    finally:
        desk.close()


@contextlib.contextmanager
def _without_drains(grid: Grid) -> Iterator[None]:
    """End each drain soon: Schemathesis drains the only node, and then every submit would wait for its whole limit."""
    over = threading.Event()

    def end_drains() -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        while not over.wait(DRAIN_S):
            with contextlib.suppress(OSError, HTTPException, KeyError):  # the grid is busy; it is asked again soon
                nodes = grid.request("GET", "/nodes", b"", headers).json["nodes"]
                for node in nodes:
                    if node["state"] in ("draining", "drained"):
                        grid.request("DELETE", f"/nodes/{node['node']}/drain", b"", headers)

    ending = threading.Thread(target=end_drains, daemon=True)
    ending.start()
    try:
        yield
    finally:
        over.set()
        ending.join()


def _rounds(grid: Grid, cases: int, scratch: Path) -> list[Row]:
    counted = scratch / "explained.txt"
    counted.touch()
    began = time.monotonic()
    failed, done = [], 0
    for role in ROLES:
        code, count = _round(grid, _key_with(grid, role), role, counted, scratch, "--phases=fuzzing", ROUND_OF_ROLE)
        done += count
        failed += [role] if code else []
    number = 0
    while done < cases:
        number += 1
        each = max(1, min(ROUND, (cases - done) // 30))
        phases = "--phases=examples,coverage,fuzzing,stateful" if number == 1 else "--phases=fuzzing"
        code, count = _round(grid, KEY, f"all-{number}", counted, scratch, phases, each)
        done += count
        failed += [f"all-{number}"] if code else []
        if not count:
            failed.append("no cases")
            break
    took_s = time.monotonic() - began
    result = "no server error, no schema violation"
    if failed:
        result = f"failures, see {', '.join(f'{scratch}/{each}.log' for each in failed)}"
    rows = [Row("Schemathesis, all checks", f"{done:,} cases", took_s, result, not failed)]
    counts = Counter(counted.read_text(encoding="utf-8").split("\n"))
    for known in EXPLAINED:
        if counts[known.name]:
            rows.append(Row(f"explained: {known.name}", f"{counts[known.name]:,} cases", 0, known.reason, passed=True))
    return rows


def _key_with(grid: Grid, role: str) -> str:
    """A new key with one role."""
    made = grid.command("keys", "add", "--owner", f"only-{role}", "--role", role, env={"RAYGRID_API_KEY": KEY})
    if made.returncode != 0:
        raise RuntimeError(f"no key for {role}: {made.stderr.decode(errors='replace')}")
    return made.stdout.decode().strip()


def _round(
    grid: Grid, key: str, name: str, counted: Path, scratch: Path, phases: str, examples: int
) -> tuple[int, int]:
    """The exit code of one run of Schemathesis, and the number of its cases."""
    description = f"{grid.url}/openapi.json"
    command = [
        *(_schemathesis(), "run", description, "--url", grid.url, "--header", f"Authorization: Bearer {key}"),
        *("--checks", "all", phases, "--max-examples", str(examples), "--continue-on-failure"),
        *("--suppress-health-check", "all", "--request-timeout", "60", "--warnings", "off"),
    ]
    env = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "security.hooks",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]),
        COUNTED_IN: str(counted),
    }
    log = scratch / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.run(
            command, cwd=scratch, env=env, stdout=out, stderr=subprocess.STDOUT, timeout=MOST_ROUND_S, check=False
        )
    text = log.read_text(encoding="utf-8", errors="replace")
    if process.returncode:
        print(text)
    generated = _GENERATED.search(text)
    count = int(generated[1].replace(",", "")) if generated else 0
    print(f"Schemathesis, round {name}: {count:,} cases, exit code {process.returncode}", file=sys.stderr)
    return process.returncode, count


def _schemathesis() -> str:
    """The command in the directory of this Python, or on the path."""
    beside = Path(sys.executable).with_name("schemathesis")
    return str(beside) if beside.exists() else shutil.which("schemathesis") or str(beside)
