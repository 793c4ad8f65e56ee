"""Collects the files of a result after the pricer has ended.

A success becomes a failure if its files are invalid or too large, or if an expected file is missing. The message of a
failure under `strict` states what the sandbox probably refused.
"""

from __future__ import annotations

from dataclasses import replace

from raygrid.models import AttemptReport, Outcome
from raygrid.node.attempt.captures import STDERR_TAIL
from raygrid.node.attempt.outputs import OutputFile
from raygrid.node.attempt.safe_paths import BadOutputError
from raygrid.node.attempt.stages import CollectedAttempt, JudgedAttempt, PreparedAttempt
from raygrid.node.sandbox import refusal
from raygrid.settings import expected_files

_OF_PROGRAMS = (Outcome.EXITED, Outcome.SIGNAL, Outcome.MISSING_OUTPUT)
_NO_CAPTURES = tuple(OutputFile(name, -1, "", 0) for name in ("stdout.txt", "stderr.txt"))


def collect(judged: JudgedAttempt) -> CollectedAttempt:
    """Collect captured output and files; OSError if a parent of the job directory was replaced."""
    directory, pricer, report = judged.prepared.directory, judged.prepared.pricer, judged.report
    captures: list[OutputFile] = []
    files: list[OutputFile] = []
    for capture, empty in zip(directory.captures, _NO_CAPTURES, strict=True):
        try:
            captures.append(capture.printed())
        except BadOutputError as error:
            captures.append(empty)
            report = _with_bad_output(report, str(error))
    try:
        files = directory.outputs()
    except BadOutputError as error:
        report = _with_bad_output(report, str(error))
    written = sum([file.size for file in captures]) + sum([file.size for file in files])
    if written > pricer.output or report.outcome is Outcome.OUTPUT_LIMIT:
        if report.outcome in (Outcome.EXITED, Outcome.SIGNAL):
            message = f"its files have {written} bytes, holes included, and its limit is {pricer.output}"
            report = replace(report, outcome=Outcome.OUTPUT_LIMIT, message=message)
        return cut(CollectedAttempt(judged, report, captures, files), report)
    if pricer.expect and _is_success(report):
        left = [(file.name, file.size) for file in files]
        if missing := expected_files.missing_files(pricer.expect, left):
            message = expected_files.missing_message(missing, left)
            report = replace(report, outcome=Outcome.MISSING_OUTPUT, message=message)
    if judged.prepared.sandbox.mode == "strict":
        report = _with_refusal(report, judged.prepared)
    return CollectedAttempt(judged, report, captures, files)


def without_files(collected: CollectedAttempt, error: Exception) -> CollectedAttempt:
    """The attempt without files, because one cannot be read; a success becomes a failure.

    This is final: a process that the pricer left may have removed the file, and would do so on another node, too.
    """
    if isinstance(error, BadOutputError):
        why = str(error)
    else:
        why = f"the pricer left a file that cannot be read: {type(error).__name__}"
    return CollectedAttempt(collected.judged, _with_bad_output(collected.report, why), _NO_CAPTURES, [])


def cut(collected: CollectedAttempt, report: AttemptReport) -> CollectedAttempt:
    """The attempt reduced because it wrote too much: the beginning of its captured output remains, but no file."""
    most = min(collected.judged.prepared.pricer.output, STDERR_TAIL)
    captures = [each._replace(size=min(each.size, most)) for each in collected.captures]
    return CollectedAttempt(collected.judged, report, captures, [])


def _is_success(report: AttemptReport) -> bool:
    return report.outcome is Outcome.EXITED and report.exit_code == 0


def _with_refusal(report: AttemptReport, prepared: PreparedAttempt) -> AttemptReport:
    """A failure's message gets what the sandbox probably refused."""
    plan = prepared.box.plan
    if plan is None or report.outcome not in _OF_PROGRAMS or _is_success(report):
        return report
    message, captures = report.message or "", prepared.directory.captures
    for printed in (f"{message}\n{captures.stderr.tail()}", captures.stdout.tail()):
        if why := refusal.explain(prepared.spec.pricer, prepared.pricer, plan, printed):
            return replace(report, message=f"{message}. {why}")
    return report


def _with_bad_output(report: AttemptReport, why: str) -> AttemptReport:
    """A success becomes a failure; a failure keeps its own reason."""
    return replace(report, outcome=Outcome.BAD_OUTPUT, message=why) if _is_success(report) else report
