"""The results of drills: as values, as medians of several runs, and as a sentence."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raygrid.client import JobStatus
from raygrid.drill.history import Wrong, check
from raygrid.drill.load import ClientLoad
from raygrid.models import JobState

_COUNTED = ("acknowledged", "done", "lost", "failed", "wrong", "client_errors")
_BROKEN = {"lost": "lost", "failed": "failed", "wrong": "with a wrong result"}


@dataclass(frozen=True, slots=True)
class Report:
    """One run of one scenario.

    Attributes:
        scenario: its name.
        hit: what was broken, in words; empty if nothing was.
        acknowledged: jobs that the grid accepted.
        done: acknowledged jobs that are done and whose result was read.
        lost: acknowledged jobs that at the end were unknown to the grid or had not ended.
        failed: acknowledged jobs that failed or were cancelled.
        repeated: acknowledged jobs with more than one attempt.
        wrong: jobs whose result differed from the reference.
        client_errors: requests that failed in spite of retries.
        recovery_s: seconds from the fault to recovery as the scenario defines it; None if it was not observed.
        violations: violated guarantees, in words.
        errors: some errors of failed requests.
        note: a remark on the recovery time.
        skipped: why the scenario was not run.
        more: further figures of the scenario.
    """

    scenario: str
    hit: str = ""
    acknowledged: int = 0
    done: int = 0
    lost: int = 0
    failed: int = 0
    repeated: int = 0
    wrong: int = 0
    client_errors: int = 0
    recovery_s: float | None = None
    violations: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    note: str = ""
    skipped: str = ""
    more: dict[str, float] = field(default_factory=dict)

    @property
    def is_well(self) -> bool:
        """Whether no guarantee was violated; errors of clients do not count."""
        return not (self.lost or self.failed or self.wrong or self.violations)


def count_jobs(scenario: str, load: ClientLoad, final: Mapping[str, JobStatus]) -> Report:
    """Count the ends of the jobs that the grid accepted."""
    taken = load.history.acknowledged_jobs
    ends = [_end(final.get(job_id), load.history.result_at(job_id)) for job_id in taken]
    wrong = [each for each in check(load.history, {}, must_have_ended=False) if each.kind is Wrong.WRONG_RESULT]
    return Report(
        scenario,
        acknowledged=len(taken),
        done=ends.count("done"),
        lost=ends.count("lost"),
        failed=ends.count("failed"),
        repeated=sum(final[job_id].attempts > 1 for job_id in taken if job_id in final),
        wrong=len(wrong),
        client_errors=load.client_errors,
        errors=tuple(dict.fromkeys(what for _, _, what in load.history.errors))[:5],
    )


def _end(status: JobStatus | None, result_at: float | None) -> str:
    """How a job ended: it is done when its client has the result, not when the grid reports it."""
    if status is not None and status.state in (JobState.FAILED, JobState.CANCELLED):
        return "failed"
    return "done" if status is not None and status.state is JobState.DONE and result_at is not None else "lost"


def medians(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """One entry for each scenario: median and worst recovery, and the sums of all counts."""
    found = []
    for scenario in dict.fromkeys(report.scenario for report in reports):
        runs = [report for report in reports if report.scenario == scenario]
        done = [report for report in runs if not report.skipped]
        times = [report.recovery_s for report in done if report.recovery_s is not None]
        found.append(
            {
                "scenario": scenario,
                "runs": len(done),
                "recovery_s": round(statistics.median(times), 3) if times else None,
                "worst_recovery_s": max(times) if times else None,
                **{
                    name: sum(getattr(report, name) for report in done)
                    for name in ("acknowledged", "done", "lost", "failed", "repeated", "wrong", "client_errors")
                },
                "skipped": next((report.skipped for report in runs if report.skipped), ""),
            }
        )
    return found


def summary(reports: Sequence[Report]) -> str:
    """Whether the guarantees held, how the jobs ended and how long recovery took, in a sentence."""
    ran = [report for report in reports if not report.skipped]
    if not ran:
        return "nothing was tested: every scenario was skipped"
    sums = {name: sum(getattr(report, name) for report in ran) for name in _COUNTED}
    if all(report.is_well for report in ran):
        said = [f"nothing was lost: {sums['acknowledged']:,} jobs acknowledged, {sums['done']:,} done"]
    else:
        found = [*((sums[name], word) for name, word in _BROKEN.items())]
        found.append((sum(len(report.violations) for report in ran), "violations"))
        bad = ", ".join(f"{count:,} {word}" for count, word in found if count)
        said = [f"guarantees were violated: {sums['acknowledged']:,} jobs acknowledged, {sums['done']:,} done; {bad}"]
    said += _times(ran)
    if sums["client_errors"]:
        said.append(f"requests that failed in spite of retries: {sums['client_errors']:,}")
    if skipped := dict.fromkeys(report.scenario for report in reports if report.skipped):
        said.append(f"skipped: {', '.join(skipped)}")
    return "; ".join(said)


def _times(ran: Sequence[Report]) -> Iterator[str]:
    gaps = [report.recovery_s for report in ran if report.scenario == "head" and report.recovery_s is not None]
    times = [
        (report.recovery_s, report.scenario)
        for report in ran
        if report.scenario != "head" and report.recovery_s is not None
    ]
    if times:
        longest_s, scenario = max(times)
        yield f"the longest recovery took {longest_s:.1f} s ({scenario})"
    if gaps:
        yield f"around the death of the head, the longest time without a finished job was {max(gaps):.1f} s"
