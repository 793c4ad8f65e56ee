"""A multipart/form-data body that is written while it is sent.

Small pieces are joined: a batch has thousands of tiny parts, and one write to the socket for each header and each body
would cost more than the rest of the request.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote

from raygrid.client.upload import CHUNK, InputUpload

# A name is between double quotes in the part's header; these characters would end it.
_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A", "\\": "\\\\"})


class MultipartForm:
    """Form fields, then files: a `Body` that can be sent again."""

    def __init__(self, fields: Iterable[tuple[str, str]], files: Sequence[tuple[str, InputUpload]]) -> None:
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._files = [
            (
                f'--{boundary}\r\nContent-Disposition: form-data; name="{name.translate(_ESCAPES)}"; '
                f"{_filename(upload.filename)}\r\nContent-Type: {upload.content_type}\r\n\r\n".encode(),
                upload,
            )
            for name, upload in files
        ]
        self._head = b"".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name.translate(_ESCAPES)}"\r\n\r\n'
            f"{value}\r\n".encode()
            for name, value in fields
        )
        self._tail = f"--{boundary}--\r\n".encode()
        self.length = (
            len(self._head)
            + sum(len(header) + upload.length + len(b"\r\n") for header, upload in self._files)
            + len(self._tail)
        )

    def chunks(self) -> Iterator[bytes]:
        """Write the body from its beginning, in chunks that are large enough for a system call."""
        waiting = bytearray()
        for piece in self._pieces():
            if len(waiting) + len(piece) > CHUNK and waiting:
                yield bytes(waiting)
                waiting.clear()
            if len(piece) >= CHUNK:
                yield piece
            else:
                waiting += piece
        if waiting:
            yield bytes(waiting)

    def _pieces(self) -> Iterator[bytes]:
        yield self._head
        for header, upload in self._files:
            yield header
            yield from upload.chunks()
            yield b"\r\n"
        yield self._tail


def _filename(name: str) -> str:
    """The `filename` parameter; a name that cannot be quoted unchanged is also given percent-encoded (RFC 5987)."""
    plain = f'filename="{name.translate(_ESCAPES)}"'
    if '"' in name or "\\" in name or name.startswith("=?"):
        return f"{plain}; filename*=UTF-8''{quote(name, safe='')}"
    return plain
