"""Limits of one connection to a parent's listener: the size of a request's head, and the time for sending a request.

Every client uses one of a parent's connections, even without a key. So a connection is closed if its client sends
nothing, half a request, or headers without an end; and when all are in use, further clients get an answer that states
it.
"""

from __future__ import annotations

import logging
import os
from http import HTTPStatus
from typing import Any, ClassVar, cast

from starlette.responses import Response

from raygrid.errors import ForbiddenError, UnavailableError
from raygrid.parent.audit import AuditEntry, AuditLog
from raygrid.parent.http import problems
from raygrid.parent.http.scope import ANOTHER_USER
from raygrid.parent.http.upgrades import PlainProtocol
from raygrid.system.peers import Peers

logger = logging.getLogger(__name__)

MOST_CONNECTIONS = 4_096
SPARE_CONNECTIONS = 256  # further ones, only for answering that the parent is full; beyond, they are closed at once
MOST_HEAD = 64 * 1024  # bytes of a request's line, headers and trailers, and of data that the parser has not used yet
HEAD_S = 15.0
BODY_S = 60.0
READ_S = 30.0  # for taking what is ready for sending, some 300 KB
CROWDED_READ_S = 8.0  # while many clients are this slow
MOST_SLOW_READERS = 12
KEEP_ALIVE_S = 90.0
CROWDED_KEEP_ALIVE_S = 15.0  # while more than half of the connections are in use
MOST_WAITING = 16  # pipelined requests of one connection
LINGER_S = 2.0  # between an answer and closing: a client that still sends would lose the answer otherwise
RETRY_AFTER_S = 5.0


class _EndedError(Exception):
    """The answer is written and the connection is closing; stops the parser."""


