"""The text of a failed job's error: what happened, and the last lines of stderr, which mostly show the reason.

A notebook or a log shows the text of an exception and nothing else. The command line prints the same lines separately.
"""

from __future__ import annotations

import copy

from raygrid.errors import JobFailedError, RaygridError

_LINES = 10
_LINE = 300
_CHARACTERS = 1_000


def last_lines(stderr: str) -> list[str]:
    """The last lines of a pricer's stderr, indented; a `…` stands for omitted text.

    At most ten lines with 1,000 characters in all; a line is cut after 300 characters.
    """
    lines = stderr.rstrip().splitlines()
    shown: list[str] = []
    left = _CHARACTERS
    for line in reversed(lines[-_LINES:]):
        left -= min(len(line), _LINE)
        if left < 0:
            break
        shown.append(f"    {line}" if len(line) <= _LINE else f"    {line[:_LINE]}…")
    if len(shown) < len(lines):
        shown.append("    …")
    return shown[::-1]


def located(error: RaygridError, *, index: int, name: str, job_id: str, batch_id: str) -> RaygridError:
    """Copy the error of a job and put the input's index (from 0) and name, the job and the batch before its text."""
    message = str(error).removeprefix(f"job {job_id} failed: ")
    text = f"input {index} ({name}), job {job_id}, batch {batch_id}: {message}"
    copied = copy.copy(error)
    copied.args = (text, *error.args[1:])
    return copied


def job_failed(
    message: str,
    *,
    job_id: str,
    reason: str | None,
    exit_code: int | None,
    stderr_tail: str | None,
    text: str | None = None,
    has_result: bool = False,
) -> JobFailedError:
    """Make the error of a failed job, with the last lines of its stderr in the text.

    The arguments are those of `JobFailedError`; `text` replaces a message that does not name the job.
    """
    text = text or message
    lines = last_lines(stderr_tail or "")
    return JobFailedError(
        message,
        job_id=job_id,
        reason=reason,
        exit_code=exit_code,
        stderr_tail=stderr_tail,
        text="\n".join((f"{text}; its stderr ends with:", *lines)) if lines else text,
        has_result=has_result,
    )
