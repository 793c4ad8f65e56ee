"""The history checker: it finds every kind of violation, and none in a history without one."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raygrid.drill.history import ClientHistory, Wrong, check
from raygrid.models import JobState

QUEUED, RUNNING, DONE, FAILED = JobState.QUEUED, JobState.RUNNING, JobState.DONE, JobState.FAILED
ENDS = (DONE, FAILED, JobState.CANCELLED)


def kinds(history: ClientHistory, final: dict[str, JobState], **options: bool) -> set[Wrong]:
    return {violation.kind for violation in check(history, final, **options)}


def acknowledged(job_id: str = "j", expected: str | None = None) -> ClientHistory:
    history = ClientHistory()
    history.submitted(job_id, "input", expected=expected)
    history.acknowledged(job_id, 2.0)
    return history


def honest(seed: int, jobs: int = 5) -> tuple[ClientHistory, dict[str, JobState]]:
    """A correct history, with re-queues, overlapping questions and failed requests."""
    rng = random.Random(seed)
    history, final = ClientHistory(), {}
    for number in range(jobs):
        job_id, at = f"job-{number}", rng.uniform(0, 10)
        history.submitted(job_id, f"input-{number}", expected=rng.choice([None, f"result-{number}"]))
        if rng.random() < 0.1:
            history.error(job_id, "no answer", at + 60)
            continue
        history.acknowledged(job_id, at + 0.1)
        for _ in range(rng.randrange(4)):  # attempts that were lost
            for state in (QUEUED, RUNNING):
                at += rng.random()
                if rng.random() < 0.7:
                    history.saw(job_id, state, at, at - rng.random() / 10)
        end = rng.choice([DONE, DONE, DONE, FAILED])
        ended_at = at + 1
        history.saw(job_id, end, ended_at + 0.2)
        if rng.random() < 0.5:  # a question that was pending when the job ended
            history.saw(job_id, RUNNING, ended_at + 0.5, ended_at - 0.1)
        if end is DONE:
            for again in range(rng.randrange(1, 3)):
                history.result(job_id, f"result-{number}", ended_at + 1 + again, attempt=2)
        final[job_id] = end
    return history, final


@given(st.integers())
def test_a_history_without_a_defect_has_no_violation(seed: int) -> None:
    """Whatever clients see of it, in whatever order answers come."""
    assert check(*honest(seed)) == []


Defect = Callable[[ClientHistory, dict[str, JobState], str], None]


def _drop(history: ClientHistory, final: dict[str, JobState], job_id: str) -> None:
    del final[job_id]


def _hang(history: ClientHistory, final: dict[str, JobState], job_id: str) -> None:
    final[job_id] = QUEUED


def _other_end(history: ClientHistory, final: dict[str, JobState], job_id: str) -> None:
    final[job_id] = next(end for end in ENDS if end is not final[job_id])


def _run_after_end(history: ClientHistory, final: dict[str, JobState], job_id: str) -> None:
    history.saw(job_id, RUNNING, 1001.0, 1000.0)


def _other_result(history: ClientHistory, final: dict[str, JobState], job_id: str) -> None:
    history.result(job_id, "another", 1000.0)
    history.result(job_id, "yet another", 1000.0)


def _other_attempt(history: ClientHistory, final: dict[str, JobState], job_id: str) -> None:
    history.result(job_id, f"result-{job_id.rpartition('-')[2]}", 1000.0, attempt=1)
    history.result(job_id, f"result-{job_id.rpartition('-')[2]}", 1000.0, attempt=2)


def _other_input(history: ClientHistory, final: dict[str, JobState], job_id: str) -> None:
    history.submitted(job_id, "another input")
    history.acknowledged(job_id, 1001.0, "another input")
    history.acknowledged(job_id, 1001.0, f"input-{job_id.rpartition('-')[2]}")


def _wrong(history: ClientHistory, final: dict[str, JobState], job_id: str) -> None:
    history.submitted(job_id, f"input-{job_id.rpartition('-')[2]}", expected="what it should be")
    history.result(job_id, "what it is", 1001.0)


DEFECTS: dict[Defect, Wrong] = {
    _drop: Wrong.MISSING,
    _hang: Wrong.UNFINISHED,
    _other_end: Wrong.BACKWARDS,
    _run_after_end: Wrong.BACKWARDS,
    _other_result: Wrong.CHANGED_RESULT,
    _other_attempt: Wrong.TWO_RESULTS,
    _other_input: Wrong.TWO_RESULTS,
    _wrong: Wrong.WRONG_RESULT,
}


@pytest.mark.parametrize("plant", DEFECTS, ids=lambda plant: plant.__name__.strip("_"))
@given(seed=st.integers(), choice=st.randoms(use_true_random=False))
def test_every_planted_defect_is_found_in_its_job_and_in_no_other(
    plant: Defect, seed: int, choice: random.Random
) -> None:
    """A single defect among correct jobs is found with its kind, in that job alone."""
    history, final = honest(seed)
    if not final:
        return
    job_id = choice.choice(sorted(final))
    plant(history, final, job_id)
    found = check(history, final)
    assert DEFECTS[plant] in {violation.kind for violation in found}
    assert {violation.job_id for violation in found} == {job_id}


def test_running_may_become_queued_again() -> None:
    """After a lost attempt a job waits again; that violates no guarantee."""
    history = acknowledged()
    for at, state in enumerate((QUEUED, RUNNING, QUEUED, QUEUED, RUNNING, QUEUED, DONE)):
        history.saw("j", state, float(at))

    assert check(history, {"j": DONE}) == []


def test_a_job_that_was_never_acknowledged_may_be_missing() -> None:
    """A job without an acknowledgement is promised nothing."""
    history = ClientHistory()
    history.submitted("j", "input")
    history.error("j", "no answer", 61.0)
    assert check(history, {}) == []
    assert history.errors == [("j", 61.0, "no answer")]


def test_answers_that_overtake_one_another_are_no_violation() -> None:
    """A question that was asked before the end may be answered late; one that was asked after it may not."""
    history = acknowledged()
    history.saw("j", DONE, 10.0, 9.0)
    history.saw("j", RUNNING, 11.0, 9.9)
    assert check(history, {"j": DONE}) == []
    history.saw("j", RUNNING, 12.0, 10.1)
    assert kinds(history, {"j": DONE}) == {Wrong.BACKWARDS}


def test_two_ends_are_wrong_in_any_order() -> None:
    """A job cannot be done and failed, whatever the order of questions."""
    history = acknowledged()
    history.saw("j", FAILED, 10.0, 1.0)
    history.saw("j", DONE, 10.0, 1.0)
    assert kinds(history, {"j": DONE}) == {Wrong.BACKWARDS}
    assert kinds(history, {"j": FAILED}) == {Wrong.BACKWARDS}


def test_a_result_of_a_job_that_is_not_done_is_a_step_backwards() -> None:
    """The client has read a result that the grid does not confirm."""
    history = acknowledged()
    history.result("j", "r", 3.0)
    assert kinds(history, {"j": RUNNING}, must_have_ended=False) == {Wrong.BACKWARDS}


def test_the_caller_decides_whether_jobs_must_have_ended() -> None:
    """While a load goes on, jobs may be unfinished."""
    history = acknowledged()
    assert kinds(history, {"j": RUNNING}, must_have_ended=False) == set()
    assert kinds(history, {"j": RUNNING}) == {Wrong.UNFINISHED}


def test_threads_may_share_a_history() -> None:
    """No record of concurrent threads is lost."""
    history = ClientHistory()

    def record(number: int) -> None:
        for each in range(200):
            job_id = f"{number}-{each}"
            history.submitted(job_id, "i")
            history.acknowledged(job_id, 1.0)
            history.saw("shared", RUNNING, float(each))

    threads = [threading.Thread(target=record, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(history.acknowledged_jobs) == 800
    assert len(check(history, {})) == 800
