"""Workload 3: the QuantLib example, cold and warm, and bare loops over the same files in as many processes."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.figures import Figure, Plan
from bench.grid import grid
from bench.turns import ROOT
from bench.workloads import Workload
from raygrid.client import Client
from raygrid.errors import SettingsError

JOBS, COLD_JOBS, INSTRUMENTS = 1_000, 60, 20
EXAMPLE = ROOT / "examples" / "quantlib"
RATE = "jobs/s"


def _book(directory: Path, files: int) -> list[Path]:
    options = [str(directory), f"--files={files}", f"--instruments={INSTRUMENTS}", "--seed=1"]
    subprocess.run([sys.executable, str(EXAMPLE / "book.py"), *options], check=True, stdout=subprocess.DEVNULL)
    found = sorted(directory.glob("*.csv"))
    random.Random(1).shuffle(found)  # otherwise some loops would get only desks that take far longer
    return found


def _through_the_grid(client: Client, pricer: str, files: Sequence[Path]) -> float:
    began = time.perf_counter()
    for result in client.map(files, pricer=pricer).results():
        assert "prices.csv" in result.files
    return len(files) / (time.perf_counter() - began)


def _in_loops(files: Sequence[Path], loops: int, scratch: Path) -> float:
    """Files per second in that many processes; the clock starts when all have loaded QuantLib."""
    program = [sys.executable, str(Path(__file__).with_name("bare_loop.py")), str(EXAMPLE)]
    running = []
    for number in range(loops):
        home = scratch / f"loop-{number}"
        home.mkdir(exist_ok=True)
        command = [*program, *map(str, files[number::loops])]
        running.append(subprocess.Popen(command, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == b"loaded\n", "a loop did not start; its error is above"
        began = time.perf_counter()
        for process in running:
            assert process.stdin is not None
            process.stdin.close()
        codes = [process.wait() for process in running]
        assert not any(codes), "a loop failed; its error is above"
        return len(files) / (time.perf_counter() - began)
    finally:
        for process in running:
            process.kill()
            process.wait()


def _measure(plan: Plan) -> list[Figure]:
    book = _book(plan.scratch / "book", plan.jobs(JOBS, at_least=8))
    few = book[: plan.jobs(COLD_JOBS)]
    cold: dict[str, object] = {"command": [sys.executable, str(EXAMPLE / "price.py"), "{input}"]}
    warm: dict[str, object] = {
        "command": [sys.executable, str(Path(__file__).with_name("warm_price.py")), str(EXAMPLE)],
        "mode": "warm",
        "env": {"PYTHONPATH": str(ROOT)},  # this copy of raygrid
    }
    colds, warms, loops, why = [], [], [], ""
    for _ in range(plan.rounds):
        loops.append(_in_loops(book, plan.at_once, plan.scratch))
        with grid({"cold": cold}, slots=plan.at_once) as bench:
            _through_the_grid(bench.client, "cold", few[: plan.at_once])
            colds.append(_through_the_grid(bench.client, "cold", few))
        try:
            with grid({"warm": warm}, slots=plan.at_once) as bench:
                # Processes are loaded before the clock starts, as for the loops.
                _through_the_grid(bench.client, "warm", book[: 2 * plan.at_once])
                warms.append(_through_the_grid(bench.client, "warm", book))
        except SettingsError as error:
            why = f"this grid has no warm pricers: {error}"
    return [
        Figure("bare loops", RATE, tuple(loops), f"{plan.at_once} processes, QuantLib loaded before the clock starts"),
        Figure("raygrid cold", RATE, tuple(colds), f"from {len(few)} jobs only, as each costs the same"),
        Figure("raygrid warm", RATE, tuple(warms), why or "loaded before the clock starts"),
    ]


WORKLOAD = Workload(f"the QuantLib example, {JOBS:,} jobs of {INSTRUMENTS} instruments", _measure)
