"""The protocol between a node and a warm pricer: a JSON line for each job, a JSON line for each answer.

Pure: bytes in, values out. `docs/guides/warm-pricers.md` describes it for authors of pricers; `raygrid/pricer.py`
implements the pricer's side in Python.
"""

from __future__ import annotations

import json
import select
from dataclasses import dataclass

from raygrid.node.attempt.stages import PreparedAttempt
from raygrid.system.control_characters import escape_control_characters

MOST_LINE = 64 * 1024  # bytes of an answer
MOST_MESSAGE = 1_000
_MOST_EXIT_CODE = 255
_MOST_SIGNAL = 64


class BadAnswerError(Exception):
    """An answer to the current job that is invalid."""


@dataclass(frozen=True, slots=True)
class WarmAnswer:
    """A warm pricer's answer to a job: an exit code, or the signal that killed its own child."""

    exit_code: int
    signal: int | None = None
    message: str | None = None

    @property
    def wait_status(self) -> int:
        """The wait status of a cold pricer with the same end."""
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
        "output_dir": directory.handle.path,
        "data_dir": str(directory.data),
        "stdout": directory.captures.stdout.path,
        "stderr": directory.captures.stderr.path,
        "args": list(spec.args),
        "data": data,
        "tmp_dir": directory.temporary.path,
        "slot": prepared.slot,
    }
    return json.dumps(job, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"


class AnswerReader:
    """Finds the answer to one job in what a process prints; keeps at most one line.

    Attributes:
        dropped: bytes that were read and are no answer, including an unfinished line.
        is_mid_line: whether the last bytes end within an unfinished line; see `is_cut`.
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
            if not self._skips:  # else this is the rest of a line
                _is_too_long(self._line)
            self._line, self._skips = b"", True
        return None


def is_cut(data: bytes) -> bool:
    """Whether bytes end within a line that the program may not have finished.

    The kernel writes up to PIPE_BUF bytes into a pipe at once, so a shorter rest is all that the program printed.
    """
    return len(data) - data.rfind(b"\n") > select.PIPE_BUF


def _is_too_long(line: bytes) -> bool:
    """Whether a line is too long to be an answer.

    Raises:
        BadAnswerError: it begins like an answer; without this error, the job would hang.
    """
    if len(line) <= MOST_LINE:
        return False
    if line.lstrip().startswith(b"{"):
        raise BadAnswerError(
            f"the warm pricer answered with a line of more than {MOST_LINE} bytes; an answer must not be longer"
        )
    return True


def parse(line: bytes, number: int) -> WarmAnswer | None:
    """The answer in a line; None if the line is no answer to the job with this number.

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
    text = None if message is None else _readable(str(message)[:MOST_MESSAGE])
    if killed_by is not None:
        if type(killed_by) is not int or not 0 < killed_by <= _MOST_SIGNAL:
            raise BadAnswerError(f"the warm pricer answered with signal {killed_by!r}; this signal does not exist")
        return WarmAnswer(0, killed_by, text)
    if type(code) is not int or not 0 <= code <= _MOST_EXIT_CODE:
        raise BadAnswerError(f"the warm pricer answered with exit_code {code!r}; it must be a number from 0 to 255")
    return WarmAnswer(code, None, text)


def _readable(message: str) -> str:
    """A pricer's message as people and databases can read it."""
    return escape_control_characters(message.encode(errors="replace").decode().replace("\0", " "))
