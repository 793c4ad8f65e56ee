"""The warm protocol: what a warm pricer prints. The first byte is the size of the pieces in which it arrives."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from raygrid.models import AttemptId
from raygrid.node.limits.running import Running
from raygrid.node.warm.conversation import Conversation
from raygrid.node.warm.protocol import MOST_MESSAGE, AnswerReader, BadAnswerError, WarmAnswer
from security.fuzzers.target import Target, pieces

NUMBER = 1  # of the job that the answers are for
LIMIT = 256  # of printed bytes that are no answer
MOST_PRINTED = 32 * 1024  # fits into a pipe


def _answer(chunks: Iterable[bytes]) -> WarmAnswer | str | None:
    reader = AnswerReader(NUMBER)
    for chunk in chunks:
        try:
            if (answer := reader.feed(chunk)) is not None:
                return answer
        except BadAnswerError as error:
            return str(error)
    return None


def _conversation(data: bytes) -> WarmAnswer | None:
    """A conversation over real pipes with a process that prints these bytes, reads the job and ends."""
    job, stdin = os.pipe()
    stdout, printed = os.pipe()
    try:
        os.write(printed, data)
        os.close(printed)
        running = Running(AttemptId("job", 1), time.monotonic(), 60.0, None, LIMIT, ())
        talk = Conversation(stdin, stdout, lambda: bool(os.read(job, 64)))
        answer, _ = talk.ask(NUMBER, b"{}\n", running, lambda: None)
        talk.drop_stale()
        return answer
    finally:
        for descriptor in (job, stdin, stdout):
            os.close(descriptor)


def read(data: bytes) -> None:
    """Find the answer in what was printed, at once, in pieces, and from a pipe."""
    size, printed = (data[0] or 1, data[1 : 1 + MOST_PRINTED]) if data else (1, data)
    whole = _answer([printed])
    assert whole == _answer(pieces(printed, size)), "the answer depends on how it arrives"
    answer = _conversation(printed)
    assert not isinstance(whole, WarmAnswer) or answer == whole, "the answer is lost in the pipe"
    if isinstance(whole, WarmAnswer):
        assert 0 <= whole.wait_status < 1 << 16
        message = whole.message or ""
        assert "\0" not in message, "a database cannot store this message"
        message.encode()
        assert len(message) <= 10 * MOST_MESSAGE  # escapes are longer than what they stand for


TARGET = Target(read, ())
