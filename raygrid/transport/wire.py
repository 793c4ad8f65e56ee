"""The wire format of a direct channel: mutual authentication, then frames with pickles.

Both ends prove that they know a secret before either unpickles anything: unpickling can run any code. A frame is its
length (four bytes, big-endian) and a pickle of the values that Ray would carry.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import pickle
import secrets
from asyncio import StreamReader, StreamWriter
from typing import Any

MAX_FRAME_BYTES = 64 * 1024**2  # larger calls go through Ray
AUTHENTICATE_S = 2.0
_NONCE = 32
_PROOF = hashlib.sha256().digest_size


class NotAuthenticatedError(ConnectionError):
    """The other end did not prove in time that it knows the secret."""


class FrameTooLargeError(ConnectionError):
    """A frame exceeds `MAX_FRAME_BYTES`."""


def new_secret() -> bytes:
    """A secret for one life of a process."""
    return secrets.token_bytes(32)


def packed(value: Any) -> bytes:
    """A frame.

    Raises:
        FrameTooLargeError: the value does not fit into a frame.
    """
    data = pickle.dumps(value, protocol=5)
    if len(data) > MAX_FRAME_BYTES:
        raise FrameTooLargeError(f"{len(data)} bytes are more than a frame may have ({MAX_FRAME_BYTES})")
    return len(data).to_bytes(4, "big") + data


def unpacked(frame: bytes) -> Any:
    """The value in a frame that this process made."""
    return pickle.loads(frame[4:])  # noqa: S301 - it was made here


async def read_frame(reader: StreamReader) -> Any:
    """The value in the next frame from an authenticated peer.

    Raises:
        FrameTooLargeError: the announced length exceeds the limit; nothing of the frame is read.
        asyncio.IncompleteReadError: the connection has ended.
    """
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > MAX_FRAME_BYTES:
        raise FrameTooLargeError(f"a frame of {size} bytes was announced; none may have more than {MAX_FRAME_BYTES}")
    return pickle.loads(await reader.readexactly(size))  # noqa: S301 - the peer knows the secret


async def authenticate_caller(reader: StreamReader, writer: StreamWriter, secret: bytes) -> None:
    """The server's side: have the caller prove that it knows the secret, then prove it to the caller.

    Raises:
        NotAuthenticatedError: the caller does not know the secret.
    """
    ours = secrets.token_bytes(_NONCE)
    writer.write(ours)
    answer = await _exactly(reader, _NONCE + _PROOF)
    nonces = ours + answer[:_NONCE]
    if not hmac.compare_digest(answer[_NONCE:], _proof(secret, b"caller", nonces)):
        raise NotAuthenticatedError("the caller does not know the secret")
    writer.write(_proof(secret, b"called", nonces))


async def authenticate_to_server(reader: StreamReader, writer: StreamWriter, secret: bytes) -> None:
    """The caller's side: prove to the server that this process knows the secret, then have the server prove it.

    Raises:
        NotAuthenticatedError: another process listens at the address.
    """
    theirs = await _exactly(reader, _NONCE)
    ours = secrets.token_bytes(_NONCE)
    writer.write(ours + _proof(secret, b"caller", theirs + ours))
    if not hmac.compare_digest(await _exactly(reader, _PROOF), _proof(secret, b"called", theirs + ours)):
        raise NotAuthenticatedError("the server does not know the secret")


async def _exactly(reader: StreamReader, size: int) -> bytes:
    try:
        async with asyncio.timeout(AUTHENTICATE_S):
            return await reader.readexactly(size)
    except (TimeoutError, asyncio.IncompleteReadError) as error:
        raise NotAuthenticatedError("the other end did not authenticate itself in time") from error


def _proof(secret: bytes, side: bytes, nonces: bytes) -> bytes:
    return hmac.digest(secret, side + nonces, "sha256")
