"""`python -m tests.hostile attacks|beside|ordinary`: run it isolated and print what was found; needs root."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from tests.hostile.isolation import environment, free_user, isolated, why_not
from tests.hostile.tables import attack_table, beside_table

RUNS = {"attacks": "attack_run", "beside": "hostile_run", "ordinary": "ordinary_run"}
LONGEST_S = 600.0


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("run", choices=RUNS, help="what pricers may reach, good jobs beside them, or ordinary programs")
    name = parser.parse_args().run
    if (reason := why_not()) is not None:
        print(reason, file=sys.stderr)
        return 2
    program = [sys.executable, "-m", f"tests.hostile.{RUNS[name]}"]
    command = isolated(program, user=free_user(), timeout_s=LONGEST_S, file_size=None)
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        return 1
    report = json.loads(done.stdout)
    if name == "attacks":
        print(attack_table(report))
    elif name == "beside":
        print(beside_table(report))
    else:
        for what, found in report.items():
            print(f"{what:60} {found.get('missing') or found.get('wrong') or 'right'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
