"""The caller's side of a door: one connection to an actor, with any number of calls on it at once."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from typing import Any

from raygrid.transport import wire
from raygrid.transport.direct_server import DoorAddress

CONNECT_S = 2.0


class BrokenError(ConnectionError):
    """The connection broke while a call was under way: nobody knows whether it was carried out."""


class Channel:
    """A connection to a door. Made by `open_channel`; the owner closes it."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._retired = False
        self._why = "it was closed"
        self._reading = asyncio.get_running_loop().create_task(self._read(reader), name="channel")
        self._reading.add_done_callback(lambda _: self._ended())  # also of a task that is cancelled before it began

    @property
    def is_open(self) -> bool:
        """Whether it takes calls."""
        return not self._retired and not self._reading.done()

    def ask(self, method: str, args: tuple[Any, ...]) -> asyncio.Future[Any]:
        """Send a call; its answer, its error or `BrokenError` comes with the future, which may be cancelled.

        Raises:
            FrameTooLargeError: it takes more room than a frame has; nothing was sent.
        """
        self._number += 1
        number = self._number
        frame = wire.packed((number, method, args))
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        answer.add_done_callback(lambda _: self._done(number))
        self._writer.write(frame)
        return answer

    def retire(self) -> None:
        """Take no more calls, and close once those under way have ended: somebody waited in vain."""
        self._retired = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """End the connection; calls under way fail."""
        self._retired = True
        self._reading.cancel()

    def _done(self, number: int) -> None:
        self._waiting.pop(number, None)
        if self._retired and not self._waiting:
            self.close()

    async def _read(self, reader: StreamReader) -> None:
        try:
            while True:
                number, succeeded, value = await wire.read_frame(reader)
                answer = self._waiting.get(number)
                if answer is None or answer.done():
                    continue  # nobody waits for it any more
                if succeeded:
                    answer.set_result(value)
                else:
                    answer.set_exception(value)
        except Exception as error:  # it ended, or what came cannot be read: nothing more can come
            self._why = repr(error)

    def _ended(self) -> None:
        self._writer.close()
        for answer in list(self._waiting.values()):
            if not answer.done():
                answer.set_exception(BrokenError(f"the connection broke: {self._why}"))
                answer.exception()  # whoever waits sees it; nobody waiting is no accident


async def open_channel(address: DoorAddress) -> Channel:
    """Connect to a door.

    Raises:
        OSError: it cannot be reached, or is another process's by now.
        TimeoutError: it does not answer.
    """
    async with asyncio.timeout(CONNECT_S):
        reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        await wire.greet_called(reader, writer, address.secret)
    except BaseException:
        with contextlib.suppress(OSError):
            writer.close()
        raise
    return Channel(reader, writer)
