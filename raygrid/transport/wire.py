"""The wire format of a direct channel: mutual authentication, then sealed frames.

Each end proves that it knows a secret. From the secret and the nonces of the greeting come two keys, one for each
direction. A frame is the length of its body (four bytes, big-endian), a code (16 bytes) and the body. The code is keyed
BLAKE2b over the frame's number on this connection, its length and its body: a relay that passes the greeting on can
neither add a frame nor change, repeat, reorder or leave out one. Nothing is encrypted.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from asyncio import StreamReader, StreamWriter
from typing import NamedTuple

MAX_FRAME_BYTES = 64 * 1024**2  # larger calls use Ray
AUTHENTICATE_S = 2.0
_NONCE = 32
_PROOF = hashlib.sha256().digest_size
_LENGTH = 4
_CODE = 16


class NotAuthenticatedError(ConnectionError):
    """The other end did not prove in time that it knows the secret, or a frame is not from it."""


class FrameTooLargeError(ConnectionError):
    """A frame exceeds `MAX_FRAME_BYTES`."""


class Seals(NamedTuple):
    """The two directions of a connection, as one end sees them."""

    sent: Seal
    received: Seal


class Seal:
    """Seals the frames of one direction of a connection, or checks them; frames must pass in their order."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._number = 0

    def sealed(self, body: bytes) -> bytes:
        """The frame with this body.

        Raises:
            FrameTooLargeError: the body does not fit into a frame.
        """
        check_size(len(body))
        length = len(body).to_bytes(_LENGTH, "big")
        return b"".join((length, self._code(length, body), body))

    async def read(self, reader: StreamReader) -> bytes:
        """The body of the next frame.

        Raises:
            FrameTooLargeError: the announced length exceeds the limit; the frame is not read.
            NotAuthenticatedError: the frame is not the peer's next one.
            asyncio.IncompleteReadError: the connection has ended.
        """
        head = await reader.readexactly(_LENGTH + _CODE)
        length = head[:_LENGTH]
        check_size(int.from_bytes(length, "big"))
        body = await reader.readexactly(int.from_bytes(length, "big"))
        if not hmac.compare_digest(head[_LENGTH:], self._code(length, body)):
            raise NotAuthenticatedError("a frame does not come from the authenticated peer, or frames are missing")
        return body

    def _code(self, length: bytes, body: bytes) -> bytes:
        code = hashlib.blake2b(self._number.to_bytes(8, "big") + length, key=self._key, digest_size=_CODE)
        code.update(body)
        self._number += 1
        return code.digest()


def new_secret() -> bytes:
    """A new random secret; a process uses one until it ends."""
    return secrets.token_bytes(32)


def check_size(size: int) -> None:
    """Check the size of a frame's body, bytes.

    Raises:
        FrameTooLargeError: it exceeds the limit.
    """
    if size > MAX_FRAME_BYTES:
        raise FrameTooLargeError(f"a frame has {size} bytes; at most {MAX_FRAME_BYTES} are allowed")


async def authenticate_caller(reader: StreamReader, writer: StreamWriter, secret: bytes) -> Seals:
    """The server's side: verify that the caller knows the secret, then prove the same to the caller.

    Raises:
        NotAuthenticatedError: the caller does not know the secret.
    """
    ours = secrets.token_bytes(_NONCE)
    writer.write(ours)
    answer = await _exactly(reader, _NONCE + _PROOF)
    nonces = ours + answer[:_NONCE]
    if not hmac.compare_digest(answer[_NONCE:], _derived(secret, b"caller", nonces)):
        raise NotAuthenticatedError("the caller does not know the secret")
    writer.write(_derived(secret, b"called", nonces))
    return Seals(Seal(_derived(secret, b"answers", nonces)), Seal(_derived(secret, b"calls", nonces)))


async def authenticate_to_server(reader: StreamReader, writer: StreamWriter, secret: bytes) -> Seals:
    """The caller's side: prove that this process knows the secret, then verify that the server does.

    Raises:
        NotAuthenticatedError: another process listens at the address.
    """
    theirs = await _exactly(reader, _NONCE)
    ours = secrets.token_bytes(_NONCE)
    nonces = theirs + ours
    writer.write(ours + _derived(secret, b"caller", nonces))
    if not hmac.compare_digest(await _exactly(reader, _PROOF), _derived(secret, b"called", nonces)):
        raise NotAuthenticatedError("the server does not know the secret")
    return Seals(Seal(_derived(secret, b"calls", nonces)), Seal(_derived(secret, b"answers", nonces)))


async def _exactly(reader: StreamReader, size: int) -> bytes:
    try:
        async with asyncio.timeout(AUTHENTICATE_S):
            return await reader.readexactly(size)
    except (TimeoutError, asyncio.IncompleteReadError) as error:
        raise NotAuthenticatedError("the other end did not authenticate itself in time") from error


def _derived(secret: bytes, purpose: bytes, nonces: bytes) -> bytes:
    """A proof or a key for one purpose on one connection."""
    return hmac.digest(secret, b"raygrid 2 " + purpose + nonces, "sha256")
