"""One connection to a parent's listener: how much may come before a request is whole, and how long it may take.

Whoever connects takes one of a parent's connections, whether he has a key or not. So nobody keeps one by sending
nothing, half a request, or headers without an end; and where all are taken, that is said in a way clients understand.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, ClassVar, cast

from starlette.responses import Response

from raygrid.errors import UnavailableError
from raygrid.parent.http import problems
from raygrid.parent.http.upgrades import PlainProtocol

MOST_CONNECTIONS = 4_096
SPARE_CONNECTIONS = 256  # for telling those that come beyond; one that is not even among these is cut at once
MOST_HEAD = 64 * 1024  # bytes of a request's line, headers and trailers, and of whatever is not whole yet
HEAD_S = 15.0
BODY_S = 60.0
KEEP_ALIVE_S = 90.0
CROWDED_KEEP_ALIVE_S = 15.0  # while more than half of the connections are taken
MOST_WAITING = 16  # requests of a client that does not wait for their answers
LINGER_S = 2.0  # a client that still sends loses an answer with which the connection is closed at once
RETRY_AFTER_S = 5.0


class _EndedError(Exception):
    """The connection is at its end, and the answer is written; the parser only passes on that there was an error."""


class LimitedConnection(PlainProtocol):
    """A connection that has limits. `look_after` has to be called now and then.

    `room` is how many connections the process can have open, where that is less than a parent takes otherwise.
    """

    room: ClassVar[int] = MOST_CONNECTIONS

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._since = (
            self.loop.time()
        )  # when it last came forward: it began, a request did, one was answered, a body grew
        self._in_head = True
        self._head = 0  # bytes of the request that were taken in as its line and headers
        self._pending = 0  # bytes of which the parser has made nothing yet
        self._progress = False
        self._body_grew = False
        self._is_ending = False

    # --- what uvicorn and the parser call -----------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Take the connection, unless there are far too many."""
        super().connection_made(transport)
        if len(self.connections) > self._most + SPARE_CONNECTIONS:
            self._end(_full(self._most))
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse what came, and see that it does not gather."""
        if self._is_ending:
            return
        self._progress = self._body_grew = False
        super().data_received(data)
        if not self._progress:
            self._pending += len(data)
            if self._pending > MOST_HEAD:
                self._end(_too_large())
        elif self._body_grew and not self._is_idle:  # trailers, and what comes after the answer, are no reason to wait
            self._since = self.loop.time()

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed."""
        self._end(problems.of_status(HTTPStatus.BAD_REQUEST, msg))

    def on_message_begin(self) -> None:
        """A request begins; also the parser's first call on a connection."""
        self._forward()
        if len(self.pipeline) >= MOST_WAITING:
            self._refuse(_too_many())
        self._begins()
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
        """The request goes to the application, or is refused where there are too many connections."""
        self._forward()
        self._in_head = False
        self._since = self.loop.time()
        if self._is_idle and len(self.connections) > self._most:
            self._refuse(_full(self._most))
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """A chunk of a body begins."""
        self._forward()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._forward()
        self._body_grew = True
        # uvicorn adds the piece to what it holds and copies that for the application. Added to empty bytes, a piece
        # alone is passed on as it is; only from the second on is a buffer worth its copies.
        held = cast(bytes | bytearray, self.cycle.body)
        if not held:
            self.cycle.body = b""  # type: ignore[assignment]  # it is added to, measured and turned into bytes
        elif not isinstance(held, bytearray):
            self.cycle.body = bytearray(held)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._forward()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A request was answered."""
        self._since = self.loop.time()
        super().on_response_complete()

    # --- time ---------------------------------------------------------------------------------------------------

    def look_after(self, now: float) -> None:
        """End the connection if its client has kept us waiting for too long.

        Nobody is hurried who waits for an answer, reads one slowly, or sends a body that the application does not take.
        """
        quiet_s = now - self._since
        if self.transport.is_closing():
            return
        if self._is_ending:
            if quiet_s > LINGER_S:
                self.transport.close()
        elif self._is_idle and self._in_head:
            if quiet_s > HEAD_S:
                self._end(problems.of_status(HTTPStatus.REQUEST_TIMEOUT, f"no whole request came within {HEAD_S:g} s"))
        elif self._is_idle:
            is_crowded = len(self.connections) > self._most / 2
            if quiet_s > (CROWDED_KEEP_ALIVE_S if is_crowded else KEEP_ALIVE_S):
                self.transport.close()
        elif self._owes_body and quiet_s > BODY_S:
            said = f"nothing of the body came for {BODY_S:g} s; send the request again"
            self._end(problems.of_status(HTTPStatus.REQUEST_TIMEOUT, said))

    @property
    def _most(self) -> int:
        return min(MOST_CONNECTIONS, self.room)

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _owes_body(self) -> bool:
        """Whether the client could send more of its body, and was asked to."""
        return self.cycle.more_body and not self.cycle.waiting_for_100_continue and not self.flow.read_paused

    def _begins(self) -> None:
        self._in_head = True
        self._head = 0
        self._since = self.loop.time()

    def _forward(self) -> None:
        self._progress = True
        self._pending = 0

    def _count(self, size: int) -> None:
        self._forward()
        self._head += size
        if self._head > MOST_HEAD:
            self._refuse(_too_large())

    def _refuse(self, answer: Response) -> None:
        """End the connection from within the parser, which stops.

        Raises:
            _EndedError: in any case.
        """
        self._end(answer)
        raise _EndedError

    def _end(self, answer: Response) -> None:
        """Say why, if no answer has begun, and take in nothing more; the connection is closed in a moment."""
        if self._is_ending:
            return
        self._is_ending = True
        self._since = self.loop.time()
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
    said = f"this parent has {most} connections, which is all it takes; try again"
    return problems.response_of(UnavailableError(said, retry_after_s=RETRY_AFTER_S))


def _too_many() -> Response:
    said = f"more than {MOST_WAITING} requests wait for their answers on one connection"
    return problems.of_status(HTTPStatus.TOO_MANY_REQUESTS, said)


def _too_large() -> Response:
    said = f"the request's line and headers are larger than {MOST_HEAD} bytes together"
    return problems.of_status(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, said)
