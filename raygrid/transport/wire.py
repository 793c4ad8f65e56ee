"""The wire format of a direct channel: mutual authentication, then frames with pickles.

Each end proves that it knows a secret before the other unpickles anything, because unpickling can run any code. A frame
is its length (four bytes, big-endian) and a pickle of the values that Ray would carry.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import pickle
import secrets
from asyncio import StreamReader, StreamWriter
from typing import Any

MAX_FRAME_BYTES = 64 * 1024**2  # larger calls use Ray
AUTHENTICATE_S = 2.0
_NONCE = 32
_PROOF = hashlib.sha256().digest_size


class NotAuthenticatedError(ConnectionError):
    """The other end did not prove in time that it knows the secret."""


class FrameTooLargeError(ConnectionError):
    """A frame exceeds `MAX_FRAME_BYTES`."""


def new_secret() -> bytes:
    """A new random secret; a process uses one until it ends."""
    return secrets.token_bytes(32)


def packed(value: Any) -> bytes:
    """A frame.

    Raises:
        FrameTooLargeError: the value does not fit into a frame.
    """
    data = pickle.dumps(value, protocol=5)
    if len(data) > MAX_FRAME_BYTES:
        raise FrameTooLargeError(f"a frame would have {len(data)} bytes; at most {MAX_FRAME_BYTES} are allowed")
    return len(data).to_bytes(4, "big") + data


def unpacked(frame: bytes) -> Any:
    """The value in a frame that this process made."""
    return pickle.loads(frame[4:])  # noqa: S301 - made by this process


async def read_frame(reader: StreamReader) -> Any:
    """The value in the next frame from an authenticated peer.

    Raises:
        FrameTooLargeError: the announced length exceeds the limit; the frame is not read.
        asyncio.IncompleteReadError: the connection has ended.
    """
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > MAX_FRAME_BYTES:
        raise FrameTooLargeError(f"a frame of {size} bytes was announced; at most {MAX_FRAME_BYTES} are allowed")
    return pickle.loads(await reader.readexactly(size))  # noqa: S301 - the peer knows the secret


async def authenticate_caller(reader: StreamReader, writer: StreamWriter, secret: bytes) -> None:
    """The server's side: verify that the caller knows the secret, then prove the same to the caller.

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
    """The caller's side: prove that this process knows the secret, then verify that the server does.

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
