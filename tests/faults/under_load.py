"""What clients of a cluster see while something breaks: load through every entry, and a verdict over their history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from raygrid.client import JobStatus
from raygrid.drill.history import check
from raygrid.drill.load import Load
from tests.faults.cluster import KEY, Cluster

WORKERS = ("a1", "a2", "b1", "b2")
END_S = 90.0


@dataclass(frozen=True)
class Seen:
    """What came of the load.

    `recovery_s` is the time from the fault to the first end of a job that needed what broke; None where none was seen.
    """

    acknowledged: int
    lost: int
    repeated: int
    client_errors: int
    recovery_s: float | None
    violations: tuple[str, ...]
    errors: tuple[str, ...]


async def _seen(
    cluster: Cluster,
    strike: Callable[[], None],
    heal: Callable[[], None],
    needs: Callable[[JobStatus], bool],
    lasts_s: float,
) -> Seen:
    clock = asyncio.get_running_loop().time
    urls = [cluster.url(host) for host in WORKERS]
    calm = Load(urls, KEY, "drill", steady=0, trickle_per_s=0)
    expected = await calm.reference()
    await calm.close()
    load = Load(urls, KEY, "drill", steady=12, trickle_per_s=4.0, expected=expected)
    load.start()
    try:
        await load.until(lambda: load.ended >= 24, END_S)
        under_way = {**await load.statuses("running"), **await load.statuses("queued")}
        needed = {job_id for job_id, status in under_way.items() if needs(status)}
        at = clock()
        await asyncio.to_thread(strike)
        await asyncio.sleep(lasts_s)
        await asyncio.to_thread(heal)
        load.stop()
        await load.drained(END_S)
        final = await load.statuses()
    finally:
        await asyncio.to_thread(heal)
        await load.close()
    ends = [
        job.ended_at - at
        for job_id, job in load.jobs.items()
        # What had ended before, and was only told afterwards, recovers nothing: it was run again, or elsewhere.
        if job_id in needed and job.ended_at is not None and _moved(under_way[job_id], final.get(job_id))
    ]
    taken = load.history.acknowledged_jobs
    return Seen(
        acknowledged=len(taken),
        lost=sum(load.history.result_at(job_id) is None for job_id in taken),
        repeated=sum(status.attempts > 1 for status in final.values()),
        client_errors=load.client_errors,
        recovery_s=min((end for end in ends if end > 0), default=None),
        violations=tuple(map(str, check(load.history, {job_id: each.state for job_id, each in final.items()}))),
        errors=tuple(dict.fromkeys(what for _, _, what in load.history.errors))[:3],
    )


def _moved(before: JobStatus, after: JobStatus | None) -> bool:
    return after is not None and (after.attempts > before.attempts or after.node != before.node)


def under_load(
    cluster: Cluster,
    strike: Callable[[], None],
    heal: Callable[[], None],
    *,
    needs: Callable[[JobStatus], bool],
    lasts_s: float,
) -> Seen:
    """Break something under load for `lasts_s` seconds; `needs` says which jobs under way needed what breaks."""
    return asyncio.run(_seen(cluster, strike, heal, needs, lasts_s))
