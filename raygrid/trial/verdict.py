"""The meaning of a trial in sentences: what the grid adds to a job, where the time goes, what to try. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from raygrid.trial.run import ROUNDS_OF_SLOTS, JobTimes, Trial

_WELL_USED = 0.9
_CROWDED = 1.5
_SHORT_S = 0.1
_SLOW_FETCH = 0.2


@dataclass(frozen=True, slots=True)
class TrialVerdict:
    """The findings of a trial.

    Attributes:
        found: one sentence for each finding.
        advice: one sentence for each suggestion.
        adds_s: slot time of a job outside its pricer, seconds; None if nothing ran.
        used: part of the slots' time in which pricers ran; None if nothing ran.
    """

    found: tuple[str, ...]
    advice: tuple[str, ...]
    adds_s: float | None = None
    used: float | None = None


def verdict(trial: Trial) -> TrialVerdict:
    """Turn the measurements of a trial into findings and advice."""
    found = [
        f"{trial.jobs} jobs in {duration(trial.elapsed_s)}: {figure(trial.jobs / trial.elapsed_s)} a second on "
        f"{trial.slots} slots."
    ]
    if trial.failures:
        found.append(f"{len(trial.failures)} of them failed; the following numbers are those of the jobs that ran.")
    if trial.reused:
        found.append(
            f"{trial.reused} of them did not run: equal jobs share a stored result here (reuse: content), and copies "
            "of one input are equal. To measure, turn reuse off."
        )
    if not trial.times:
        return TrialVerdict(tuple(found), ())
    ran = [times.ran_s for times in trial.times]
    # Loading is paid once for many jobs, so the usual time is that of the jobs that found the pricer loaded.
    usual = [times for times in trial.times if not times.loaded] or list(trial.times)
    usual_s = [times.ran_s for times in usual]
    slot_s = trial.used_slots * trial.elapsed_s
    used = min(1.0, sum(ran) / slot_s)
    adds_s = max(0.0, slot_s - sum(ran)) / len(ran)
    found += [
        f"The pricer itself takes {duration(median(usual_s))} (median; {duration(min(usual_s))} to "
        f"{duration(max(usual_s))}), {duration(median(each.cpu_s for each in usual))} of it on a CPU.",
        *_loading(trial, median(usual_s)),
        f"The grid adds {duration(adds_s)} of a slot's time to each job: {used:.0%} of the slots' time went into the "
        "pricer.",
        *_alone(trial),
        _way(trial),
    ]
    return TrialVerdict(tuple(found), tuple(_advice(trial, used, adds_s, median(usual_s))), adds_s, used)


def _loading(trial: Trial, usual_s: float) -> list[str]:
    """The cost of loading a warm pricer, and the number of loads."""
    if not _is_warm(trial):
        return []
    first = [times for times in trial.times if times.loaded]
    seen = [times.ran_s for times in (*first, *([trial.loading] if trial.loading else []))]
    warm = "It stays loaded between jobs (mode: warm)"
    if not seen:
        return [f"{warm}, and was loaded already."]
    return [
        f"{warm}: {len(first)} of the {len(trial.times)} jobs had to load it first, and loading takes about "
        f"{duration(max(0.0, median(seen) - usual_s))}; later jobs do not need this time."
    ]


def _is_warm(trial: Trial) -> bool:
    return any(times.warm_job is not None for times in trial.times)


def _alone(trial: Trial) -> list[str]:
    if trial.alone is None:
        return []
    more_s = max(0.0, trial.alone_whole_s - trial.alone.ran_s)
    loaded = ", the pricer's loading included," if trial.alone.loaded else ""
    return [
        f"One job alone{loaded} was back after {duration(trial.alone_whole_s)}, {duration(more_s)} more than its "
        "pricer took."
    ]


def _way(trial: Trial) -> str:
    times = trial.times
    return (
        f"Where a job's time went in the batch (medians): {duration(_middle(times, 'waited_s'))} waiting for a slot, "
        f"{duration(_middle(times, 'ran_s'))} running, {duration(_middle(times, 'recorded_s'))} until its result was "
        f"stored and recorded. Submitting all of them took {duration(trial.submitted_s)}; {trial.result_bytes:,} bytes "
        "of results came back."
    )


def _middle(times: Sequence[JobTimes], name: str) -> float:
    values: list[float] = [getattr(each, name) for each in times]
    return median(values)


def _advice(trial: Trial, used: float, adds_s: float, ran_s: float) -> list[str]:
    advice = []
    if trial.others:
        advice.append(f"The grid had {trial.others} other jobs when this began: repeat it while it is idle.")
    if trial.jobs < ROUNDS_OF_SLOTS * trial.slots:
        advice.append(
            "With so few jobs, the start and the end of the batch dominate the times: repeat it with --jobs "
            f"{ROUNDS_OF_SLOTS * trial.slots} or more."
        )
    if (
        trial.alone is not None
        and not trial.alone.loaded
        and ran_s > _CROWDED * trial.alone.ran_s
        and ran_s > _SHORT_S / 10
    ):
        advice.append(
            f"Next to other jobs the pricer takes {ran_s / trial.alone.ran_s:.1f} times as long as alone: the nodes "
            "have more slots than their CPUs, memory or disks can serve; try fewer (node.slots)."
        )
    if used >= _WELL_USED:
        advice.append("The slots are the limit, not the grid: more nodes make it proportionally faster.")
    elif ran_s < _SHORT_S and adds_s > ran_s / 2:
        warm = "" if _is_warm(trial) else ", or keep the pricer loaded (mode: warm) if its start takes most of the time"
        advice.append(
            f"The pricer runs only briefly, compared with the cost of a job: put more work into each input{warm}."
        )
    if trial.submitted_s > _SLOW_FETCH * trial.elapsed_s and used < _WELL_USED:
        advice.append(
            "Submitting took much of the time: store the content that all inputs have in common once, as shared data "
            "(raygrid data put, --data)."
        )
    return advice


def duration(seconds: float) -> str:
    """Format a time: `3.4 ms`, `120 ms`, `2.5 s`, `310 s`."""
    if seconds < 1:
        return f"{seconds * 1_000:.1f} ms" if seconds < 0.01 else f"{seconds * 1_000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s"


def figure(value: float) -> str:
    """Format a number with three significant digits, or with all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
