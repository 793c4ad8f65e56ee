"""What is said on a connection between two processes of the grid: who one is, then frames with pickles.

Both ends prove that they know a secret before either unpickles anything: who can make another process unpickle can make
it do anything. A frame is its length (four bytes, big-endian) and a pickle of the very values that Ray would carry.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import pickle
import secrets
from asyncio import StreamReader, StreamWriter
from typing import Any

LARGEST = 64 * 1024**2  # bytes of one frame; whatever is larger goes another way
GREET_S = 2.0
_NONCE = 32
_PROOF = hashlib.sha256().digest_size


class StrangerError(ConnectionError):
    """The other end does not know the secret, or did not say so in time."""


class FrameTooLargeError(ConnectionError):
    """A frame is larger than any may be."""


def new_secret() -> bytes:
    """A secret for one life of a process."""
    return secrets.token_bytes(32)


def packed(value: Any) -> bytes:
    """A frame.

    Raises:
        FrameTooLargeError: the value takes more room than a frame has.
    """
    data = pickle.dumps(value, protocol=5)
    if len(data) > LARGEST:
        raise FrameTooLargeError(f"{len(data)} bytes are more than a frame may have ({LARGEST})")
    return len(data).to_bytes(4, "big") + data


def unpacked(frame: bytes) -> Any:
    """The value in a frame of one's own."""
    return pickle.loads(frame[4:])  # noqa: S301 - it was made here


async def read_frame(reader: StreamReader) -> Any:
    """The value in the next frame of somebody who is known.

    Raises:
        FrameTooLargeError: it is said to be larger than a frame may be; nothing of it is read.
        asyncio.IncompleteReadError: the connection ends.
    """
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > LARGEST:
        raise FrameTooLargeError(f"a frame of {size} bytes was announced; none may have more than {LARGEST}")
    return pickle.loads(await reader.readexactly(size))  # noqa: S301 - from somebody who knows the secret


async def greet_caller(reader: StreamReader, writer: StreamWriter, secret: bytes) -> None:
    """Let a caller prove that it knows the secret, then prove it to the caller.

    Raises:
        StrangerError: it does not.
    """
    ours = secrets.token_bytes(_NONCE)
    writer.write(ours)
    said = await _exactly(reader, _NONCE + _PROOF)
    nonces = ours + said[:_NONCE]
    if not hmac.compare_digest(said[_NONCE:], _proof(secret, b"caller", nonces)):
        raise StrangerError("a caller does not know the secret")
    writer.write(_proof(secret, b"called", nonces))


async def greet_called(reader: StreamReader, writer: StreamWriter, secret: bytes) -> None:
    """Prove to whom one calls that one knows the secret, and have it do the same.

    Raises:
        StrangerError: another process listens there by now.
    """
    theirs = await _exactly(reader, _NONCE)
    ours = secrets.token_bytes(_NONCE)
    writer.write(ours + _proof(secret, b"caller", theirs + ours))
    if not hmac.compare_digest(await _exactly(reader, _PROOF), _proof(secret, b"called", theirs + ours)):
        raise StrangerError("who was called does not know the secret")


async def _exactly(reader: StreamReader, size: int) -> bytes:
    try:
        async with asyncio.timeout(GREET_S):
            return await reader.readexactly(size)
    except (TimeoutError, asyncio.IncompleteReadError) as error:
        raise StrangerError("the other end did not say who it is") from error


def _proof(secret: bytes, side: bytes, nonces: bytes) -> bytes:
    return hmac.digest(secret, side + nonces, "sha256")
