"""Every drill on five hosts, several times, with real cuts of links beside them: `make drill`.

It brings the hosts and the cluster up, runs `raygrid drill all` on the head, then cuts a machine's link and a rack's
uplink under load, which needs root and is not part of a drill, and prints one table of medians.

    python -m tests.faults.drills --runs 5 --out drills.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults.cluster import Cluster
from tests.faults.hosts import DESK, five_hosts, why_not
from tests.faults.under_load import WORKERS, Seen, cut_host, cut_rack
from tests.support.postgres import Postgres

# Seconds within which jobs must end again; a head's death must delay no job at all.
GOALS = {"agent": 2.0, "leader": 4.0, "leader-frozen": 4.0, "link cut": 6.0, "switch cut": 8.0, "parent": 2.0}
LONG_S = 3_000.0


@contextmanager
def cluster_on_hosts() -> Iterator[Cluster]:
    """A cluster of five hosts with a PostgreSQL server at the desk, brought up by `ray up`, and ready."""
    with five_hosts() as hosts:
        postgres = Postgres(listen=(DESK, "127.0.0.1"), networks=("10.88.0.0/24", "127.0.0.1/32"))
        postgres.open()
        try:
            with postgres.database() as database:
                cluster = Cluster.prepare(hosts, database=database)
                cluster.up()
                cluster.wait_ready(len(WORKERS))
                yield cluster
        finally:
            postgres.close()


def cuts(cluster: Cluster, runs: int) -> list[dict[str, Any]]:
    """Cut a machine's link, and a rack's uplink, so many times each."""
    kinds: dict[str, Callable[[], Seen]] = {
        "link cut": lambda: cut_host(cluster, "b2"),
        "switch cut": lambda: cut_rack(cluster, "rack-b", ("b1", "b2")),
    }
    found = []
    for name, cut in kinds.items():
        for _ in range(runs):
            seen = cut()
            found.append(
                {
                    "scenario": name,
                    "acknowledged": seen.acknowledged,
                    "done": seen.acknowledged - seen.lost,
                    "lost": seen.lost,
                    "repeated": seen.repeated,
                    "wrong": 0,
                    "client_errors": seen.client_errors,
                    "recovery_s": seen.recovery_s,
                    "violations": list(seen.violations),
                    "errors": list(seen.errors),
                }
            )
            print(f"{name}: {seen}", file=sys.stderr, flush=True)
            wait_ready_or_show_why(cluster)
    return found


def wait_ready_or_show_why(cluster: Cluster) -> None:
    """Wait until all nodes are there; where they do not come, print what the supervisors of the hosts wrote."""
    try:
        cluster.wait_ready(len(WORKERS))
    except AssertionError:
        for host in ("head", *WORKERS):
            log = cluster.hosts.run(host, "tail", "-n", "40", "/root/.raygrid/host/logs/supervisor.log", check=False)
            print(f"{host}:\n{log.stdout}{log.stderr}", file=sys.stderr, flush=True)
        raise


def table(scenarios: Sequence[dict[str, Any]]) -> str:
    """Medians by scenario, in words and figures."""
    heads = f"{'fault':<15}{'runs':>5}{'median s':>10}{'worst s':>9}{'goal':>6}"
    lines = [f"{heads}{'jobs':>7}{'lost':>6}{'wrong':>7}{'errors':>8}"]
    for name in dict.fromkeys(each["scenario"] for each in scenarios):
        runs = [each for each in scenarios if each["scenario"] == name and not each.get("skipped")]
        times = [each["recovery_s"] for each in runs if each["recovery_s"] is not None]
        median = f"{statistics.median(times):.2f}" if times else "-"
        worst = f"{max(times):.2f}" if times else "-"
        sums = {what: sum(each[what] for each in runs) for what in ("acknowledged", "lost", "wrong", "client_errors")}
        goal = f"{GOALS[name]:g}" if name in GOALS else "-"
        lines.append(
            f"{name:<15}{len(runs):>5}{median:>10}{worst:>9}{goal:>6}{sums['acknowledged']:>7}{sums['lost']:>6}"
            f"{sums['wrong']:>7}{sums['client_errors']:>8}"
        )
    lines += [f"{each['scenario']}, {each.get('hit', '')}: {error}" for each in scenarios for error in each["errors"]]
    return "\n".join(lines)


def main() -> int:
    """Drill, and print the result; 1 if a guarantee was violated or a goal was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None, help="also write every run here, as JSON")
    given = parser.parse_args()
    if reason := why_not():
        print(f"no hosts can be made here: {reason}", file=sys.stderr)
        return 2
    with cluster_on_hosts() as cluster:
        scenarios = cluster.drill("all", "--runs", str(given.runs), timeout_s=LONG_S)
        print(table(scenarios), file=sys.stderr, flush=True)  # the cuts may end in an error
        scenarios += cuts(cluster, given.runs)
    print(table(scenarios))
    if given.out is not None:
        given.out.write_text(json.dumps({"scenarios": scenarios}, indent=1) + "\n")
    broken = [each for each in scenarios if each["lost"] or each["wrong"] or each["violations"]]
    late = [
        name
        for name, goal in GOALS.items()
        if (times := [e["recovery_s"] for e in scenarios if e["scenario"] == name and e["recovery_s"] is not None])
        and statistics.median(times) > goal
    ]
    if late:
        print(f"later than the goal: {', '.join(late)}")
    return 1 if broken or late else 0


if __name__ == "__main__":
    sys.exit(main())
