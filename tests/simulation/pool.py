"""Many seeds, spread over processes in which nothing is random but the seed.

Sets of strings are iterated in the order of their hashes, which Python draws anew for every process unless the hash
seed is set: so seeds run in processes of their own, with a fixed one.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from raygrid.system.processors import usable_processors
from tests.simulation.invariants import Violation
from tests.simulation.run import Outcome

PROJECT = Path(__file__).parents[2]
STOP_S = 5.0


def run_seeds(
    first: int, count: int, *, mutant: str | None = None, processes: int | None = None, tail: int = 80
) -> Iterator[Outcome]:
    """Run seeds and give their outcomes in order; if the caller stops early, the rest ends.

    Args:
        first: the first seed.
        count: how many.
        mutant: a bug to plant, by name.
        processes: how many work at once; one for each core by default.
        tail: how many events to keep of a run with a violation.

    Raises:
        RuntimeError: a process ended before its time.
    """
    step = max(1, min(count, processes or usable_processors()))
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(_worker(first + each, first + count, step, mutant, tail)) for each in range(step)
        ]
        for seed in range(first, first + count):
            worker = workers[(seed - first) % step]
            assert worker.stdout is not None
            line = worker.stdout.readline()
            if not line:
                raise RuntimeError(f"the process that was to run seed {seed} ended with code {worker.wait()}")
            yield _outcome(line)


@contextlib.contextmanager
def _worker(first: int, end: int, step: int, mutant: str | None, tail: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.simulation.worker"]
    command += ["--first", str(first), "--end", str(end), "--step", str(step), "--tail", str(tail)]
    command += [] if mutant is None else ["--mutant", mutant]
    settings = {name: value for name, value in os.environ.items() if not name.upper().startswith("RAYGRID_")}
    environment = {**settings, "PYTHONHASHSEED": "0"}
    # In a group of its own: Ctrl-C goes to the process that takes the outcomes, which ends the workers.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=PROJECT, env=environment, process_group=0
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _outcome(line: str) -> Outcome:
    values = json.loads(line)
    if values["violation"] is not None:
        values["violation"] = Violation(**values["violation"])
    values["trace"] = tuple(values["trace"])
    return Outcome(**values)
