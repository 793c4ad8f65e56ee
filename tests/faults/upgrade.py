"""A deployment on a cluster under load: jobs wait, more are submitted, and plain requests are sent all the time.

All slots are held until the deployment has ended, so that jobs of the earlier version still wait when the later one
comes.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from raygrid.client import Client
from raygrid.client.jobs import BatchJobs
from tests.faults.cluster import KEY, Cluster
from tests.faults.hosts import SHARED, until

GATE = "upgrade-gate"
REQUESTERS = 4
WAIT_S = 1
JOBS = 2_000  # of the pricer that changes
MOST_MEANWHILE = 60  # batches of ten jobs


@dataclass
class Requests:
    """Submits by plain HTTP, so that no retry of the client library hides a failure: each may be repeated once.

    Attributes:
        sent: how many were sent.
        repeated: how many of them failed and were sent once more, to another entry.
        failed: what the answers to both were.
        acknowledged: ids of jobs; each prints its id.
    """

    sent: int = 0
    repeated: int = 0
    failed: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)

    def submit(self, urls: tuple[str, str], job_id: str) -> None:
        """Submit a job, to the second entry if the first one fails."""
        answers = []
        for url in urls:
            self.sent += 1
            answers.append(_submit(url, job_id))
            if answers[-1] is None:
                self.acknowledged.append(job_id)
                return
            self.repeated += 1
        self.failed.append(f"{job_id}: {answers}")


@dataclass(frozen=True)
class Upgrade:
    """What clients saw.

    Attributes:
        requests: the plain requests.
        wrong: jobs of acknowledged requests that did not print their id.
        ran: how many jobs ran, by when they were submitted, the version in their status, and what they printed.
        meanwhile: how many of them were submitted during the deployment.
        greeted: what jobs of the new pricer printed.
    """

    requests: Requests
    wrong: list[str]
    ran: Counter[tuple[str, str | None, str]]
    meanwhile: int
    greeted: list[str]


def upgrade_under_load(cluster: Cluster, pricers: Mapping[str, Mapping[str, object]]) -> Upgrade:
    """Deploy pricers: a later version of `edition`, and a new one, `greet`."""
    gate = cluster.hosts.directory / "shared" / GATE
    requests, meanwhile = Requests(), list[BatchJobs]()
    stop = threading.Event()

    def send(number: int, client: Client) -> None:
        urls = [cluster.url(entry) for entry in ("head", "a2", "b1")]
        turn = 0
        while not stop.is_set():
            turn += 1
            requests.submit((urls[turn % 3], urls[(turn + 1) % 3]), f"upgrade-{number}-{turn}")
            if number == 0 and len(meanwhile) < MOST_MEANWHILE:
                meanwhile.append(client.map([b"y"] * 10, pricer="edition"))
            time.sleep(0.05)

    with cluster.client("a1") as client:
        slots = client.capacity().slots
        holding = client.map([f"while [ ! -e {SHARED}/{GATE} ]; do sleep 0.1; done".encode()] * slots)
        until(lambda: client.capacity().running == slots, "all slots are held")
        before = client.map([b"x"] * (JOBS // 2), pricer="edition")
        threads = [threading.Thread(target=send, args=(number, client)) for number in range(REQUESTERS)]
        for thread in threads:
            thread.start()
        try:
            deploy(cluster, pricers)
            until(lambda: "greet" in {pricer.name for pricer in client.pricers()}, "the new pricer is known")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            gate.touch()
        after = client.map([b"z"] * (JOBS // 2 - 10 * len(meanwhile)), pricer="edition")
        greeted = client.map([b"x"] * 20, pricer="greet")  # it has reached the leaders and nodes as well
        list(holding.results(timeout=120))
        ran: Counter[tuple[str, str | None, str]] = Counter()
        for name, batches in (("before", [before]), ("meanwhile", meanwhile), ("after", [after])):
            for batch in batches:
                printed = [result.stdout.strip() for result in batch.results(timeout=180)]
                reported = {job.job_id: job.version for job in client.jobs(batch=batch.batch_id)}
                ran.update((name, reported[job.job_id], text) for job, text in zip(batch, printed, strict=True))
        results = {job_id: client.job(job_id).result(timeout=60).stdout for job_id in requests.acknowledged}
        wrong = [job_id for job_id, printed in results.items() if printed != f"{job_id}\n"]
        hellos = [result.stdout for result in greeted.results(timeout=60)]
    return Upgrade(requests, wrong, ran, 10 * len(meanwhile), hellos)


def deploy(cluster: Cluster, pricers: Mapping[str, Mapping[str, object]]) -> None:
    """Add pricers to the cluster's settings and deploy them."""
    cluster.write_settings(pricers={**cluster.settings["pricers"], **pricers})
    cluster.copy_settings()
    cluster.raygrid("deploy", "--config", "/opt/raygrid/grid.yaml", timeout_s=320)  # its own limit is 300 s


def _submit(url: str, job_id: str) -> str | None:
    """Submit a job and wait for a second; None if it was acknowledged or has its result, else the answer."""
    try:
        answer = httpx.post(
            f"{url}/submit/{job_id}",
            files={"file": ("a.sh", f"echo {job_id}".encode())},
            headers={"Authorization": f"Bearer {KEY}", "Prefer": f"wait={WAIT_S}"},
            timeout=30,
        )
    except httpx.HTTPError as error:
        return repr(error)
    is_right = answer.status_code == 202 or (answer.status_code, answer.text) == (200, f"{job_id}\n")
    return None if is_right else f"{answer.status_code} {answer.text}"
