"""The protocol between a node and a warm pricer: a JSON line for each job, a JSON line for each answer.

Pure: bytes in, values out. `docs/guides/warm-pricers.md` describes it for authors of pricers; `raygrid/pricer.py` is
the other side of it for Python.
"""

from __future__ import annotations

import json
import select
from dataclasses import dataclass

from raygrid.node.attempt.stages import PreparedAttempt

MOST_LINE = 64 * 1024  # bytes of an answer
MOST_MESSAGE = 1_000
_MOST_EXIT_CODE = 255
_MOST_SIGNAL = 64


class BadAnswerError(Exception):
    """An answer to the current job that is invalid."""


@dataclass(frozen=True, slots=True)
class WarmAnswer:
    """A warm pricer's answer to a job: an exit code, or the signal that its own child died of."""

    exit_code: int
    signal: int | None = None
    message: str | None = None

    @property
    def wait_status(self) -> int:
        """The wait status that a process of the job's own would have had."""
        return self.exit_code << 8 if self.signal is None else self.signal


def request(number: int, prepared: PreparedAttempt) -> bytes:
    """The line that gives a job to a warm pricer."""
    spec, directory = prepared.spec, prepared.directory
    data = [{"name": each.name, "path": str(directory.data / each.name), "sha256": each.digest} for each in spec.data]
    job = {
        "number": number,
        "job_id": spec.job_id,
        "attempt": prepared.attempt.number,
        "input": prepared.input_path,
        "output_dir": str(directory.path),
        "data_dir": str(directory.data),
        "stdout": directory.captures.stdout.where,
        "stderr": directory.captures.stderr.where,
        "args": list(spec.args),
        "data": data,
        "tmp_dir": directory.temporary.where,
        "slot": prepared.slot,
    }
    return json.dumps(job, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"


class AnswerReader:
    """Finds the answer to one job in what a process prints; keeps one line at most.

    Attributes:
        dropped: bytes read so far that were no answer, half a line included.
        is_mid_line: whether what was read last ends within a line that the process may not have finished; see `is_cut`.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._line = b""
        self._skips = False
        self.dropped = 0
        self.is_mid_line = False

    def feed(self, data: bytes) -> WarmAnswer | None:
        """Read further bytes; those after the answer are ignored.

        Raises:
            BadAnswerError: the answer to this job is invalid, or too long.
        """
        self.dropped += len(data)
        self.is_mid_line = is_cut(data)
        first, *others = data.split(b"\n")
        pieces = [self._line + first, *others]
        self._line = pieces.pop()
        for line in pieces:
            skipped, self._skips = self._skips, False
            if not skipped and not _is_too_long(line) and (answer := parse(line, self._number)) is not None:
                return answer
        if len(self._line) > MOST_LINE:
            if not self._skips:  # else it is the rest of a line
                _is_too_long(self._line)
            self._line, self._skips = b"", True
        return None


def is_cut(data: bytes) -> bool:
    """Whether bytes end within a line that the program may not have finished.

    The kernel writes up to PIPE_BUF bytes into a pipe at once, so a shorter rest was printed as it is.
    """
    return len(data) - data.rfind(b"\n") > select.PIPE_BUF


def _is_too_long(line: bytes) -> bool:
    """Whether a line can be dropped unread.

    Raises:
        BadAnswerError: it begins like an answer; if it were dropped, the job would hang without a reason.
    """
    if len(line) <= MOST_LINE:
        return False
    if line.lstrip().startswith(b"{"):
        raise BadAnswerError(
            f"the warm pricer answered with a line of more than {MOST_LINE} bytes; an answer must not be longer"
        )
    return True


def parse(line: bytes, number: int) -> WarmAnswer | None:
    """The answer in a line; None where the line is no answer to the job of this number.

    Raises:
        BadAnswerError: the answer is invalid.
    """
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict) or type(answer.get("number")) is not int or answer["number"] != number:
        return None
    code, killed_by, message = answer.get("exit_code"), answer.get("signal"), answer.get("message")
    text = None if message is None else str(message)[:MOST_MESSAGE].encode(errors="replace").decode().replace("\0", " ")
    if killed_by is not None:
        if type(killed_by) is not int or not 0 < killed_by <= _MOST_SIGNAL:
            raise BadAnswerError(f"the warm pricer answered with signal {killed_by!r}; that is no signal")
        return WarmAnswer(0, killed_by, text)
    if type(code) is not int or not 0 <= code <= _MOST_EXIT_CODE:
        raise BadAnswerError(f"the warm pricer answered with exit_code {code!r}; it must be a number from 0 to 255")
    return WarmAnswer(code, None, text)
