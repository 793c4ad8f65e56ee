"""Twenty minutes of load on five hosts with a random fault every twenty seconds: `make soak`.

Real processes are killed and frozen, real links cut, disks filled and shares unmounted, all by a seeded choice. Clients
enter through every worker, follow each job to its result, and record what they saw; at the end the history is checked.

    python -m tests.faults.soak --minutes 20 --every 20 --seed 1 --out soak.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raygrid.drill.history import check
from raygrid.drill.load import ClientLoad
from tests.faults.cluster import KEY, Cluster
from tests.faults.drills import cluster_on_hosts
from tests.faults.hosts import Hosts, why_not

WORKERS = ("a1", "a2", "b1", "b2")
RACKS = ("rack-a", "rack-b")
AGENT, LEADER, PARENT, GCS = "ray::NodeAgentActor", "ray::LeaderActor", "ray::ServeReplica:raygrid", "gcs_server"
TIERS = {"parents": PARENT, "leaders": LEADER, "agents": AGENT}
END_S = 180.0


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong; it is healed after `lasts_s`."""

    name: str
    inject: Callable[[Hosts, random.Random], str]
    lasts_s: float = 0.0


def _kill(title: str, *where: str) -> Callable[[Hosts, random.Random], str]:
    def inject(hosts: Hosts, chance: random.Random) -> str:
        host = chance.choice(where)
        return f"{host}, {len(hosts.kill(host, title))} processes"

    return inject


def _freeze(title: str) -> Callable[[Hosts, random.Random], str]:
    def inject(hosts: Hosts, chance: random.Random) -> str:
        host = chance.choice(WORKERS)
        return f"{host}, {len(hosts.freeze(host, title))} processes"

    return inject


def _one_of(act: Callable[[Hosts, str], None], *where: str) -> Callable[[Hosts, random.Random], str]:
    def inject(hosts: Hosts, chance: random.Random) -> str:
        place = chance.choice(where)
        act(hosts, place)
        return place

    return inject


FAULTS = (
    Fault("an agent is killed", _kill(AGENT, *WORKERS)),
    Fault("a candidate is killed", _kill(LEADER, *WORKERS)),
    Fault("a parent is killed", _kill(PARENT, *WORKERS)),
    Fault("the head's books are killed", _kill(GCS, "head")),
    Fault("a candidate freezes", _freeze(LEADER), 8),
    Fault("an agent freezes", _freeze(AGENT), 8),
    Fault("a machine freezes", _freeze(""), 8),
    Fault("a machine's link is cut", _one_of(Hosts.cut, *WORKERS), 8),
    Fault("a rack's uplink is cut", _one_of(Hosts.cut, *RACKS), 10),
    Fault("a machine's link is slow", _one_of(Hosts.slow, *WORKERS), 10),
    Fault("a disk is full", _one_of(Hosts.fill_disk, *WORKERS), 8),
    Fault("a share is lost", _one_of(Hosts.lose_share, *WORKERS), 8),
)


def memory(hosts: Hosts) -> dict[str, list[int]]:
    """Resident memory of each tier's processes, in MB."""
    found: dict[str, list[int]] = {}
    for tier, title in TIERS.items():
        pids = [pid for host in WORKERS for pid in hosts.processes(host, title)]
        found[tier] = sorted(size for pid in pids if (size := _resident_mb(pid)))
    return found


def _resident_mb(pid: int) -> int:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024
    return 0


async def soak(cluster: Cluster, minutes: float, every_s: float, seed: int) -> dict[str, Any]:
    """Keep the cluster busy and break it; gives the outcome."""
    hosts, chance = cluster.hosts, random.Random(seed)
    urls = [cluster.url(host) for host in WORKERS]
    calm = ClientLoad(urls, KEY, "drill", plain_http=True, steady=0)
    expected = await calm.reference()
    await calm.close()
    load = ClientLoad(urls, KEY, "drill", plain_http=True, steady=12, trickle_per_s=4.0, expected=expected)
    before = memory(hosts)
    began = time.monotonic()
    faults: Counter[str] = Counter()
    load.start()
    try:
        while (at := time.monotonic()) - began < minutes * 60:
            fault = chance.choice(FAULTS)
            where = await asyncio.to_thread(fault.inject, hosts, chance)
            faults[fault.name] += 1
            _say(f"{at - began:6.0f} s: {fault.name} ({where}); {load.ended} jobs ended, {load.open_jobs} under way")
            if fault.lasts_s:
                await asyncio.sleep(fault.lasts_s)
                await asyncio.to_thread(hosts.heal)
            await asyncio.sleep(max(0.0, at + every_s - time.monotonic()))
        await asyncio.to_thread(hosts.heal)
        load.stop()
        in_time = await load.drained(END_S)
        final = await load.statuses()
        violations = check(load.history, {job_id: status.state for job_id, status in final.items()})
    finally:
        await load.close()
    taken = load.history.acknowledged_jobs
    done = [job_id for job_id in taken if load.history.result_at(job_id) is not None]
    failed = [job_id for job_id in taken if job_id in final and final[job_id].state.value in ("failed", "cancelled")]
    return {
        "seed": seed,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "faults": dict(faults.most_common()),
        "submitted": len(load.jobs),
        "acknowledged": len(taken),
        "done": len(done),
        "failed": [f"{job_id}: {final[job_id].reason}: {final[job_id].message}" for job_id in failed],
        "lost": len(set(taken) - set(done) - set(failed)),
        "run_more_than_once": sum(status.attempts > 1 for status in final.values()),
        "client_errors": load.client_errors,
        "errors": list(dict.fromkeys(what for _, _, what in load.history.errors))[:10],
        "ended_in_time": in_time,
        "violations": [str(each) for each in violations][:20],
        "memory_mb_before": before,
        "memory_mb_after": memory(hosts),
    }


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main() -> int:
    """Bring the hosts and the cluster up, soak it, take everything down; 1 if a guarantee was violated."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--minutes", type=float, default=20.0)
    arguments.add_argument("--every", type=float, default=20.0, help="seconds from one fault to the next")
    arguments.add_argument("--seed", type=int, default=None)
    arguments.add_argument("--out", type=Path, default=None, help="also write the outcome here, as JSON")
    given = arguments.parse_args()
    if reason := why_not():
        _say(f"no hosts can be made here: {reason}")
        return 2
    seed = given.seed if given.seed is not None else random.randrange(2**32)
    with cluster_on_hosts() as cluster:
        outcome = asyncio.run(soak(cluster, given.minutes, given.every, seed))
    text = json.dumps(outcome, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")
    good = not outcome["lost"] and not outcome["failed"] and not outcome["violations"] and outcome["ended_in_time"]
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
