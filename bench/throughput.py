"""`make bench`: jobs per second of the smallest possible job, beside `xargs -P` of the same command in the same run.

What is measured: from the first submit to the last result in the client's hands, 2,000 jobs of `/bin/true` with an
input of 1 KB in one batch. xargs spawns the same command as often and keeps nothing: it is the limit, not a peer. The
contenders alternate, so that whatever else the machine does falls on both; read the ratio, not the seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable

from raygrid.client import Client
from raygrid.config import load_settings
from raygrid.local import free_port, start_grid, stop_grid

COMMAND = "/bin/true"


def through_the_grid(client: Client, jobs: int) -> float:
    """Seconds for all jobs through the grid, results fetched."""
    inputs = [b"x" * 1024] * jobs
    began = time.perf_counter()
    fetched = sum(result.manifest["exit_code"] == 0 for result in client.map(inputs).results())
    seconds = time.perf_counter() - began
    assert fetched == jobs, f"{fetched} of {jobs} came back"
    return seconds


def through_xargs(jobs: int, processes: int) -> float:
    """Seconds for as many spawns by xargs."""
    lines = "\n".join(map(str, range(jobs))).encode()
    began = time.perf_counter()
    subprocess.run(["xargs", "-n1", f"-P{processes}", COMMAND], input=lines, check=True)
    return time.perf_counter() - began


def measure(jobs: int, rounds: int, slots: int) -> dict[str, list[float]]:
    """Jobs per second of each contender, by round; a first round warms up and does not count."""
    rates: dict[str, list[float]] = {"raygrid": [], f"xargs -P{slots}": []}
    with tempfile.TemporaryDirectory(prefix="raygrid-bench-") as scratch:
        settings = load_settings(
            name="bench",
            pricers={"true": {"command": COMMAND}},
            http={"port": free_port()},
            node={"slots": slots},
            storage={"state_dir": scratch},
        )
        grid = start_grid(settings)
        try:
            with Client(grid.url) as client:
                contenders: dict[str, Callable[[], float]] = {
                    "raygrid": lambda: through_the_grid(client, jobs),
                    f"xargs -P{slots}": lambda: through_xargs(jobs, slots),
                }
                for number in range(rounds + 1):
                    for name, run in contenders.items():
                        rate = jobs / run()
                        if number:
                            rates[name].append(rate)
        finally:
            stop_grid(grid)
    return rates


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slots", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--json", default="bench-throughput.json", help="where the figures go")
    arguments = parser.parse_args()
    rates = measure(arguments.jobs, arguments.rounds, arguments.slots)
    limit = statistics.median(rates[f"xargs -P{arguments.slots}"])
    print(f"{arguments.jobs} jobs of {COMMAND}, {arguments.rounds} rounds, {arguments.slots} at once")
    print(f"{'contender':<14}{'median/s':>10}{'lowest':>10}{'highest':>10}{'of xargs':>10}")
    for name, values in rates.items():
        median = statistics.median(values)
        print(f"{name:<14}{median:>10.0f}{min(values):>10.0f}{max(values):>10.0f}{median / limit:>10.2f}")
    print("raygrid's jobs are durable and their results kept and fetched; xargs keeps nothing.")
    with open(arguments.json, "w", encoding="utf-8") as file:
        json.dump({"jobs": arguments.jobs, "slots": arguments.slots, "jobs_per_s": rates}, file, indent=1)


if __name__ == "__main__":
    main()
