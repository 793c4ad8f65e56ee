"""Frames: what a direct channel reads. The first byte chooses what the others are.

0: the greeting of a caller, then frames. 1: the greeting of a server. 2: frames with wrong codes. 3: the body of a
frame with a call. 4: the method (one byte) and the body of a frame with an answer.
"""

from __future__ import annotations

import asyncio
from asyncio import IncompleteReadError, StreamReader
from typing import Any, cast

import msgspec

from raygrid.errors import RaygridError
from raygrid.transport import messages, wire
from raygrid.transport.calls import calls_of
from raygrid.transport.ports import LeaderCalls, NodeCalls
from security.fuzzers.target import Target, finished

SECRET = b"s" * 32
_METHODS = tuple((kind, each.name) for kind in (NodeCalls, LeaderCalls) for each in calls_of(kind) if each.direct)


class _Writer:
    """Accepts bytes."""

    def write(self, data: bytes) -> None:
        assert data


def _reader(data: bytes) -> StreamReader:
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def _greet(data: bytes, *, as_server: bool) -> None:
    reader, writer = _reader(data), cast(asyncio.StreamWriter, _Writer())
    greet = wire.authenticate_caller if as_server else wire.authenticate_to_server
    seals = await greet(reader, writer, SECRET)
    await seals.received.read(reader)


async def _sealed(body: bytes) -> bytes:
    """A body that passes through a frame of its own peer."""
    return await wire.Seal(SECRET).read(_reader(wire.Seal(SECRET).sealed(body)))


async def _frames(data: bytes) -> None:
    seal, reader = wire.Seal(SECRET), _reader(data)
    while True:
        await seal.read(reader)


def _call(body: bytes) -> None:
    request = messages.read_request(body)
    for kind in (NodeCalls, LeaderCalls):
        try:
            args = messages.messages_of(kind).args(request)
        except RaygridError as error:
            messages.failure(request.number, error)
            continue
        sent = messages.request(request.number, request.method, args)
        again = messages.messages_of(kind).args(messages.read_request(sent))
        assert messages.request(request.number, request.method, again) == sent, "a call changes on its way"


def _answer(data: bytes) -> Any:
    kind, method = _METHODS[(data[0] if data else 0) % len(_METHODS)]
    return messages.messages_of(kind).value(method, messages.read_answer(data[1:]))


def read(data: bytes) -> None:
    """Read one input."""
    kind, rest = (data[0] % 5, data[1:]) if data else (0, data)
    if kind < 2:
        finished(_greet(rest, as_server=kind == 0))
    elif kind == 2:
        finished(_frames(rest))
    elif kind == 3:
        _call(finished(_sealed(rest)))
    else:
        _answer(finished(_sealed(rest)))


TARGET = Target(
    read,
    (RaygridError, msgspec.MsgspecError, wire.NotAuthenticatedError, wire.FrameTooLargeError, IncompleteReadError),
)
