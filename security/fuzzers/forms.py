"""Forms: multipart bodies as parents read them, with the headers of their parts, encodings and character sets.

The first byte chooses the size of the pieces in which the body arrives; the body must read the same in one piece.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import cast

from raygrid.blobs import BlobStore
from raygrid.errors import InvalidRequestError, RaygridError
from raygrid.models import BlobSlice
from raygrid.parent.http.forms import FormReader, ReceivedForm, limited
from raygrid.system.filenames import problem_of_input
from security.fuzzers.target import Target, finished, pieces

TYPE = "multipart/form-data; boundary=b"
INLINE = 64  # bytes, so that small inputs reach the blob store, too
MOST_FILES = 8
MOST_BODY = 1024**2


class _Upload:
    """A blob in memory."""

    def __init__(self) -> None:
        self._data = b""

    async def write(self, chunk: bytes) -> None:
        self._data += chunk

    async def finish(self, key_for: Callable[[str], str]) -> BlobSlice:
        digest = hashlib.sha256(self._data).hexdigest()
        return BlobSlice(key_for(digest), 0, len(self._data), digest)

    async def abort(self) -> None:
        self._data = b""


class _Blobs:
    def new_upload(self) -> _Upload:
        return _Upload()


async def _arriving(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def _form(chunks: Iterable[bytes]) -> ReceivedForm:
    reader = FormReader(cast(BlobStore, _Blobs()), inline=INLINE, max_files=MOST_FILES)
    return finished(reader.read(TYPE, limited(_arriving(chunks), MOST_BODY)))


def _outcome(chunks: Iterable[bytes]) -> ReceivedForm | None:
    try:
        return _form(chunks)
    except InvalidRequestError:
        return None


def read(data: bytes) -> None:
    """Read a body in pieces and as a whole."""
    size, body = (data[0] or 1, data[1:]) if data else (1, data)
    whole, in_pieces = _outcome([body]), _outcome(pieces(body, size))
    assert whole == in_pieces, "the form depends on how its body arrives"
    for file in whole.files if whole is not None else ():
        assert file.filename not in ("", ".", ".."), "the file has no name in a job directory"
        assert "/" not in file.filename, "the file would be in another directory"
        assert problem_of_input(file.filename) is None
        assert file.inline is None or len(file.inline) == file.blob.size


TARGET = Target(read, (RaygridError,))
