"""What a failed job's error says: what happened, and the last lines of stderr, which mostly say why.

Who looks at an exception, in a notebook or a log, sees its text and nothing else. The command line shows the same lines
in its own way.
"""

from __future__ import annotations

import copy

from raygrid.errors import JobFailedError, RaygridError

_LINES = 10
_LINE = 300
_CHARACTERS = 1_000


def last_lines(stderr: str) -> list[str]:
    """The last lines of what a pricer wrote to its stderr, indented; what is left out is a `…`.

    They are at most ten, of a thousand characters together; each is cut where it is very long.
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


def placed(error: RaygridError, *, index: int, name: str, job_id: str, batch_id: str) -> RaygridError:
    """The same error with the place of the job in its map or batch, which is what one looks for first.

    Args:
        error: how the job ended.
        index: of the input, counted from 0 as Python counts.
        name: what the input is called.
        job_id: the job.
        batch_id: the batch.
    """
    what, _, rest = str(error).partition(f"job {job_id} failed: ")
    said = rest if rest and not what else str(error)
    text = f"input {index} ({name}), job {job_id}, batch {batch_id}: {said}"
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
    said: str | None = None,
    has_result: bool = False,
) -> JobFailedError:
    """The error of a failed job, with the last lines of its stderr in the text.

    Args:
        message: what happened.
        job_id: the job.
        reason: see `JobFailedError`, as for the two that follow.
        exit_code: see there.
        stderr_tail: see there.
        has_result: see there.
        said: what the text says instead of the message, where that does not say which job it was.
    """
    said = said or message
    lines = last_lines(stderr_tail or "")
    return JobFailedError(
        message,
        job_id=job_id,
        reason=reason,
        exit_code=exit_code,
        stderr_tail=stderr_tail,
        text="\n".join((f"{said}; its stderr ends with:", *lines)) if lines else said,
        has_result=has_result,
    )
