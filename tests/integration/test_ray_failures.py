"""Processes of a grid on real Ray are killed; nothing that was acknowledged is lost."""

from __future__ import annotations

from raygrid.client import Client
from raygrid.local import GridFile
from raygrid.models import JobState
from tests.support.job_directories import job_directories
from tests.support.ray_grid import kill_hard, marked, pids_of, until

JOBS = 200


def test_a_killed_agent_costs_no_job(ray_grid: GridFile, client: Client) -> None:
    """`kill -9` of a node agent while 200 jobs run: all end as done, no pricer and no job directory stays."""
    agents = pids_of(ray_grid.pid, "ray::NodeAgentActor")
    assert len(agents) == 2
    nodes = str(ray_grid.directory / "nodes")
    jobs = client.map([f"sleep 0.1; echo {n}".encode() for n in range(JOBS)], pricer="shell")
    until(lambda: client.batch(jobs.batch_id).status().counts[JobState.DONE] >= JOBS // 10)
    kill_hard(agents[0])
    outputs = [result.stdout for result in jobs.results(120)]
    assert outputs == [f"{n}\n" for n in range(JOBS)]
    assert client.batch(jobs.batch_id).status().counts[JobState.DONE] == JOBS
    until(lambda: not marked(nodes), within_s=10)
    until(lambda: not job_directories(ray_grid.directory / "nodes"), within_s=10)
    until(lambda: len(client.nodes()) == 2)


def test_a_killed_leader_is_followed_by_itself(ray_grid: GridFile, client: Client) -> None:
    """`kill -9` of a leader while jobs run: its next life adopts the queue, and every job ends once."""
    leaders = pids_of(ray_grid.pid, "ray::LeaderActor")
    jobs = client.map([f"sleep 0.1; echo {n}".encode() for n in range(JOBS // 2)], pricer="shell")
    until(lambda: client.batch(jobs.batch_id).status().counts[JobState.DONE] >= JOBS // 20)
    kill_hard(leaders[0])
    outputs = [result.stdout for result in jobs.results(120)]
    assert outputs == [f"{n}\n" for n in range(JOBS // 2)]


def test_a_killed_parent_comes_back_with_everything(ray_grid: GridFile, client: Client) -> None:
    """`kill -9` of the only parent while a batch runs: the client's retries reach its next life and get everything."""
    [parent] = pids_of(ray_grid.pid, "ray::ServeReplica")
    jobs = client.map([f"sleep 0.05; echo {n}".encode() for n in range(JOBS // 2)], pricer="shell")
    kill_hard(parent)
    outputs = [result.stdout for result in jobs.results(120)]
    assert outputs == [f"{n}\n" for n in range(JOBS // 2)]


def test_both_racks_take_part(ray_grid: GridFile, client: Client) -> None:
    """Jobs of one batch run in both racks."""
    jobs = client.map([b"sleep 0.2"] * 40, pricer="shell")
    assert len(list(jobs.results(60))) == 40
    groups = {status.group for status in client.jobs(batch=jobs.batch_id)}
    assert groups == {"rack-a", "rack-b"}
