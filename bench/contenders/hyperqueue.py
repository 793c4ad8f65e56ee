"""HyperQueue, from its wheel: server and worker in this process, one array of tasks for each run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.contenders.contender import Contender, Run, installed

_LOOK_S = 0.02


class _StillRunningError(Exception):
    """Leaves the client's own wait, whose interval of one second would lengthen every run."""


@contextmanager
def _opened(command: Sequence[str], at_once: int) -> Iterator[Run]:
    import hyperqueue
    from hyperqueue.cluster import WorkerConfig

    with tempfile.TemporaryDirectory(prefix="hq-", ignore_cleanup_errors=True) as home:
        cluster = hyperqueue.LocalCluster(home, WorkerConfig(cores=at_once))
        client = cluster.client()

        def run(jobs: int, payload: bytes) -> float:
            began = time.perf_counter()
            job = hyperqueue.Job(default_workdir=home, max_fails=None)
            for _ in range(jobs):
                job.program(list(command), stdin=payload, stdout=None, stderr=None)
            submitted = client.submit(job)
            while not _finished(client, submitted.id):
                time.sleep(_LOOK_S)
            seconds = time.perf_counter() - began
            if failed := client.get_failed_tasks(submitted):
                raise RuntimeError(f"{len(failed)} of {jobs} tasks failed")
            client.forget(submitted)
            return seconds

        try:
            yield run
        finally:
            cluster.stop()


def _finished(client: object, job_id: int) -> bool:
    def leave(states: dict[int, dict[str, object]]) -> None:
        if not all(state["completed"] for state in states.values()):
            raise _StillRunningError

    try:
        client.connection.wait_for_jobs((job_id,), leave)  # type: ignore[attr-defined]  # it has no types
    except _StillRunningError:
        return False
    return True


CONTENDER = Contender(
    "LocalCluster, one worker; one job of many tasks, input on stdin, stdout and stderr none, no journal",
    "a queue on disk (no journal), results (stdout none), job directories",
    lambda: installed("hyperqueue"),
    _opened,
)
