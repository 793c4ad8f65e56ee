"""What clients of a cluster see while links are cut under load: every entry is used, and the history is checked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from raygrid.drill.history import check
from raygrid.drill.injector import FaultTarget
from raygrid.drill.load import ClientLoad
from raygrid.drill.scenarios import InjectedFault, recovery_s
from raygrid.models import JobState
from tests.faults.cluster import KEY, Cluster

WORKERS = ("a1", "a2", "b1", "b2")
END_S = 90.0


@dataclass(frozen=True)
class Seen:
    """The outcome of the load; `recovery_s` as `raygrid drill` counts it, None if nothing needed what broke."""

    acknowledged: int
    lost: int
    repeated: int
    client_errors: int
    recovery_s: float | None
    violations: tuple[str, ...]
    errors: tuple[str, ...]


async def _seen(
    cluster: Cluster, scenario: str, aim: FaultTarget, inject: Callable[[], None], heal: Callable[[], None]
) -> Seen:
    clock = asyncio.get_running_loop().time
    urls = [cluster.url(host) for host in WORKERS]
    calm = ClientLoad(urls, KEY, "drill", plain_http=True, steady=0, trickle_per_s=0)
    expected = await calm.reference()
    await calm.close()
    load = ClientLoad(urls, KEY, "drill", plain_http=True, steady=16, trickle_per_s=4.0, expected=expected)
    load.start()
    try:
        await load.until(lambda: load.ended >= 24, END_S)
        before = await load.statuses("running")
        while not any(job.node in aim.places and job.state is JobState.RUNNING for job in before.values()):
            before = await load.statuses("running")
        before = {**await load.statuses("queued"), **before}
        injected = InjectedFault(clock(), aim, before)
        await asyncio.to_thread(inject)
        await asyncio.sleep(aim.freeze_s)
        await asyncio.to_thread(heal)
        until = clock()
        load.stop()
        await load.drained(END_S)
        final = await load.statuses()
    finally:
        await asyncio.to_thread(heal)
        await load.close()
    taken = load.history.acknowledged_jobs
    return Seen(
        acknowledged=len(taken),
        lost=sum(load.history.result_at(job_id) is None for job_id in taken),
        repeated=sum(status.attempts > 1 for status in final.values()),
        client_errors=load.client_errors,
        recovery_s=recovery_s(scenario, injected, load.jobs.values(), final, load.tries, until),
        violations=tuple(map(str, check(load.history, {job_id: each.state for job_id, each in final.items()}))),
        errors=tuple(dict.fromkeys(what for _, _, what in load.history.errors))[:3],
    )


def cut_host(cluster: Cluster, host: str, lasts_s: float = 10.0) -> Seen:
    """Cut a host's link under load."""
    aim = FaultTarget("node", (host,), freeze_s=lasts_s)
    return asyncio.run(_seen(cluster, "node", aim, lambda: cluster.hosts.cut(host), cluster.hosts.heal))


def cut_rack(cluster: Cluster, rack: str, hosts: tuple[str, ...], lasts_s: float = 14.0) -> Seen:
    """Cut the uplink of a rack's switch under load; its hosts go on seeing each other."""
    aim = FaultTarget("node", hosts, rack, freeze_s=lasts_s)
    return asyncio.run(_seen(cluster, "group", aim, lambda: cluster.hosts.cut(rack), cluster.hosts.heal))
