"""A real `ray up` of the `cluster.yaml` that raygrid ships, on hosts: one cluster, from its first start to its end."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from raygrid.client import Client
from raygrid.client.batch import BatchJobs
from raygrid.client.status import JobStatus, NodeStatus
from tests.faults.cluster import KEY, Cluster
from tests.faults.hosts import RACKS, Hosts, until

pytestmark = pytest.mark.timeout(400)
SPARE = "c1"


@pytest.fixture(scope="module")
def cluster(hosts: Hosts, database: str) -> Iterator[Cluster]:
    """Four workers in two racks, as `ray up` brings them up."""
    cluster = Cluster.prepare(hosts, database=database)
    cluster.up()
    cluster.wait_ready(nodes=4)
    yield cluster
    if cluster.is_up:
        cluster.down()


def nodes_of(client: Client) -> dict[str, NodeStatus]:
    return {node.node: node for node in client.nodes()}


def statuses(client: Client, batch: BatchJobs) -> list[JobStatus]:
    return list(client.jobs(batch=batch.batch_id))


def short_jobs(count: int, seconds: float) -> list[bytes]:
    return [f"sleep {seconds}; hostname; echo {number}".encode() for number in range(count)]


def test_after_ray_up_every_worker_is_a_node_of_its_rack(cluster: Cluster) -> None:
    with cluster.client() as client:
        found = {node.node: node.group for node in client.nodes() if node.state == "ok"}

    assert found == {host: rack for rack, hosts in RACKS.items() for host in hosts if host != SPARE}


def test_every_worker_has_a_parent_and_none_runs_on_the_head(cluster: Cluster, hosts: Hosts) -> None:
    parents = {host: len(hosts.processes(host, "ServeReplica:raygrid")) for host in ("head", "a1", "a2", "b1", "b2")}

    assert parents == {"head": 0, "a1": 1, "a2": 1, "b1": 1, "b2": 1}


@pytest.mark.parametrize("entry", ["head", "a1", "b2"])
def test_a_job_may_be_submitted_through_any_entry_and_asked_for_at_another(cluster: Cluster, entry: str) -> None:
    with cluster.client(entry) as client, cluster.client("a2") as other:
        job = client.submit(b"echo from $(hostname)", job_id=f"through-{entry}")
        job.result(timeout=60)

        assert other.job(job.job_id).result().stdout.startswith("from ")


def test_from_outside_a_key_is_needed(cluster: Cluster) -> None:
    with httpx.Client(base_url=cluster.url("b1"), timeout=30) as outside:
        without = outside.post("/submit/outside-1", files={"file": ("a.sh", b"echo hello")})
        wrong = outside.get("/capacity", headers={"Authorization": "Bearer not-this-one-at-all"})
        right = outside.post(
            "/submit/outside-1",
            files={"file": ("a.sh", b"echo hello")},
            headers={"Authorization": f"Bearer {KEY}"},
        )

    assert (without.status_code, wrong.status_code) == (401, 401)
    assert (right.status_code, right.text) == (200, "hello\n")


def test_a_second_ray_up_adds_a_worker_in_a_new_rack_and_disturbs_no_running_job(
    cluster: Cluster, hosts: Hosts
) -> None:
    with cluster.client("a1") as client:
        batch = client.map(short_jobs(200, 1))
        hosts.power_on(SPARE)

        cluster.up(("a1", "a2", "b1", "b2", SPARE))

        until(lambda: nodes_of(client).get(SPARE), "the new worker is a node", within_s=120)
        assert nodes_of(client)[SPARE].group == "rack-c"
        list(batch.results(timeout=180))
        # The new one was empty while the others had queues of their own: what comes from now on goes there as well.
        list(client.map(short_jobs(40, 0.5)).results(timeout=120))
        after = statuses(client, batch)

    assert Counter(job.attempts for job in after) == {1: 200}
    assert hosts.processes(SPARE, "NodeAgentActor")


def test_a_drained_node_finishes_what_it_has_and_gets_nothing_more(cluster: Cluster) -> None:
    with cluster.client("b1") as client:
        client.map(short_jobs(40, 1))
        until(lambda: nodes_of(client)["a1"].running, "a1 has jobs")

        client.drain("a1")

        until(lambda: nodes_of(client)["a1"].state == "drained", "a1 is drained", within_s=30)
        later = client.map(short_jobs(40, 0.2))
        list(later.results(timeout=120))
        assert "a1" not in {job.node for job in statuses(client, later)}
        client.undrain("a1")
        until(lambda: nodes_of(client)["a1"].state == "ok", "a1 works again", within_s=30)


def test_an_upgrade_under_load_fails_no_request_that_is_sent_once_more(cluster: Cluster) -> None:
    """Plain HTTP, so that no retry of the client library hides a failure: each request may be repeated once."""
    failed: list[str] = []
    sent = repeated = 0
    stop = threading.Event()

    def load(number: int) -> None:
        nonlocal sent, repeated
        entries = ["head", "a2", "b1"]
        turn = 0
        while not stop.is_set():
            turn += 1
            job_id = f"upgrade-{number}-{turn}"
            answers = []
            for entry in (entries[turn % 3], entries[(turn + 1) % 3]):
                answers.append(_submit(cluster.url(entry), job_id, f"echo {job_id}"))
                sent += 1
                if answers[-1] == f"{job_id}\n":
                    break
                repeated += 1
            else:
                failed.append(f"{job_id}: {answers}")
            time.sleep(0.05)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        cluster.write_settings(pricers={**cluster.settings["pricers"], "greet": {"command": ["sh", "-c", "echo hi"]}})
        cluster.copy_settings()
        cluster.raygrid("deploy", "--config", "/opt/raygrid/grid.yaml")
        with cluster.client("b1") as client:
            until(lambda: "greet" in {pricer.name for pricer in client.pricers()}, "the new pricer is known")
            # It has reached the leaders and nodes as well.
            greeted = client.map([b"x"] * 20, pricer="greet")
            assert [result.stdout for result in greeted.results(timeout=60)] == ["hi\n"] * 20
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    print(f"upgrade under load: {sent} requests, {repeated} of them failed once, {len(failed)} jobs failed twice")
    assert sent > 100
    assert failed == []


def _submit(url: str, job_id: str, script: str) -> str:
    try:
        answer = httpx.post(
            f"{url}/submit/{job_id}",
            files={"file": ("a.sh", script.encode())},
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=30,
        )
    except httpx.HTTPError as error:
        return repr(error)
    return answer.text if answer.status_code == 200 else f"{answer.status_code} {answer.text}"


def test_the_head_may_die_while_jobs_run_and_comes_back_by_itself(cluster: Cluster, hosts: Hosts) -> None:
    with cluster.client("a1") as client:
        batch = client.map(short_jobs(60, 1))
        until(lambda: client.capacity().running, "jobs run")

        hosts.kill("head", "gcs_server")

        list(batch.results(timeout=120))  # through a parent on a worker, with no head
        assert Counter(job.attempts for job in statuses(client, batch)) == {1: 60}
    cluster.wait_ready(nodes=5)
    with cluster.client("head") as through_the_head:
        assert through_the_head.submit(b"echo back").result(timeout=60).stdout == "back\n"


def test_ray_down_leaves_nothing(cluster: Cluster, hosts: Hosts) -> None:
    cluster.down()

    def left() -> dict[str, list[str]]:
        found = {host: list(hosts.processes(host).values()) for host in ("head", "a1", "a2", "b1", "b2", SPARE)}
        ours = {host: [line for line in lines if "python" in line or "ray" in line] for host, lines in found.items()}
        return {
            host: [line for line in lines if "sshd" not in line and "bash -ec" not in line]
            for host, lines in ours.items()
        }

    until(lambda: not any(left().values()), f"no process is left: {left()}", within_s=60)
    assert [list(hosts.file(host, "/dev/shm").iterdir()) for host in ("head", "a1", SPARE)] == [[], [], []]
    jobs = [hosts.file(host, "/opt/raygrid/state/default/nodes") for host in ("a1", "b1", SPARE)]
    assert [list(directory.glob("*/jobs/*")) for directory in jobs] == [[], [], []]
