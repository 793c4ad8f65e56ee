"""Records what clients saw of their jobs, and checks whether that violates a guarantee of the grid.

Pure: times are arguments, in seconds of one clock of the observer. Drills, fault tests, the soak and the simulation
record into a `ClientHistory`; `check` returns the violations.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from raygrid.core.lifecycle import TERMINAL
from raygrid.models import JobState


class Wrong(StrEnum):
    """The kinds of violations."""

    MISSING = "missing"
    """The grid does not know an acknowledged job at the end."""
    UNFINISHED = "unfinished"
    """An acknowledged job has not ended, although it had enough time."""
    BACKWARDS = "backwards"
    """A job was seen in a final state, and later in another state."""
    CHANGED_RESULT = "changed_result"
    """Two reads of a job's result differ."""
    TWO_RESULTS = "two_results"
    """Two inputs were acknowledged under one job id, or results of two attempts were visible."""
    WRONG_RESULT = "wrong_result"
    """A result differs from the expected one for its input."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One violation; `what` describes it without the job's name."""

    job_id: str
    kind: Wrong
    what: str

    def __str__(self) -> str:
        return f"job {self.job_id}: {self.what}"


@dataclass(slots=True)
class _Seen:
    """Equal observations in a row: the first answer came at `first_at`, the last request was sent at `asked_at`."""

    value: str
    first_at: float
    asked_at: float


@dataclass(slots=True)
class _Record:
    inputs: set[str] = field(default_factory=set)
    acknowledged: dict[str, float] = field(default_factory=dict)
    expected: str | None = None
    states: list[_Seen] = field(default_factory=list)
    results: list[_Seen] = field(default_factory=list)
    attempts: set[int] = field(default_factory=set)
    errors: list[tuple[float, str]] = field(default_factory=list)


class ClientHistory:
    """What clients saw. Thread-safe.

    An observation has the time of its answer (`at`) and, if requests can overlap, of its request (`asked_at`): the
    order in which the grid answered two overlapping requests is unknown.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, _Record] = {}

    def submitted(self, job_id: str, input_digest: str, *, expected: str | None = None) -> None:
        """A client sends a job; `expected` is the digest of the result for this input, if it is known."""
        with self._lock:
            record = self._record(job_id)
            record.inputs.add(input_digest)
            record.expected = expected or record.expected

    def acknowledged(self, job_id: str, at: float, input_digest: str | None = None) -> None:
        """The grid accepted the job; the digest is needed only if a job id was submitted with several inputs."""
        with self._lock:
            record = self._record(job_id)
            digest = input_digest if input_digest is not None else next(iter(sorted(record.inputs)), "")
            record.acknowledged.setdefault(digest, at)

    def saw(self, job_id: str, state: JobState, at: float, asked_at: float | None = None) -> None:
        """The grid reports that a job is in a state."""
        with self._lock:
            _add(self._record(job_id).states, state.value, at, at if asked_at is None else asked_at)

    def result(self, job_id: str, digest: str, at: float, *, attempt: int | None = None) -> None:
        """The grid returns a job's result with that digest, and with the attempt if the result names it."""
        with self._lock:
            record = self._record(job_id)
            _add(record.results, digest, at, at)
            if attempt is not None:
                record.attempts.add(attempt)

    def error(self, job_id: str, what: str, at: float) -> None:
        """A request about a job failed, in spite of retries."""
        with self._lock:
            self._record(job_id).errors.append((at, what))

    @property
    def acknowledged_jobs(self) -> list[str]:
        """The jobs that the grid accepted, in the order of their first submits."""
        with self._lock:
            return [job_id for job_id, record in self._records.items() if record.acknowledged]

    @property
    def errors(self) -> list[tuple[str, float, str]]:
        """Failed requests: job, time, error."""
        with self._lock:
            return [(job_id, at, what) for job_id, each in self._records.items() for at, what in each.errors]

    def result_at(self, job_id: str) -> float | None:
        """When a client first had the job's result; None if no client has it."""
        with self._lock:
            record = self._records.get(job_id)
            return record.results[0].first_at if record is not None and record.results else None

    def _record(self, job_id: str) -> _Record:
        return self._records.setdefault(job_id, _Record())

    def _copy(self) -> dict[str, _Record]:
        """The present records; those of unfinished jobs may still change."""
        with self._lock:
            return dict(self._records)


def _add(seen: list[_Seen], value: str, at: float, asked_at: float) -> None:
    """Add an observation; equal ones in a row are merged, so that long observation needs no memory."""
    if seen and seen[-1].value == value:
        seen[-1].asked_at = max(seen[-1].asked_at, asked_at)
        seen[-1].first_at = min(seen[-1].first_at, at)
    else:
        seen.append(_Seen(value, at, asked_at))


def check(history: ClientHistory, final: Mapping[str, JobState], *, must_have_ended: bool = True) -> list[Violation]:
    """The violations in a history.

    `final` has the state of every job that the grid knows at the end; `must_have_ended` is whether every acknowledged
    job has had time to end.
    """
    return [
        Violation(job_id, kind, what)
        for job_id, record in history._copy().items()
        for kind, what in _violations(record, final.get(job_id), must_have_ended)
    ]


def _violations(record: _Record, final: JobState | None, must_have_ended: bool) -> Iterator[tuple[Wrong, str]]:
    if record.acknowledged:
        if final is None:
            yield Wrong.MISSING, "was acknowledged, and is unknown to the grid at the end"
        elif must_have_ended and final not in TERMINAL:
            yield Wrong.UNFINISHED, f"was acknowledged, and is still {final.value} at the end"
    yield from _backwards(record, final)
    yield from _two(record)
    digests = [seen.value for seen in record.results]
    if len(set(digests)) > 1:
        yield Wrong.CHANGED_RESULT, f"its result was {_short(digests[0])}, then {_short(digests[1])}"
    if record.expected is not None and (others := [each for each in digests if each != record.expected]):
        yield Wrong.WRONG_RESULT, f"its result is {_short(others[0])}, but should be {_short(record.expected)}"


def _backwards(record: _Record, final: JobState | None) -> Iterator[tuple[Wrong, str]]:
    """Checks that a final state, once seen, is the last one. `running` may become `queued` again: a lost attempt."""
    ended = [seen for seen in record.states if JobState(seen.value) in TERMINAL]
    if not ended:
        if record.results and final is not None and final not in TERMINAL:
            yield Wrong.BACKWARDS, f"had a result, and is {final.value} at the end"
        return
    if len({seen.value for seen in ended}) > 1:
        yield Wrong.BACKWARDS, f"was {ended[0].value}, then {next(s for s in ended if s.value != ended[0].value).value}"
        return
    first = min(ended, key=lambda seen: seen.first_at)
    for seen in record.states:
        if seen.value != first.value and seen.asked_at >= first.first_at:
            yield Wrong.BACKWARDS, f"was {first.value}, and later {seen.value}"
            return
    if final is not None and final.value != first.value:
        yield Wrong.BACKWARDS, f"was {first.value}, and is {final.value} at the end"


def _two(record: _Record) -> Iterator[tuple[Wrong, str]]:
    if len(record.acknowledged) > 1:
        yield Wrong.TWO_RESULTS, f"was acknowledged with {len(record.acknowledged)} different inputs"
    if len(record.attempts) > 1:
        yield Wrong.TWO_RESULTS, f"has results of attempts {', '.join(map(str, sorted(record.attempts)))}"


def _short(digest: str) -> str:
    return digest[:12]
