"""`python bench/uplinks.py`: payload bytes on each rack's uplink, by routing policy. Needs root, for simulated hosts.

There are five hosts in two racks; the blob store (S3) and the client are outside both. 500 jobs that name the site of
rack-a each write a result of 1 MB. They are submitted through a parent in rack-a, first in a steady flow that rack-a
has room for, then all at once, which exceeds its room. The policies are deployed one after the other on one cluster.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the hosts and servers are those of the tests

from raygrid.client import Client
from tests.faults.cluster import Cluster
from tests.faults.hosts import DESK, FIVE, HOME, Hosts, five_hosts, until, why_not
from tests.support.postgres import Postgres
from tests.support.s3 import SECRETS, s3_server

RACKS = ("rack-a", "rack-b")
SITES = {"groups": {"rack-a": {"site": "tokyo"}, "rack-b": {"site": "osaka"}}}
RESULT = 1_000_000
# Random bytes, which a ZIP cannot compress; and a pause, so that slots are the bottleneck.
SCRIPT = f"sleep 0.2; head -c {RESULT} /dev/urandom > result.bin # "


def steady(client: Client, jobs: int, name: str) -> list[str]:
    """A few clients that each wait for a result before they submit the next."""

    def one(number: int) -> str:
        job = client.submit(f"{SCRIPT}{name} {number}".encode(), site="tokyo")
        assert len(job.result(timeout=300).read("result.bin")) == RESULT
        return job.status().group or ""

    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(one, range(jobs)))


def at_once(client: Client, jobs: int, name: str) -> list[str]:
    """One batch."""
    batch = client.map([f"{SCRIPT}{name} {number}".encode() for number in range(jobs)], site="tokyo")
    for result in batch.results(timeout=600):
        assert len(result.read("result.bin")) == RESULT
    return [status.group or "" for status in client.jobs(batch=batch.batch_id)]


def measure(hosts: Hosts, cluster: Cluster, jobs: int) -> None:
    """Print a line for each policy and way of submitting."""
    print(f"{jobs} jobs, {RESULT / 1e6:g} MB each; MB over the uplinks in all, and how often each byte crossed one\n")
    print(
        f"{'policy':14}{'submitted':11}{'jobs in a/b':>14}" + "".join(f"{r + ' in':>12}{r + ' out':>12}" for r in RACKS)
    )
    for policy in ("least_loaded", "topology"):
        cluster.write_settings(routing={"policy": policy})
        cluster.copy_settings()
        cluster.raygrid("deploy", "--config", "/opt/raygrid/grid.yaml")
        for way in (steady, at_once):
            with cluster.client("a1") as client:
                until(lambda: client.capacity().free, "the grid is free")
                before = [hosts.uplink_bytes(rack) for rack in RACKS]
                began = time.monotonic()
                groups = Counter(way(client, jobs, f"{policy}-{began}"))
                after = [hosts.uplink_bytes(rack) for rack in RACKS]
            moved = [[(b - a) / 1e6 for a, b in zip(x, y, strict=True)] for x, y in zip(before, after, strict=True)]
            cells = "".join(f"{into:12.0f}{out:12.0f}" for into, out in moved)
            crossings = sum(map(sum, moved)) / (jobs * RESULT / 1e6)
            shares = f"{groups['rack-a']}/{groups['rack-b']}"
            print(
                f"{policy:14}{way.__name__:11}{shares:>14}{cells}   x{crossings:.2f}   {time.monotonic() - began:.0f} s"
            )


def main() -> None:
    """Bring a cluster up and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--no-haproxy", action="store_true", help="Ray Serve's own proxies as entries")
    arguments = parser.parse_args()
    jobs = arguments.jobs
    if (reason := why_not()) is not None:
        sys.exit(reason)
    with five_hosts() as hosts, s3_server(DESK) as s3:
        for host in FIVE:
            exports = "".join(f"export {name}={value}\n" for name, value in SECRETS.items())
            hosts.file(host, f"{HOME}/.bashrc").write_text(exports)
        server = Postgres(listen=(DESK, "127.0.0.1"), networks=("10.88.0.0/24", "127.0.0.1/32"))
        server.open()
        try:
            with server.database() as database:
                storage = {"blobs": f"s3://{s3.new_bucket()}/grid", "blob_options": s3.options()}
                cluster = Cluster.prepare(hosts, database=database, storage=storage, **SITES)
                cluster.haproxy = not arguments.no_haproxy
                print("entries:", "HAProxy" if cluster.haproxy else "Ray Serve's own proxies")
                cluster.up()
                cluster.wait_ready(nodes=4)
                measure(hosts, cluster, jobs)
                cluster.down()
        finally:
            server.close()


if __name__ == "__main__":
    main()
