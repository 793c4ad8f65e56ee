"""A real `ray up` of the `cluster.yaml` that raygrid ships, on hosts: one cluster, from its first start to its end."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from raygrid.client import Client
from raygrid.client.jobs import BatchJobs
from raygrid.client.status import JobStatus, NodeStatus
from raygrid.errors import ConnectionFailedError
from tests.faults.cluster import KEY, PRICERS, Cluster
from tests.faults.hosts import RACKS, SHARED, Hosts, until
from tests.faults.upgrade import Upgrade, upgrade_under_load
from tests.support.job_directories import job_directories
from tests.support.postgres import Postgres

pytestmark = pytest.mark.timeout(900)  # other tests on hosts may come first: one set at a time
SPARE = "c1"
EDITION_1 = {"command": ["sh", "-c", "echo one"], "version": "1"}
EDITION_2 = {"command": ["sh", "-c", "echo two"], "version": "2"}


@pytest.fixture(scope="module")
def cluster(hosts: Hosts, desk_postgres: Postgres) -> Iterator[Cluster]:
    """Four workers in two racks, as `ray up` brings them up."""
    with desk_postgres.database() as url:
        # If other tests run beside these, a silence of seconds is a lack of processor time; no test here is about
        # silence.
        cluster = Cluster.prepare(
            hosts, database=url, placement={"node_timeout_s": 15}, pricers={**PRICERS, "edition": EDITION_1}
        )
        began = time.monotonic()
        cluster.up()
        returned = time.monotonic()
        cluster.wait_ready(nodes=4)
        print(
            f"\nray up returned after {returned - began:.0f} s; four nodes ready after {time.monotonic() - began:.0f} s"
        )
        yield cluster
        if cluster.is_up:
            cluster.down()


def nodes_of(client: Client) -> dict[str, NodeStatus]:
    return {node.node: node for node in client.nodes()}


def noted_jobs(hosts: Hosts, name: str, count: int, seconds: float) -> list[bytes]:
    """Jobs that each leave a line in a shared place when they begin, so that a second time would be seen."""
    (hosts.directory / "shared" / name).mkdir()
    return [f"echo x >> {SHARED}/{name}/{number}; sleep {seconds}".encode() for number in range(count)]


def times_run(hosts: Hosts, name: str) -> Counter[int]:
    """How many jobs have begun how often."""
    return Counter(len(note.read_text().split()) for note in (hosts.directory / "shared" / name).iterdir())


def statuses(client: Client, batch: BatchJobs) -> list[JobStatus]:
    return list(client.jobs(batch=batch.batch_id))


def groups_of_a_batch(client: Client) -> set[str | None]:
    """The groups that run a batch of short jobs."""
    batch = client.map(short_jobs(40, 0.5))
    list(batch.results(timeout=120))
    return {job.group for job in statuses(client, batch)}


def short_jobs(count: int, seconds: float) -> list[bytes]:
    return [f"sleep {seconds}; hostname; echo {number}".encode() for number in range(count)]


def test_after_ray_up_every_worker_is_a_node_of_its_rack(cluster: Cluster) -> None:
    expected = {host: rack for rack, hosts in RACKS.items() for host in hosts if host != SPARE}

    def found(client: Client) -> dict[str, str]:
        with contextlib.suppress(ConnectionFailedError):  # its entry may come up after the nodes
            return {node.node: node.group for node in client.nodes() if node.state == "ok"}
        return {}

    for entry in ("head", "a1", "b2"):  # each parent learns of the groups by itself
        with cluster.client(entry) as client:
            until(lambda: found(client) == expected, f"{entry} tells of all nodes", within_s=60)


def test_the_settings_with_their_secrets_are_on_the_head_only(cluster: Cluster, hosts: Hosts) -> None:
    """Workers get what they need over Ray, and no file that `ray up` brings has a key."""
    assert KEY in hosts.run("head", "cat", "/opt/raygrid/grid.yaml").stdout
    assert hosts.run("head", "stat", "-c", "%a", "/opt/raygrid/grid.yaml").stdout == "600\n"
    for host in ("a1", "a2", "b1", "b2"):
        found = hosts.run(host, "grep", "-rlsF", KEY, "/opt/raygrid", "--exclude-dir=state", check=False)
        assert found.stdout == "", host


def test_a_machine_with_another_host_key_is_refused(cluster: Cluster, hosts: Hosts) -> None:
    """At the desk and on the head, with the `ssh` that Ray's launcher uses there."""
    environment = dict(cluster.environment)
    ask = ["ssh", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes", "-i", str(hosts.key), "root@10.88.0.21"]

    def asked(known: str) -> subprocess.CompletedProcess[str]:
        given = environment | {"RAYGRID_KNOWN_HOSTS": known}
        return subprocess.run([*ask, "hostname"], env=given, capture_output=True, text=True, check=False)

    assert asked(environment["RAYGRID_KNOWN_HOSTS"]).stdout == "b1\n"
    other = cluster.directory / "other_hosts"
    other.write_text(hosts.known_hosts.replace("AAAAC3NzaC1lZDI1NTE5AAAAI", "AAAAC3NzaC1lZDI1NTE5AAAAJ"))
    for known in (str(other), "/dev/null"):
        refused = asked(known)
        assert refused.returncode == 255
        assert "Host key verification failed" in refused.stderr
    [ray] = hosts.processes("head", "gcs_server")
    variables = Path(f"/proc/{ray}/environ").read_bytes().split(b"\0")
    assert b"RAYGRID_KNOWN_HOSTS=/opt/raygrid/known_hosts" in variables
    assert any(each.startswith(b"PATH=/opt/raygrid/ssh:") for each in variables)


def test_every_worker_has_a_parent_and_none_runs_on_the_head(cluster: Cluster, hosts: Hosts) -> None:
    parents = {host: len(hosts.processes(host, "ServeReplica:raygrid")) for host in ("head", "a1", "a2", "b1", "b2")}

    assert parents == {"head": 0, "a1": 1, "a2": 1, "b1": 1, "b2": 1}


def left_on(hosts: Hosts) -> dict[str, list[str]]:
    """What runs on the hosts besides what makes them hosts."""
    own = ("bash -ec hostname", "sleep 1000", "sshd: ")
    return {
        host: [line for line in hosts.processes(host).values() if not line.startswith(own)]
        for host in ("head", "a1", "a2", "b1", "b2", SPARE)
    }


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
        batch = client.map(noted_jobs(hosts, "added", 200, 1))
        hosts.power_on(SPARE)
        cluster.write_settings(http={**cluster.settings["http"], "parents": 5})

        cluster.up(("a1", "a2", "b1", "b2", SPARE))

        # Parents learn of it each at its own time: the answer that names it is the one to look at.
        added = until(lambda: nodes_of(client).get(SPARE), "the new worker is a node", within_s=120)
        assert added is not None
        assert added.group == "rack-c"
        list(batch.results(timeout=180))
        # It was empty while the others had queues of their own: what comes from now on goes there as well, as soon as
        # the parent that takes it knows of the rack.
        until(lambda: "rack-c" in groups_of_a_batch(client), "the new rack takes jobs")

    assert times_run(hosts, "added") == {1: 200}


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


def test_a_node_that_loses_the_share_gets_no_work_and_shows_the_reason(cluster: Cluster, hosts: Hosts) -> None:
    with cluster.client("a1") as client:
        hosts.lose_share("b2")
        try:
            until(lambda: SHARED in (nodes_of(client)["b2"].why or ""), "b2 shows why it is not well", within_s=30)
            batch = client.map(short_jobs(40, 0.2))
            list(batch.results(timeout=120))
            assert "b2" not in {job.node for job in statuses(client, batch)}
        finally:
            hosts.heal()
        until(lambda: nodes_of(client)["b2"].state == "ok", "b2 is well again", within_s=30)


def test_the_job_store_may_die_and_come_back_while_jobs_run(
    cluster: Cluster, hosts: Hosts, desk_postgres: Postgres
) -> None:
    with cluster.client("b1") as client:
        batch = client.map(noted_jobs(hosts, "outage", 500, 0.1))
        until(lambda: client.capacity().running, "jobs run")

        desk_postgres.restart()

        ended = list(batch.results(timeout=180, return_errors=True))
        runs = times_run(hosts, "outage")
        print(f"job store restarted under 500 jobs: {len(ended)} ended, begun so often: {dict(runs)}")
        assert Counter(job.state for job in statuses(client, batch)) == {"done": 500}


@pytest.fixture(scope="module")
def upgrade(cluster: Cluster) -> Upgrade:
    """One deployment under load."""
    return upgrade_under_load(cluster, {"greet": {"command": ["sh", "-c", "echo hi"]}, "edition": EDITION_2})


def test_an_upgrade_under_load_fails_no_request_that_is_sent_once_more(upgrade: Upgrade) -> None:
    """Each acknowledged job is done, and the new pricer is there."""
    requests = upgrade.requests
    print(f"upgrade under load: {requests.sent} requests, {requests.repeated} of them failed")
    assert requests.sent > 100
    assert (requests.failed, upgrade.wrong) == ([], [])
    assert upgrade.greeted == ["hi\n"] * 20


def test_each_of_2000_jobs_runs_the_definition_that_was_deployed_when_it_was_submitted(upgrade: Upgrade) -> None:
    """Half of the jobs still wait when the other version is deployed; more are submitted meanwhile and afterwards."""
    ran = upgrade.ran
    print(f"2,000 jobs with a deployment in the middle (when submitted, version in status, printed): {dict(ran)}")
    assert ran["before", "1", "one"] == 1_000
    assert ran["after", "2", "two"] == 1_000 - upgrade.meanwhile
    assert set(ran) <= {
        (name, *pair) for name in ("before", "meanwhile", "after") for pair in (("1", "one"), ("2", "two"))
    }
    assert ran.total() == 2_000


def test_another_job_store_is_refused_and_changes_nothing(
    cluster: Cluster, hosts: Hosts, desk_postgres: Postgres
) -> None:
    before = cluster.settings["storage"]
    with desk_postgres.database() as another:
        cluster.write_settings(storage={**before, "database": another})
        cluster.copy_settings()
        refused = hosts.run("head", "raygrid", "deploy", "--config", "/opt/raygrid/grid.yaml", check=False)
    cluster.write_settings(storage=before)
    cluster.copy_settings()

    assert refused.returncode == 2
    assert "storage.database differs" in refused.stderr
    with cluster.client("a2") as client:
        assert client.submit(b"echo still here").result(timeout=60).stdout == "still here\n"


def test_while_the_head_is_cut_off_the_workers_go_on(cluster: Cluster, hosts: Hosts) -> None:
    """They get no notice: packets to the head just vanish, and every question to Ray's GCS hangs."""
    hosts.cut("head")
    try:
        until_s = time.monotonic() + 20
        with cluster.client("a1") as client, cluster.client("b2") as other:
            rounds = 0
            while time.monotonic() < until_s:
                assert client.submit(b"echo a").result(timeout=20).stdout == "a\n"
                assert other.submit(b"echo b").result(timeout=20).stdout == "b\n"
                rounds += 1
                time.sleep(0.5)
        print(f"head cut off for 20 s: {2 * rounds} jobs through two workers")
    finally:
        hosts.heal()
    cluster.wait_ready(nodes=5)


def test_jobs_go_on_while_the_head_is_dead_and_it_starts_again(cluster: Cluster, hosts: Hosts) -> None:
    with cluster.client("a1") as client:
        batch = client.map(noted_jobs(hosts, "headless", 60, 1))
        until(lambda: client.capacity().running, "jobs run")

        hosts.kill("head", "gcs_server")

        list(batch.results(timeout=120))  # through a parent on a worker, with no head
        more_than_once = [job for job in statuses(client, batch) if job.attempts != 1]
        assert (times_run(hosts, "headless"), more_than_once) == ({1: 60}, [])
    cluster.wait_ready(nodes=5)
    with cluster.client("head") as through_the_head:
        assert through_the_head.submit(b"echo back").result(timeout=60).stdout == "back\n"


def test_ray_down_leaves_nothing(cluster: Cluster, hosts: Hosts) -> None:
    cluster.wait_ready(nodes=5)  # `ray down` does not reach a head that is just being restarted

    cluster.down()

    left = partial(left_on, hosts)
    until(lambda: sum(map(len, left().values())) == 0, "no process is left", within_s=120, instead=left)
    assert [list(hosts.file(host, "/dev/shm").iterdir()) for host in ("head", "a1", SPARE)] == [[], [], []]
    nodes = [hosts.file(host, "/opt/raygrid/state/default/nodes") for host in ("a1", "b1", SPARE)]
    assert [job_directories(directory) for directory in nodes] == [[], [], []]