class LimitedConnection(PlainProtocol):
    """A connection with limits. Its owner must call `enforce_time_limits` regularly.

    `room` is the number of connections that the process can have open, if that is less than `MOST_CONNECTIONS`. With
    `peers`, only this process's own user may send requests without an API key; `audit` records those of others.
    """

    room: ClassVar[int] = MOST_CONNECTIONS
    peers: ClassVar[Peers | None] = None
    audit: ClassVar[AuditLog | None] = None

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        # Last progress: connected, request begun, answered, or body bytes received.
        self._progress_at = self.loop.time()
        self._in_head = True
        self._head = 0  # bytes of the request's line and headers so far
        self._pending = 0  # bytes that the parser has not used yet
        self._progress = False
        self._body_grew = False
        self._is_ending = False
        self._full_since: float | None = None  # when the client had left so much unread that the application waits
        self._is_own = True  # whether its client is this process's own user, or anybody may be

    # --- called by uvicorn and the parser -----------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Accept the connection, or close it if there are far too many."""
        super().connection_made(transport)
        if self.peers is not None:
            # At once, because a client may close its end before the answer.
            self._is_own = _is_own_user(self.peers, transport)
        if len(self.connections) > self._most + SPARE_CONNECTIONS:
            self._end(_full(self._most))
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse data; end the connection if too much of it stays unused."""
        if self._is_ending:
            return
        self._progress = self._body_grew = False
        super().data_received(data)
        if not self._progress:
            self._pending += len(data)
            if self._pending > MOST_HEAD:
                self._end(_too_large())
        elif self._body_grew and not self._is_idle:  # trailers and data after the answer do not count as progress
            self._progress_at = self.loop.time()

    def pause_writing(self) -> None:
        """The client has left so much unread that the application has to wait."""
        self._full_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client has read enough for the application to go on."""
        self._full_since = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse data that cannot be parsed."""
        self._end(problems.of_status(HTTPStatus.BAD_REQUEST, msg))

    def on_message_begin(self) -> None:
        """A request begins; also the parser's first call on a connection."""
        self._note_progress()
        if len(self.pipeline) >= MOST_WAITING:
            why = f"more than {MOST_WAITING} requests wait for their answers on one connection"
            self._refuse(problems.of_status(HTTPStatus.TOO_MANY_REQUESTS, why))
        self._in_head = True
        self._head = 0
        self._progress_at = self.loop.time()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the request's line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer after a chunked body."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Pass the request to the application, or refuse it if there are too many connections."""
        self._note_progress()
        self._in_head = False
        self._progress_at = self.loop.time()
        if not self._is_own:
            # With a key of its own, which the application checks, another user may use the grid.
            if not any(name == b"authorization" for name, _ in self.headers):
                if self.audit is not None:
                    self.audit.write(self._refused_entry())
                self._refuse(_not_own())
            cast(dict[str, Any], self.scope)[ANOTHER_USER] = True
        if self._is_idle and len(self.connections) > self._most:
            self._refuse(_full(self._most))
        super().on_headers_complete()

    def _refused_entry(self) -> AuditEntry:
        method, path = self.parser.get_method().decode("latin-1"), self.url.partition(b"?")[0].decode("latin-1")
        address = self.client[0] if self.client else ""
        return AuditEntry("", None, address, f"{method} (another user)", path, HTTPStatus.FORBIDDEN)

    def on_chunk_header(self) -> None:
        """A chunk of a body begins."""
        self._note_progress()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._note_progress()
        self._body_grew = True
        # uvicorn appends the piece to its buffer and copies the buffer for the application. A single piece appended to
        # empty bytes is not copied; a bytearray is faster only from the second piece on.
        held = cast(bytes | bytearray, self.cycle.body)
        if not held:
            self.cycle.body = b""  # type: ignore[assignment]  # uvicorn only appends, measures and converts it
        elif not isinstance(held, bytearray):
            self.cycle.body = bytearray(held)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._note_progress()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A request was answered."""
        self._progress_at = self.loop.time()
        super().on_response_complete()

    # --- time ---------------------------------------------------------------------------------------------------

    def enforce_time_limits(self, now: float) -> None:
        """End the connection if its client is too slow.

        There is no limit for waiting for an answer, or for a body that the application does not read.
        """
        unread_for_s = 0.0 if self._full_since is None else now - self._full_since
        if unread_for_s > CROWDED_READ_S and unread_for_s > self._read_s():
            # Its answer is in memory as long as it does not read; closing would wait for it.
            self.transport.abort()
            return
        quiet_s = now - self._progress_at
        if self.transport.is_closing():
            return
        if self._is_ending:
            if quiet_s > LINGER_S:
                self.transport.close()
        elif self._is_idle and self._in_head:
            if quiet_s > HEAD_S:
                why = f"no complete request arrived within {HEAD_S:g} s"
                self._end(problems.of_status(HTTPStatus.REQUEST_TIMEOUT, why))
        elif self._is_idle:
            is_crowded = len(self.connections) > self._most / 2
            if quiet_s > (CROWDED_KEEP_ALIVE_S if is_crowded else KEEP_ALIVE_S):
                self.transport.close()
        elif self._owes_body and quiet_s > BODY_S:
            why = f"no data of the body arrived for {BODY_S:g} s; send the request again"
            self._end(problems.of_status(HTTPStatus.REQUEST_TIMEOUT, why))

    def _read_s(self) -> float:
        slow = sum(getattr(each, "_full_since", None) is not None for each in self.connections)
        return CROWDED_READ_S if slow > MOST_SLOW_READERS else READ_S

    @property
    def _most(self) -> int:
        return min(MOST_CONNECTIONS, self.room)

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _owes_body(self) -> bool:
        """Whether the rest of the body is expected: the client can send it and the application reads it."""
        return self.cycle.more_body and not self.cycle.waiting_for_100_continue and not self.flow.read_paused

    def _note_progress(self) -> None:
        self._progress = True
        self._pending = 0

    def _count(self, size: int) -> None:
        self._note_progress()
        self._head += size
        if self._head > MOST_HEAD:
            self._refuse(_too_large())

    def _refuse(self, answer: Response) -> None:
        """End the connection and stop the parser, which calls this.

        Raises:
            _EndedError: always.
        """
        self._end(answer)
        raise _EndedError

    def _end(self, answer: Response) -> None:
        """Send an answer, if none has begun, and ignore further data; `enforce_time_limits` closes the connection."""
        if self._is_ending:
            return
        self._is_ending = True
        self._progress_at = self.loop.time()
        if self._is_idle or not self.cycle.response_started:
            status, body = HTTPStatus(answer.status_code), bytes(answer.body)
            lines = [f"HTTP/1.1 {status} {status.phrase}".encode()]
            lines += [name + b": " + value for name, value in answer.raw_headers]
            self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", body]))
        if not self._is_idle:  # for the application, the client is gone
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.flow.resume_reading()
        self.transport.write_eof()


def _full(most: int) -> Response:
    why = f"this parent has {most} connections, its maximum; try again"
    return problems.response_of(UnavailableError(why, retry_after_s=RETRY_AFTER_S))


def _is_own_user(peers: Peers, transport: Any) -> bool:
    """Whether the other end of a connection belongs to this process's user; no if that cannot be found out."""
    try:
        theirs, ours = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        return peers.user_of(theirs[:2], ours[:2]) == os.getuid()
    except (OSError, TypeError):
        logger.warning("the user at the other end of a connection is unknown; refusing it", exc_info=True)
        return False


def _not_own() -> Response:
    why = (
        f"this grid takes requests only from programs of the user who started it (user id {os.getuid()}); to let "
        "others use it, make keys for them with: raygrid keys add"
    )
    return problems.response_of(ForbiddenError(why))


def _too_large() -> Response:
    why = f"the request's line and headers are larger than {MOST_HEAD} bytes together"
    return problems.of_status(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, why)
