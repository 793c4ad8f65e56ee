"""An answer that holds much memory, with its turn (`parent/outflow.py`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from raygrid.parent.outflow import in_pieces


class HeldResponse(StreamingResponse):
    """Streams pieces of bytes, and closes what belongs to them at the end, also if the client is gone.

    Args:
        pieces: the body; long ones are passed on in shorter pieces.
        held: closed when the answer has ended.
        headers: of the answer.
        media_type: of the body.
    """

    def __init__(
        self, pieces: AsyncIterator[bytes], held: AsyncExitStack, headers: Mapping[str, str], media_type: str
    ) -> None:
        super().__init__(_short(pieces), headers=headers, media_type=media_type)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        async with self._held:
            await super().__call__(scope, receive, send)


async def one_piece(data: bytes) -> AsyncIterator[bytes]:
    """A body of one piece."""
    yield data


async def _short(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes | memoryview]:
    async for piece in pieces:
        for part in in_pieces(piece):
            yield part
    yield b""  # waits until the last piece is on its way
