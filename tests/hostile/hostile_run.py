"""Runs hostile pricers beside 500 good jobs of another pricer; `python -m tests.hostile.hostile_run` prints JSON.

The good jobs run twice on one grid, first alone. A job's usual wait is that of the job at its place in the first run.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

from raygrid.client import Client, Result
from tests.hostile.inside import KEY, PORT, IsolatedGrid, known_sandboxes, pricer, titles, until
from tests.hostile.isolation import require_isolation
from tests.hostile.left import left_since, present
from tests.hostile.programs import PROGRAMS, TITLE

GOOD_JOBS = 500
SLOTS = 8
ROUNDS = 2
PAUSE_S = 0.5
WITHIN_S = 120.0
LEAST_WAIT_S = 1.0  # what counts as the usual wait of the first jobs, which wait for nothing
GOOD = 'sleep 0.2; cat "$0"'


@dataclass(frozen=True, slots=True)
class Waits:
    """How long good jobs took from their submit to their end, seconds, and how many ran more than once."""

    median_s: float
    longest_s: float
    again: int


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the run.

    Attributes:
        alone, beside: the good jobs alone, and beside the hostile ones.
        worst: the largest quotient of a job's wait and its usual wait.
        wrong: good jobs that were not done with their own output.
        hostile: what became of the hostile jobs: name, state, reason, and seconds.
        same_processes: whether the grid's processes are those from before.
        daemons_ended_s: how long after the last job's end no daemon was left, seconds.
        left: what was left after the grid.
    """

    alone: Waits
    beside: Waits
    worst: float
    wrong: tuple[str, ...]
    hostile: tuple[tuple[str, str, str, float], ...]
    same_processes: bool
    daemons_ended_s: float
    left: tuple[str, ...]


def main() -> None:
    """Run them."""
    require_isolation()
    before = present()
    sandbox = "protect" if "protect" in known_sandboxes() else "off"
    command = [sys.executable, "-m", "tests.hostile.programs", "{input}"]
    pricers = {
        "good": pricer(["sh", "-c", GOOD, "{input}"], sandbox),
        "hostile": pricer(command, sandbox, memory="200MB", timeout_s=20),
        "bomb": pricer(command, sandbox, timeout_s=20),
    }
    with IsolatedGrid(pricers, slots=SLOTS) as grid:
        grid.client.map([b"first"] * SLOTS, pricer="good")
        alone, wrong = _good_jobs(grid, "alone")
        own = _grid_processes()
        hostile = threading.Thread(target=_submit_hostile)
        hostile.start()
        beside, wrong_beside = _good_jobs(grid, "beside")
        hostile.join()
        until(lambda: all(_ended(job) for job in _hostile_jobs(grid)), "all hostile jobs have ended", 90)
        ended = time.monotonic()
        until(lambda: not _daemons(), "no daemon is left", 90)
        daemons_ended_s = time.monotonic() - ended
        report = Report(
            _waits(alone),
            _waits(beside),
            max(late / max(usual, LEAST_WAIT_S) for late, usual in zip(_seconds(beside), _seconds(alone), strict=True)),
            (*wrong, *wrong_beside),
            tuple((job.job_id, str(job.state), job.reason or "", _wait_s(job)) for job in _hostile_jobs(grid)),
            _grid_processes() == own,
            daemons_ended_s,
            (),
        )
    print(json.dumps({**asdict(report), "left": left_since(before, within_s=20)}))


def _good_jobs(grid: IsolatedGrid, name: str) -> tuple[list[Any], list[str]]:
    """Run the good jobs; gives their states in the order of their submit, and which had another output."""
    jobs = {f"{name}-{number:03}": f"{name} {number}".encode() for number in range(GOOD_JOBS)}
    outcomes = grid.client.map(jobs, batch_id=name, pricer="good").results(WITHIN_S, return_errors=True)
    wrong = [
        f"{job_id}: {outcome}"
        for (job_id, content), outcome in zip(jobs.items(), outcomes, strict=True)
        if not isinstance(outcome, Result) or outcome.stdout.encode() != content
    ]
    states = {job.job_id: job for job in grid.client.jobs(batch=name)}
    return [states[job_id] for job_id in jobs], wrong


def _submit_hostile() -> None:
    with Client(f"http://127.0.0.1:{PORT}", api_key=KEY, timeout=60) as client:
        for number in range(ROUNDS):
            for name in PROGRAMS:
                which = "bomb" if name == "fork-bomb" else "hostile"
                client.submit(name.encode(), job_id=f"{name}-{number}", pricer=which, priority=10)
                time.sleep(PAUSE_S)


def _hostile_jobs(grid: IsolatedGrid) -> list[Any]:
    return [grid.client.job(f"{name}-{number}").status() for number in range(ROUNDS) for name in PROGRAMS]


def _ended(job: Any) -> bool:
    return str(job.state) in ("done", "failed", "cancelled")


def _wait_s(job: Any) -> float:
    return float((job.ended_at - job.submitted_at).total_seconds())


def _seconds(jobs: list[Any]) -> list[float]:
    return [_wait_s(job) for job in jobs]


def _waits(jobs: list[Any]) -> Waits:
    seconds = _seconds(jobs)
    return Waits(statistics.median(seconds), max(seconds), sum(job.attempts > 1 for job in jobs))


def _daemons() -> list[int]:
    return [pid for pid, words in titles().items() if TITLE in words or "tests.hostile.programs" in words]


def _grid_processes() -> set[int]:
    """Agents, leaders, parents and Ray's own: what must not die."""
    own = ("ray::NodeAgentActor", "ray::LeaderActor", "ray::ServeReplica", "gcs_server", "raylet", "raygrid.local")
    return {pid for pid, words in titles().items() if any(title in words for title in own)}


if __name__ == "__main__":
    main()
