"""Manifests: results as nodes write them and clients read them. The first byte chooses what the others are.

0: a ZIP, as a damaged disk or a proxy may deliver it. 1: names and contents, separated by NUL, of which a node makes
a ZIP. 2: the manifest of an earlier result in a directory. 3: a stream of results, in pieces of the size of the next
byte.
"""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

from raygrid.client.earlier import remove_earlier
from raygrid.client.multipart import PartsParser, ResultPart, StreamEnd
from raygrid.client.result import MANIFEST, Result
from raygrid.errors import RaygridError
from raygrid.node.attempt.result_zip import name_in_zip
from raygrid.node.attempt.zip_writers import small_zip
from security.fuzzers.target import Target, pieces

STREAM = "multipart/mixed; boundary=b"
INSIDE, OUTSIDE = "inside", "outside"
_STAYS = b"stays"


def _read_zip(data: bytes) -> None:
    result = Result("job", data)
    for name in result.files:
        result.read(name)
    _ = result.stdout, result.stderr, result.manifest, result._repr_html_()


def _extract(data: bytes, manifest: bytes | None = None) -> None:
    """Unpack a result, perhaps over an earlier one; nothing outside of the directory may change."""
    with tempfile.TemporaryDirectory(prefix="rg-fuzz-") as scratch:
        inside, outside = Path(scratch, INSIDE), Path(scratch, OUTSIDE)
        outside.write_bytes(_STAYS)
        inside.mkdir()
        try:
            if manifest is not None:
                (inside / MANIFEST).write_bytes(manifest)
                remove_earlier(inside)
            else:
                Result("job", data).extract(inside)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # the error of the disk says it all
                raise
        finally:
            assert outside.read_bytes() == _STAYS, "a file outside of the directory was changed"
            assert {each.name for each in Path(scratch).iterdir()} == {INSIDE, OUTSIDE}, "a file was written outside"


def _round_trip(data: bytes) -> None:
    """What a node puts into a ZIP is what a client reads."""
    parts = data.split(b"\0")
    names = (part.decode(errors="replace") for part in parts[::2])
    files = {name_in_zip(name): content for name, content in zip(names, parts[1::2], strict=False) if name}
    written = small_zip(files.items())
    result = Result("job", written)
    for name, content in files.items():
        if not name.endswith("/"):
            assert result.read(name) == content, "a file of the result is not the one that was written"
    _extract(written)


def _read_stream(data: bytes) -> None:
    """A stream reads the same in pieces and as a whole, up to the place where it is damaged."""
    size, body = (data[0] or 1, data[1:]) if data else (1, data)
    parser = PartsParser(STREAM)
    found: list[ResultPart | StreamEnd] = []
    for piece in pieces(body, size):
        found += parser.feed(piece)
    assert found == PartsParser(STREAM).feed(body), "the results depend on how they arrive"


def read(data: bytes) -> None:
    """Read one input."""
    kind, rest = (data[0] % 4, data[1:]) if data else (0, data)
    if kind == 0:
        _read_zip(rest)
        _extract(rest)
    elif kind == 1:
        _round_trip(rest)
    elif kind == 2:
        _extract(b"", rest)
    else:
        _read_stream(rest)


TARGET = Target(read, (RaygridError,))
