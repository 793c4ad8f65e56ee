"""What clients saw of their jobs, and whether that is possible in a grid that keeps its guarantees.

Pure: times are arguments, in seconds of whichever clock the observer has, as long as it is one clock. Drills, fault
tests, the soak and the simulator record into a `ClientHistory`; `check` decides over it.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from raygrid.core.lifecycle import TERMINAL
from raygrid.models import JobState


class Wrong(StrEnum):
    """The ways in which a grid can violate its guarantees."""

    MISSING = "missing"
    """An acknowledged job that the grid does not know at the end."""
    UNFINISHED = "unfinished"
    """An acknowledged job that has not ended, though there was time enough."""
    BACKWARDS = "backwards"
    """A job that was seen to have ended, and later in another state."""
    CHANGED_RESULT = "changed_result"
    """A job whose result was read twice, and differed."""
    TWO_RESULTS = "two_results"
    """A job id that stands for two jobs: two inputs acknowledged, or results of two attempts visible."""
    WRONG_RESULT = "wrong_result"
    """A result that is not the one that this input has."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise, in words that name the job and what was seen."""

    job_id: str
    kind: Wrong
    what: str

    def __str__(self) -> str:
        return f"job {self.job_id}: {self.what}"


@dataclass(slots=True)
class _Seen:
    """A run of equal observations: the first answer came at `first_at`, the last question was asked at `asked_at`."""

    value: str
    first_at: float
    asked_at: float


@dataclass(slots=True)
class _Record:
    submitted_at: float | None = None
    inputs: set[str] = field(default_factory=set)
    acknowledged: dict[str, float] = field(default_factory=dict)
    expected: str | None = None
    states: list[_Seen] = field(default_factory=list)
    results: list[_Seen] = field(default_factory=list)
    attempts: set[int] = field(default_factory=set)
    errors: list[tuple[float, str]] = field(default_factory=list)
    conflicts: list[float] = field(default_factory=list)


class ClientHistory:
    """What clients saw; threads may share it.

    An observation is known by when its answer came (`at`) and, where questions overlap, by when it was asked
    (`asked_at`): of two overlapping questions it is unknown which was answered from the later state.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, _Record] = {}

    def submitted(self, job_id: str, input_digest: str, at: float, *, expected: str | None = None) -> None:
        """A client sends a job; `expected` is the digest of the result that this input has, where it is known."""
        with self._lock:
            record = self._record(job_id)
            record.submitted_at = at if record.submitted_at is None else record.submitted_at
            record.inputs.add(input_digest)
            record.expected = expected or record.expected

    def acknowledged(self, job_id: str, at: float, input_digest: str | None = None) -> None:
        """The grid has taken the job; the digest is needed only where a job id was submitted with several inputs."""
        with self._lock:
            record = self._record(job_id)
            digest = input_digest if input_digest is not None else next(iter(sorted(record.inputs)), "")
            record.acknowledged.setdefault(digest, at)

    def saw(self, job_id: str, state: JobState, at: float, asked_at: float | None = None) -> None:
        """The grid reports that a job is in a state."""
        with self._lock:
            _add(self._record(job_id).states, state.value, at, at if asked_at is None else asked_at)

    def result(self, job_id: str, digest: str, at: float, *, attempt: int | None = None) -> None:
        """The grid gives a job's result, of that digest; `attempt` if the result names it."""
        with self._lock:
            record = self._record(job_id)
            _add(record.results, digest, at, at)
            if attempt is not None:
                record.attempts.add(attempt)

    def error(self, job_id: str, what: str, at: float) -> None:
        """A request about a job failed, in spite of retries."""
        with self._lock:
            self._record(job_id).errors.append((at, what))

    def conflict(self, job_id: str, at: float) -> None:
        """The grid refused a submit because the job id belongs to another job."""
        with self._lock:
            self._record(job_id).conflicts.append(at)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._records

    @property
    def acknowledged_jobs(self) -> list[str]:
        """The jobs that the grid has taken, in the order of their first submits."""
        with self._lock:
            return [job_id for job_id, record in self._records.items() if record.acknowledged]

    @property
    def errors(self) -> list[tuple[str, float, str]]:
        """Failed requests: job, when, what."""
        with self._lock:
            return [(job_id, at, what) for job_id, each in self._records.items() for at, what in each.errors]

    @property
    def conflicts(self) -> list[str]:
        """Jobs whose id was refused as another's. That is no violation: the grid keeps what it has."""
        with self._lock:
            return [job_id for job_id, record in self._records.items() if record.conflicts]

    def result_at(self, job_id: str) -> float | None:
        """When a client first had the job's result."""
        with self._lock:
            record = self._records.get(job_id)
            return record.results[0].first_at if record is not None and record.results else None

    def submitted_at(self, job_id: str) -> float | None:
        """When a client first sent the job."""
        with self._lock:
            record = self._records.get(job_id)
            return None if record is None else record.submitted_at

    def requeues(self, job_id: str) -> int:
        """How often the job was seen to go back from running to the queue; allowed, as an attempt may be lost."""
        with self._lock:
            states = [seen.value for seen in self._records[job_id].states] if job_id in self._records else []
        return sum(pair == (JobState.RUNNING, JobState.QUEUED) for pair in itertools.pairwise(states))

    def _record(self, job_id: str) -> _Record:
        return self._records.setdefault(job_id, _Record())

    def _copy(self) -> dict[str, _Record]:
        """The records as they are; those of jobs that are still observed may grow behind it."""
        with self._lock:
            return dict(self._records)


