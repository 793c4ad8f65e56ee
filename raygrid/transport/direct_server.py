"""A TCP server in an actor that answers the actor's calls; callers get its address and secret through Ray.

A call through Ray costs about 1.5 ms, a direct call a fifth of that. Callers without a direct channel call through Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from typing import Generic, NamedTuple

from raygrid.transport import messages, wire
from raygrid.transport.calls import Calls
from raygrid.transport.messages import Request, messages_of

logger = logging.getLogger(__name__)

MAX_STRANGERS = 64
"""Callers of one server that have not authenticated themselves yet; each further one ends the oldest."""
MAX_CALLS = 200  # pending calls of one connection; at the limit, reading pauses until one has ended


class DirectAddress(NamedTuple):
    """Where a direct server listens, and the secret that callers need."""

    host: str
    port: int
    secret: bytes

    def __repr__(self) -> str:
        """Without the secret."""
        return f"DirectAddress(host={self.host!r}, port={self.port})"


class DirectServer(Generic[Calls]):
    """Answers the direct calls of a Protocol. Listens from the first request for its address; the owner closes it.

    Args:
        protocol: the Protocol; only its calls that are declared `direct` are accepted.
        target: the object that carries the calls out.
    """

    def __init__(self, protocol: Callable[..., Calls], target: Calls) -> None:
        self._target = target
        self._messages = messages_of(protocol)
        self._secret = wire.new_secret()
        self._starting = asyncio.Lock()
        self._server: asyncio.Server | None = None
        self._closed = False
        self._connections: set[asyncio.Task[None]] = set()
        self._strangers: dict[StreamWriter, None] = {}  # the oldest first
        self._calls: set[asyncio.Task[None]] = set()

    async def address(self, host: str) -> DirectAddress | None:
        """Its address, on `host` only; None if it must not or cannot listen."""
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return None  # Ray encrypts its calls; a direct channel would not
        async with self._starting:
            if self._closed:
                return None
            if self._server is None:
                try:
                    self._server = await asyncio.start_server(self._serve, host, 0)
                except OSError as error:
                    logger.warning("this actor cannot listen on %s; callers use Ray instead: %s", host, error)
                    return None
        return DirectAddress(host, self._server.sockets[0].getsockname()[1], self._secret)

    async def close(self) -> None:
        """Accept no more connections, and cancel every call."""
        async with self._starting:
            self._closed = True
            if self._server is not None:
                self._server.close()
        tasks = [*self._connections, *self._calls]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        if self._closed:  # accepted while the server was closing
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        # A caller whose machine died does not close the connection; keep-alive probes detect that.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            seals = await self._authenticated(reader, writer)
            room = asyncio.Semaphore(MAX_CALLS)
            while True:
                await room.acquire()
                request = messages.read_request(await seals.received.read(reader))
                call = asyncio.create_task(self._carry_out(writer, seals.sent, request))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)
                call.add_done_callback(lambda _: room.release())
        except (OSError, asyncio.IncompleteReadError) as error:
            if isinstance(error, wire.NotAuthenticatedError | wire.FrameTooLargeError):
                logger.warning("this actor refused a direct channel: %s", error)
        except asyncio.CancelledError:
            pass  # the server is closing
        except Exception:
            logger.exception("this actor could not read a frame of a direct channel; closing the channel")
        finally:
            self._connections.discard(task)
            writer.close()

    async def _authenticated(self, reader: StreamReader, writer: StreamWriter) -> wire.Seals:
        if len(self._strangers) >= MAX_STRANGERS:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.close()
        self._strangers[writer] = None
        try:
            return await wire.authenticate_caller(reader, writer, self._secret)
        finally:
            self._strangers.pop(writer, None)

    async def _carry_out(self, writer: StreamWriter, seal: wire.Seal, request: Request) -> None:
        number = request.number
        try:
            args = self._messages.args(request)
            body = messages.answer(number, await getattr(self._target, request.method)(*args))
            wire.check_size(len(body))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            body = messages.failure(number, error)  # the call itself was not cancelled, but something that it awaited
        except Exception as error:
            body = messages.failure(number, error)
        if not writer.is_closing():
            writer.write(seal.sealed(body))
            with contextlib.suppress(OSError):
                await writer.drain()
