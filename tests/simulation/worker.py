"""A process that runs every n-th seed and prints a line of JSON for each; `tests.simulation.pool` starts some."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from tests.simulation.mutants import MUTANTS, planted
from tests.simulation.run import run_seed


def main() -> None:
    """Run seeds and print their outcomes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--end", type=int, required=True)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--tail", type=int, default=80)
    parser.add_argument("--mutant", choices=sorted(MUTANTS))
    asked = parser.parse_args()
    with planted(asked.mutant):
        for seed in range(asked.first, asked.end, asked.step):
            print(json.dumps(asdict(run_seed(seed, tail=asked.tail))), flush=True)


if __name__ == "__main__":
    main()
