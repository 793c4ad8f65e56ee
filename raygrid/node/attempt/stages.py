"""The values between the steps of an attempt: each step takes one of them and returns the next; see `runner.py`.

They are named tuples, because a frozen dataclass takes more than twice the time. They do not change; `Running`, which
the watchdog shares with the attempt, and the job directory do.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from raygrid.core.sandbox_state import SandboxState
from raygrid.models import AttemptId, AttemptReport, JobSpec
from raygrid.node.attempt.directory import JobDirectory
from raygrid.node.attempt.outputs import OutputFile
from raygrid.node.attempt.usage import ProcessEnd, Usage
from raygrid.node.limits.running import Running
from raygrid.node.sandbox.no_sandbox import NoSandbox
from raygrid.node.shared_data import DataLink
from raygrid.settings.pricer import Pricer


class PreparedAttempt(NamedTuple):
    """An attempt whose directory contains the input and shared inputs (`data_links`).

    `slot` is its slot's number, `box` the sandbox in which its pricer runs.
    """

    attempt: AttemptId
    spec: JobSpec
    pricer: Pricer
    slot: int
    directory: JobDirectory
    box: NoSandbox
    data_links: Sequence[DataLink] = ()

    @property
    def sandbox(self) -> SandboxState:
        """What keeps its pricer from harming the grid."""
        return self.box.state

    @property
    def input_path(self) -> str:
        """The path of its input."""
        return self.directory.path_of(self.spec.filename)

    @property
    def is_warm(self) -> bool:
        """Whether a warm process runs it."""
        return self.pricer.mode == "warm"


class ProcessedAttempt(NamedTuple):
    """An attempt whose pricer has ended, or has answered."""

    prepared: PreparedAttempt
    running: Running
    end: ProcessEnd
    started_at: datetime
    ended_at: datetime


class JudgedAttempt(NamedTuple):
    """An attempt with the outcome of its process, before its files are collected."""

    prepared: PreparedAttempt
    running: Running
    usage: Usage
    report: AttemptReport


class CollectedAttempt(NamedTuple):
    """An attempt with its captured output and files; its report takes missing and bad files into account."""

    judged: JudgedAttempt
    report: AttemptReport
    captures: Sequence[OutputFile]
    files: Sequence[OutputFile]


class ResultZip(NamedTuple):
    """A finished ZIP: in memory if it is small, else in a file; `chunks` are digests of a large ZIP's chunks."""

    size: int
    digest: str
    data: bytes | None
    path: Path | None
    chunks: bytes | None = None


class FinishedAttempt(NamedTuple):
    """An attempt that has ended on this node; its ZIP, if there is one, is not stored yet."""

    report: AttemptReport
    zip: ResultZip | None = None
