"""Runs copies of one input on a grid and times them: first one job alone, then a batch. Called by `raygrid bench`.

If the first job had to load a warm pricer, a second one runs alone after it.

The manifest of a job has the time of its pricer, its status the instants when the grid accepted and ended it; the total
is timed here. If the trial fails or is interrupted, the jobs that have not ended are cancelled.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Unpack

from raygrid.client import BatchJobs, Client, JobStatus
from raygrid.client.options import SubmitKeywords, new_id
from raygrid.errors import RaygridError

AIM_S = 30.0  # duration of the batch if the number of jobs is not given
MOST_JOBS = 2_000
ROUNDS_OF_SLOTS = 5  # with fewer jobs for each slot, the start and the end of the batch dominate the times


@dataclass(frozen=True, slots=True)
class JobTimes:
    """Where the time of one job went, seconds.

    Attributes:
        waited_s: from the acknowledgement of the submit to the start of the pricer. Like `recorded_s`, it compares the
            clocks of two machines.
        ran_s: from the start to the end of the pricer.
        recorded_s: from the end of the pricer until the job was recorded as ended and its result was stored.
        cpu_s: CPU time of the pricer.
        warm_job: number of the job in its warm process, from 1; None for a cold pricer.
    """

    waited_s: float
    ran_s: float
    recorded_s: float
    cpu_s: float
    warm_job: int | None = None

    @property
    def loaded(self) -> bool:
        """Whether a warm pricer was loaded for this job."""
        return self.warm_job == 1


@dataclass(frozen=True, slots=True)
class Trial:
    """The measurements.

    Attributes:
        slots: slots of the whole grid.
        others: running and queued jobs of the grid when the trial began.
        alone: times of the job that ran alone; None if it took over a stored result.
        alone_whole_s: from its submit to its result.
        jobs: number of jobs of the batch.
        submitted_s: from the first submit to the acknowledgement of the last job.
        elapsed_s: from the first submit to the last result.
        times: times of the jobs of the batch that ran.
        reused: number of jobs of the batch that took over a stored result.
        failures: messages of the jobs that failed.
        result_bytes: size of all results.
        loading: times of the first job, if a warm pricer had to be loaded for it.
    """

    slots: int
    others: int
    alone: JobTimes | None
    alone_whole_s: float
    jobs: int
    submitted_s: float
    elapsed_s: float
    times: tuple[JobTimes, ...]
    reused: int
    failures: tuple[str, ...]
    result_bytes: int
    loading: JobTimes | None = None

    @property
    def used_slots(self) -> int:
        """Slots that the jobs can use at once."""
        return max(1, min(self.slots, self.jobs))


def run_trial(
    client: Client,
    path: Path,
    jobs: int | None,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    **options: Unpack[SubmitKeywords],
) -> Trial:
    """Run one job alone and then a batch of copies.

    Args:
        client: the grid.
        path: the input.
        jobs: number of copies; None for as many as take about `AIM_S`, by the time of the first job.
        progress: called with the number of ended jobs and of all jobs.
        **options: options of all jobs, see `JobOptions`.

    Raises:
        JobFailedError: the job that ran alone failed; no others were submitted.
        RaygridError: as for every submit.
    """
    capacity = client.capacity()
    with _cancelled_in_the_end(client) as new_batch:
        alone, alone_whole_s = _run_alone(client, path, new_batch(), options)
        loading = None
        if alone is not None and alone.loaded:
            loading = alone
            alone, alone_whole_s = _run_alone(client, path, new_batch(), options)
        jobs = jobs or _fitting(alone, alone_whole_s, capacity.slots)
        began = time.perf_counter()
        batch = client.map([path] * jobs, batch_id=new_batch(), **options)
        submitted_s = time.perf_counter() - began
        manifests, failures, size = _collect(batch, progress)
        elapsed_s = time.perf_counter() - began
        found = [_times_of(manifests.get(job.job_id, {}), job) for job in client.jobs(batch=batch.batch_id)]
    return Trial(
        slots=capacity.slots,
        others=capacity.running + capacity.queued,
        alone=alone,
        alone_whole_s=alone_whole_s,
        jobs=jobs,
        submitted_s=submitted_s,
        elapsed_s=elapsed_s,
        times=tuple(times for times in found if times is not None),
        reused=sum(manifest.get("jobId") != job_id for job_id, manifest in manifests.items()),
        failures=tuple(failures),
        result_bytes=size,
        loading=loading,
    )


def _run_alone(client: Client, path: Path, batch_id: str, options: SubmitKeywords) -> tuple[JobTimes | None, float]:
    """Run one job; gives its times, and the seconds from its submit to its result."""
    began = time.perf_counter()
    single = client.map([path], batch_id=batch_id, **options)
    result = next(single.results())
    whole_s = time.perf_counter() - began
    return _times_of(result.manifest, single[0].status()), whole_s


@contextlib.contextmanager
def _cancelled_in_the_end(client: Client) -> Iterator[Callable[[], str]]:
    """Give a function that makes ids of batches; if the block raises, their unfinished jobs are cancelled."""
    batches: list[str] = []

    def new_batch() -> str:
        batches.append(new_id())
        return batches[-1]

    try:
        yield new_batch
    except BaseException:
        for batch_id in batches:
            with contextlib.suppress(RaygridError):
                client.cancel_batch(batch_id)
        raise


def _fitting(alone: JobTimes | None, whole_s: float, slots: int) -> int:
    """The number of jobs that take about `AIM_S`, within the limits above."""
    one_s = alone.ran_s if alone is not None else whole_s
    return min(MOST_JOBS, max(ROUNDS_OF_SLOTS * slots, round(AIM_S * slots / max(one_s, 0.001))))


def _collect(
    batch: BatchJobs, progress: Callable[[int, int], None]
) -> tuple[dict[str, dict[str, Any]], list[str], int]:
    """Read the results; gives their manifests by job id, the messages of failed jobs, and the bytes of all results."""
    manifests: dict[str, dict[str, Any]] = {}
    failures: list[str] = []
    size = 0
    for number, job in enumerate(batch.as_completed(), 1):
        assert job.ending is not None
        if job.ending.result is not None:
            size += len(job.ending.result.data)
            manifests[job.job_id] = job.ending.result.manifest
        if job.ending.error is not None:
            failures.append(str(job.ending.error))
        job.release()
        progress(number, len(batch))
    return manifests, failures, size


def _times_of(manifest: dict[str, Any], status: JobStatus) -> JobTimes | None:
    """The times of a job; None if it did not run, or took over the result of another job."""
    if manifest.get("jobId") != status.job_id or not manifest.get("started_at"):
        return None
    if status.submitted_at is None or status.ended_at is None:
        return None
    began, ended = (datetime.fromisoformat(manifest[name]) for name in ("started_at", "ended_at"))
    return JobTimes(
        waited_s=max(0.0, (began - status.submitted_at).total_seconds()),
        ran_s=float(manifest["wall_s"]),
        recorded_s=max(0.0, (status.ended_at - ended).total_seconds()),
        cpu_s=float(manifest["cpu_user_s"]) + float(manifest["cpu_system_s"]),
        warm_job=manifest.get("warm_job"),
    )
