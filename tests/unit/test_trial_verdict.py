"""The sentences that `raygrid bench` prints about what it measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raygrid.trial import JobTimes, Trial, verdict
from raygrid.trial.verdict import duration

JOB = JobTimes(waited_s=3.0, ran_s=1.0, recorded_s=0.02, cpu_s=0.9)
# 40 jobs of 1 s on 4 slots take 10 s at least; here they took 12.5.
TRIAL = Trial(
    slots=4,
    others=0,
    alone=JobTimes(0.001, 1.0, 0.002, 0.9),
    alone_whole_s=1.008,
    jobs=40,
    submitted_s=0.1,
    elapsed_s=12.5,
    times=(JOB,) * 40,
    reused=0,
    failures=(),
    result_bytes=40_000,
)


def text_of(trial: Trial) -> str:
    text = verdict(trial)
    return "\n".join([*text.found, *text.advice])


def test_the_share_of_the_slots_time_is_the_pricers_time_over_all_of_it() -> None:
    """40 s of pricers in 50 s of slots are 80 %, and the other 10 s are spread over the jobs."""
    text = verdict(TRIAL)
    assert text.used == pytest.approx(0.8)
    assert text.adds_s == pytest.approx(0.25)
    assert "The grid adds 250 ms of a slot's time to each job: 80% of the slots' time" in "\n".join(text.found)


def test_a_job_alone_shows_what_the_grid_adds_to_one_submit() -> None:
    """It is the whole way there and back without a queue."""
    assert "One job alone was back after 1.0 s, 8.0 ms more than its pricer took." in text_of(TRIAL)


def test_the_times_are_medians() -> None:
    """Waiting, running, recording."""
    text = text_of(TRIAL)
    assert "3.0 s waiting for a slot, 1.0 s running, 20 ms until its result was stored and recorded" in text


def test_slots_that_are_never_idle_are_the_limit() -> None:
    """Then more nodes are recommended, and nothing else."""
    text = verdict(replace(TRIAL, elapsed_s=10.2))
    assert text.advice == ("The slots are the limit, not the grid: more nodes make it proportionally faster.",)


def test_fewer_jobs_than_slots_leave_the_other_slots_out() -> None:
    """Two jobs cannot use four slots; that is no loss of the grid."""
    text = verdict(replace(TRIAL, jobs=2, times=(JOB,) * 2, elapsed_s=1.0))
    assert text.used == pytest.approx(1.0)
    assert "--jobs 20 or more" in "\n".join(text.advice)


def test_for_a_short_pricer_larger_inputs_and_warm_pricers_are_recommended() -> None:
    """A pricer counts as short if the grid adds more than half of its run time."""
    short = replace(JOB, ran_s=0.002)
    text = text_of(replace(TRIAL, times=(short,) * 40, elapsed_s=0.1, alone=short))
    assert "mode: warm" in text


def test_a_pricer_that_slows_down_beside_others_has_too_many_slots() -> None:
    """Three times as long as alone is not caused by the grid."""
    text = text_of(replace(TRIAL, times=(replace(JOB, ran_s=3.0),) * 40, elapsed_s=31.0))
    assert "3.0 times as long as alone" in text
    assert "node.slots" in text


WARM = replace(JOB, ran_s=0.01, warm_job=7)
LOADING = replace(WARM, ran_s=3.01, warm_job=1)


def test_loading_a_warm_pricer_is_separate_from_pricing() -> None:
    """Start-up is paid once for each process: it is not what a job takes."""
    times = (LOADING,) * 4 + (WARM,) * 36
    text = text_of(replace(TRIAL, times=times, alone=WARM, alone_whole_s=0.018, loading=LOADING, elapsed_s=4.0))
    assert "The pricer itself takes 10 ms (median; 10 ms to 10 ms)" in text
    assert "4 of the 40 jobs had to load it first, and loading takes about 3.0 s" in text
    assert "One job alone was back after 18 ms, 8.0 ms more than its pricer took." in text


def test_for_a_warm_pricer_only_larger_inputs_are_recommended() -> None:
    """Where it is short, only larger inputs help."""
    text = text_of(replace(TRIAL, times=(WARM,) * 40, elapsed_s=1.0, alone=WARM))
    assert "put more work into each input." in text
    assert "or keep the pricer loaded" not in text
    assert "and was loaded already" in text


def test_a_job_alone_that_loaded_the_pricer_is_no_measure_of_crowding() -> None:
    """A process that serves one job only (recycle_after: 1) loads for each: a note has it; nothing is compared."""
    text = text_of(replace(TRIAL, times=(LOADING,) * 40, alone=replace(LOADING, ran_s=1.0), loading=LOADING))
    assert "One job alone, the pricer's loading included, was back" in text
    assert "times as long as alone" not in text


def test_other_work_on_the_grid_is_mentioned() -> None:
    """Figures beside other jobs are influenced by them."""
    assert "The grid had 7 other jobs" in text_of(replace(TRIAL, others=7))


def test_results_that_were_reused_are_no_measurement() -> None:
    """If nothing ran, no sentence is about pricers and slots."""
    text = verdict(replace(TRIAL, reused=40, times=(), alone=None))
    assert text.used is None
    assert "40 of them did not run" in text.found[-1]


@pytest.mark.parametrize(("seconds", "text"), [(0.0034, "3.4 ms"), (0.12, "120 ms"), (2.54, "2.5 s"), (310.2, "310 s")])
def test_times_have_readable_units(seconds: float, text: str) -> None:
    """Milliseconds below a second, no insignificant digits."""
    assert duration(seconds) == text