def _add(seen: list[_Seen], value: str, at: float, asked_at: float) -> None:
    """Add an observation; equal ones in a row are kept as one, so that long watches cost no memory."""
    if seen and seen[-1].value == value:
        seen[-1].asked_at = max(seen[-1].asked_at, asked_at)
        seen[-1].first_at = min(seen[-1].first_at, at)
    else:
        seen.append(_Seen(value, at, asked_at))


def check(history: ClientHistory, final: Mapping[str, JobState], *, must_have_ended: bool = True) -> list[Violation]:
    """Decide over a history; an empty list means that no guarantee was violated.

    Args:
        history: what clients saw.
        final: the state of every job that the grid knows at the end.
        must_have_ended: whether every acknowledged job has had time to end.
    """
    found: list[Violation] = []
    for job_id, record in history._copy().items():
        state = final.get(job_id)
        for kind, what in _violations(record, state, must_have_ended):
            found.append(Violation(job_id, kind, what))
    return found


def _violations(record: _Record, final: JobState | None, must_have_ended: bool) -> Iterator[tuple[Wrong, str]]:
    if record.acknowledged:
        if final is None:
            yield Wrong.MISSING, "was acknowledged, and the grid does not know it any more"
        elif must_have_ended and final not in TERMINAL:
            yield Wrong.UNFINISHED, f"was acknowledged, and is still {final.value} at the end"
    yield from _backwards(record, final)
    yield from _two(record)
    digests = [seen.value for seen in record.results]
    if len(set(digests)) > 1:
        yield Wrong.CHANGED_RESULT, f"its result was {_short(digests[0])}, then {_short(digests[1])}"
    if record.expected is not None and (others := [each for each in digests if each != record.expected]):
        yield Wrong.WRONG_RESULT, f"its result is {_short(others[0])} and should be {_short(record.expected)}"


def _backwards(record: _Record, final: JobState | None) -> Iterator[tuple[Wrong, str]]:
    """An end that was seen is the last state that is ever seen. Running may become queued again: a re-queue."""
    ended = [seen for seen in record.states if JobState(seen.value) in TERMINAL]
    if not ended:
        if record.results and final is not None and final not in TERMINAL:
            yield Wrong.BACKWARDS, f"gave a result, and is {final.value} at the end"
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
        yield Wrong.TWO_RESULTS, f"shows results of attempts {', '.join(map(str, sorted(record.attempts)))}"


def _short(digest: str) -> str:
    return digest[:12]


__all__ = ["ClientHistory", "Violation", "Wrong", "check"]
