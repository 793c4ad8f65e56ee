"""The values that the steps of an attempt hand on: each step takes one of them and returns the next.

They are named tuples, because a frozen dataclass takes more than twice the time, and are never changed. What changes
while a pricer runs is `Running`, which the watchdog shares with the attempt, and the job directory, which only its own
methods change. `runner.py` has the steps in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from raygrid.models import AttemptId, AttemptReport, JobSpec
from raygrid.node.attempt.directory import JobDirectory
from raygrid.node.attempt.outputs import OutputFile
from raygrid.node.attempt.usage import ProcessEnd, Usage
from raygrid.node.limits.running import Running
from raygrid.node.shared_data import DataLink
from raygrid.settings.pricer import Pricer


class PreparedAttempt(NamedTuple):
    """An attempt that has all that its pricer needs.

    Attributes:
        attempt: the attempt.
        spec: its job, with the definition that it runs.
        pricer: what runs.
        slot: number of the slot that it has.
        directory: its directory, with the input in it.
        data_links: the shared inputs in it.
    """

    attempt: AttemptId
    spec: JobSpec
    pricer: Pricer
    slot: int
    directory: JobDirectory
    data_links: Sequence[DataLink] = ()

    @property
    def input_path(self) -> str:
        """The path of its input."""
        return self.directory.path_of(self.spec.filename)

    @property
    def is_warm(self) -> bool:
        """Whether a loaded process runs it."""
        return self.pricer.mode == "warm"


class ProcessedAttempt(NamedTuple):
    """An attempt whose pricer has ended, or has answered.

    Attributes:
        prepared: the attempt.
        running: how it ran, and why it was killed if it was.
        end: how its process ended.
        started_at: when it was started.
        ended_at: when it had ended.
    """

    prepared: PreparedAttempt
    running: Running
    end: ProcessEnd
    started_at: datetime
    ended_at: datetime


class JudgedAttempt(NamedTuple):
    """An attempt with the outcome of its process.

    Attributes:
        prepared: the attempt.
        running: how it ran.
        usage: what it used.
        report: its outcome, without a result.
    """

    prepared: PreparedAttempt
    running: Running
    usage: Usage
    report: AttemptReport


class CollectedAttempt(NamedTuple):
    """An attempt with the files of its result; what they lack has become part of its report.

    Attributes:
        judged: the attempt.
        report: its outcome.
        captures: what it printed.
        files: what it wrote.
    """

    judged: JudgedAttempt
    report: AttemptReport
    captures: Sequence[OutputFile]
    files: Sequence[OutputFile]


class ResultZip(NamedTuple):
    """A finished ZIP: its bytes where it is small, else a file; `chunks` are digests of a large one's chunks."""

    size: int
    digest: str
    data: bytes | None
    path: Path | None
    chunks: bytes | None = None


class FinishedAttempt(NamedTuple):
    """An attempt that is over on this node; its ZIP, if it has one, is not stored yet."""

    report: AttemptReport
    zip: ResultZip | None = None
