"""The caller's side of a direct channel to an actor: one connection for any number of concurrent calls."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from typing import Any

from raygrid.errors import RaygridError
from raygrid.transport import messages, wire
from raygrid.transport.direct_server import DirectAddress
from raygrid.transport.messages import Messages, messages_of

CONNECT_S = 2.0


class ConnectionBrokenError(ConnectionError):
    """The connection broke during a call: it is unknown whether the call was carried out."""


class DirectChannel:
    """A connection to a direct server, created by `connect_directly`; the owner closes it."""

    def __init__(self, reader: StreamReader, writer: StreamWriter, seals: wire.Seals, own: Messages) -> None:
        self._writer = writer
        self._seals = seals
        self._messages = own
        self._pending: dict[int, tuple[str, asyncio.Future[Any]]] = {}
        self._number = 0
        self._retired = False
        self._why = "it was closed"
        self._reading = asyncio.get_running_loop().create_task(self._read(reader), name="direct channel")
        self._reading.add_done_callback(lambda _: self._ended())  # runs even if the task is cancelled before its start

    @property
    def is_open(self) -> bool:
        """Whether it accepts calls."""
        return not self._retired and not self._reading.done()

    def ask(self, method: str, args: tuple[Any, ...]) -> asyncio.Future[Any]:
        """Send a call. The future gets the answer, the callee's error or `ConnectionBrokenError`, or is cancelled.

        Raises:
            FrameTooLargeError: the arguments cannot be sent in a frame; nothing was sent.
        """
        self._number += 1
        number = self._number
        frame = self._seals.sent.sealed(messages.request(number, method, args))
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[number] = method, answer
        answer.add_done_callback(lambda _: self._done(number))
        self._writer.write(frame)
        return answer

    def retire(self) -> None:
        """Accept no new calls; close when pending ones finish. Used after a timeout."""
        self._retired = True
        if not self._pending:
            self.close()

    def close(self) -> None:
        """Close the connection; pending calls fail."""
        self._retired = True
        self._reading.cancel()

    def _done(self, number: int) -> None:
        self._pending.pop(number, None)
        if self._retired and not self._pending:
            self.close()

    async def _read(self, reader: StreamReader) -> None:
        try:
            while True:
                found = messages.read_answer(await self._seals.received.read(reader))
                method, answer = self._pending.get(found.number, ("", None))
                if answer is None or answer.done():
                    continue  # the caller has given up
                try:
                    answer.set_result(self._messages.value(method, found))
                except (RaygridError, wire.FrameTooLargeError) as error:
                    answer.set_exception(error)
        except Exception as error:  # the connection has ended, or a frame is damaged: no answer can follow
            self._why = repr(error)

    def _ended(self) -> None:
        self._writer.close()
        for _, answer in list(self._pending.values()):
            if not answer.done():
                answer.set_exception(ConnectionBrokenError(f"the connection broke: {self._why}"))
                answer.exception()  # marks it as retrieved, because the caller may have given up


async def connect_directly(address: DirectAddress, protocol: Callable[..., Any]) -> DirectChannel:
    """Connect to a direct server that answers the direct calls of a Protocol.

    Raises:
        OSError: it cannot be reached, or another process listens at the address.
        TimeoutError: it does not answer.
    """
    async with asyncio.timeout(CONNECT_S):
        reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        seals = await wire.authenticate_to_server(reader, writer, address.secret)
    except BaseException:
        with contextlib.suppress(OSError):
            writer.close()
        raise
    return DirectChannel(reader, writer, seals, messages_of(protocol))
