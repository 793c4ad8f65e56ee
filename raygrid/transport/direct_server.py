"""Where an actor is called directly, beside Ray: a port on its node's address, for whoever Ray has told the secret.

A call through Ray costs about 1.5 ms, a call through here a fifth of that. Nothing depends on it: callers to whom the
door does not open call through Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Collection
from typing import Any, NamedTuple

from raygrid.errors import RaygridError, UnavailableError
from raygrid.transport import wire

logger = logging.getLogger(__name__)

AT_ONCE = 200  # calls of one caller; beyond that nothing more is read from it until one has ended


class DoorAddress(NamedTuple):
    """Where a door is, and the secret that opens it."""

    host: str
    port: int
    secret: bytes


class Door:
    """Serves calls of some methods of an object. Opens when it is first asked for; the owner closes it.

    Args:
        owner: whose methods are called; all are coroutines.
        methods: the names that may be called.
    """

    def __init__(self, owner: Any, methods: Collection[str]) -> None:
        self._owner = owner
        self._methods = frozenset(methods)
        self._secret = wire.new_secret()
        self._opening = asyncio.Lock()
        self._server: asyncio.Server | None = None
        self._closed = False
        self._callers: set[asyncio.Task[None]] = set()
        self._calls: set[asyncio.Task[None]] = set()

    async def address(self, host: str) -> DoorAddress | None:
        """Where it is reached, on this address of the machine only; None where it must stay shut, or cannot open."""
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return None  # what Ray encrypts must not go beside it in the clear
        async with self._opening:
            if self._closed:
                return None
            if self._server is None:
                try:
                    self._server = await asyncio.start_server(self._serve, host, 0)
                except OSError as error:
                    logger.warning("calls go through Ray only, as no port can be opened on %s: %s", host, error)
                    return None
        return DoorAddress(host, self._server.sockets[0].getsockname()[1], self._secret)

    async def close(self) -> None:
        """Let nobody in any more, and end every call."""
        async with self._opening:
            self._closed = True
            if self._server is not None:
                self._server.close()
        tasks = [*self._callers, *self._calls]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        if self._closed:  # it came while the door was being closed
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._callers.add(task)
        # A caller whose machine died says nothing any more; some day that is noticed.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            await wire.greet_caller(reader, writer, self._secret)
            room = asyncio.Semaphore(AT_ONCE)
            while True:
                await room.acquire()
                number, method, args = await wire.read_frame(reader)
                call = asyncio.create_task(self._carry_out(writer, number, method, args))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)
                call.add_done_callback(lambda _: room.release())
        except (OSError, asyncio.IncompleteReadError) as error:
            if isinstance(error, wire.StrangerError | wire.FrameTooLargeError):
                logger.warning("a connection is refused: %s", error)
        except asyncio.CancelledError:
            pass  # the door closes
        except Exception:
            logger.exception("a connection is ended: what it says cannot be read")
        finally:
            self._callers.discard(task)
            writer.close()

    async def _carry_out(self, writer: StreamWriter, number: int, method: str, args: tuple[Any, ...]) -> None:
        try:
            if method not in self._methods:
                raise UnavailableError(f"there is no call {method!r} here")
            frame = wire.packed((number, True, await getattr(self._owner, method)(*args)))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            frame = _failed(number, error)  # something that the call waited for was cancelled
        except Exception as error:
            frame = _failed(number, error)
        if not writer.is_closing():
            writer.write(frame)
            with contextlib.suppress(OSError):
                await writer.drain()


def _failed(number: int, error: BaseException) -> bytes:
    # The grid's own errors come through, and that an answer is too large; all else means that nobody knows. What could
    # not be unpickled would break the connection.
    if isinstance(error, RaygridError | wire.FrameTooLargeError):
        with contextlib.suppress(Exception):
            frame = wire.packed((number, False, error))
            wire.unpacked(frame)
            return frame
    return wire.packed((number, False, UnavailableError(f"the call failed: {error!r}")))
