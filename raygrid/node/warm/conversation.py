"""The pipes of a warm process: it reads jobs from stdin and writes answers to stdout. Neither pipe blocks the agent."""

from __future__ import annotations

import array
import fcntl
import os
import select
import termios
import time
from collections.abc import Callable

from raygrid.models import Outcome
from raygrid.node.limits.running import Running
from raygrid.node.warm.protocol import AnswerReader, BadAnswerError, WarmAnswer, is_cut

LOOK_S = 0.2  # while a child keeps the pipe open, the end of the process is noticed with this delay
FIRST_LOOK_S = 0.001  # after this, and then ever later, the process is asked whether it has loaded
MOST_STALE = 64 * 1024  # the capacity of a pipe
MOST_AFTER_END = 1024**2
ENDS_S = 1.0  # the time in which a process must end after it closed its stdout
_CHUNK = 64 * 1024


class Conversation:
    """The pipes of one process, used by one thread at a time: the agent's ends of its stdin and stdout."""

    def __init__(self, stdin: int, stdout: int, has_exited: Callable[[], bool]) -> None:
        self._in = stdin
        self._out = stdout
        self._has_exited = has_exited
        self._has_loaded = False
        self._is_mid_line = False  # whether the last bytes that were read end within an unfinished line
        os.set_blocking(stdin, False)
        os.set_blocking(stdout, False)

    def ask(
        self, number: int, line: bytes, running: Running, loaded: Callable[[], None]
    ) -> tuple[WarmAnswer | None, int]:
        """Send the line of a job and wait for the answer; kill the attempt if the process prints an invalid one.

        Of the first line only one byte is sent until the process has read it: then it waits for the rest, so that it
        has loaded and has not begun the job. `loaded` is called at that moment.

        Returns:
            The answer, None if the process ended without one; and how many bytes of the line were written.
        """
        reader = AnswerReader(number)
        rest, written = memoryview(line), 0
        is_loading, loading_for_s = not self._has_loaded, 0.0
        closed_at: float | None = None
        poll = select.poll()
        poll.register(self._in, select.POLLOUT)
        poll.register(self._out, select.POLLIN)
        while True:
            wait_s = LOOK_S if closed_at is None else ENDS_S / 20
            if is_loading and written:
                loading_for_s = min(LOOK_S / 10, loading_for_s + FIRST_LOOK_S)
                wait_s = loading_for_s
            ready = {descriptor for descriptor, _ in poll.poll(1000 * wait_s)}
            if self._in in ready:
                try:
                    count = os.write(self._in, rest[:1] if is_loading else rest)
                    rest, written = rest[count:], written + count
                except BlockingIOError:
                    pass
                except BrokenPipeError:
                    rest = rest[:0]
                if not rest or is_loading:
                    poll.unregister(self._in)
            if is_loading and written and not self.unread():
                loaded()
                is_loading, self._has_loaded = False, True
                poll.register(self._in, select.POLLOUT)
            if self._out in ready:
                data = self._read()
                if data == b"":
                    poll.unregister(self._out)
                    closed_at = time.monotonic()
                elif data and (answer := _answer_in(reader, data, running)):
                    self._is_mid_line = reader.is_mid_line
                    return answer, written
            if self._has_exited():
                return self._answer_after_end(reader, running), written
            if closed_at is not None and time.monotonic() > closed_at + ENDS_S:
                running.fail(Outcome.BAD_OUTPUT, "the warm pricer closed its stdout: the job ended without an answer")

    def _answer_after_end(self, reader: AnswerReader, running: Running) -> WarmAnswer | None:
        """The answer in what the process printed before it ended."""
        for _ in range(MOST_AFTER_END // _CHUNK):  # other processes may still print into the pipe
            data = self._read()
            if not data:
                break
            if answer := _answer_in(reader, data, running):
                return answer
        return None

    def drop_stale(self) -> bool:
        """Drop what was printed since the last answer; return whether the process can take a job.

        It cannot if that filled the pipe or ends within a line: the next answer would be appended to an unfinished
        line and not be found, and the next job would fail.
        """
        stale = 0
        while stale < MOST_STALE:
            data = self._read()
            if not data:
                return not self._is_mid_line
            self._is_mid_line = is_cut(data)
            stale += len(data)
        return False

    def unread(self) -> int:
        """Bytes that were written to the process, but that it has not read."""
        count = array.array("i", [0])
        fcntl.ioctl(self._in, termios.FIONREAD, count)
        return count[0]

    def _read(self) -> bytes | None:
        """What was printed; None if there is nothing now, empty at the end of the output."""
        try:
            return os.read(self._out, _CHUNK)
        except BlockingIOError:
            return None


def _answer_in(reader: AnswerReader, data: bytes, running: Running) -> WarmAnswer | None:
    """The answer in what was printed; an attempt whose process prints too much else is killed."""
    try:
        answer = reader.feed(data)
    except BadAnswerError as error:
        running.fail(Outcome.BAD_OUTPUT, str(error))
        return None
    if answer is None and reader.dropped > running.output:
        message = f"killed for printing {reader.dropped} bytes that are no answer; its limit is {running.output}"
        running.fail(Outcome.OUTPUT_LIMIT, message)
    return answer
