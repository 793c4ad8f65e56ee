"""Writes a small ZIP in memory, as `zipfile` would, at a tenth of its cost.

For small results with few files: no ZIP64, no streaming. Called by `zip_writers.py`; `result_zip.py` chooses.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

MOST_FILES = 1_000  # well below what needs ZIP64
TINY = 1024  # compressing less than this gains little, and costs a good part of a small job
_LEVEL = 6
# Window and memory of the packer, as powers of two: preparing those for any size costs more than packing a little text.
_ANY, _LITTLE, _LITTLE_ROOM = (-15, 8), (-11, 4), 2_048
_VERSION, _UNIX, _UTF8 = 20, 3, 0x800
_STORED, _DEFLATED = 0, 8
# No time stamp, so that the same output makes the same bytes: the first of January 1980, midnight.
_TIME, _DATE = 0, 0x21
_MODE = 0o644 << 16
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s4B4H3L5H2L")
_END = struct.Struct("<4s4H2LH")


def make(files: Iterable[tuple[str, bytes]]) -> bytes:
    """A ZIP of these files, in this order; less than 4 GB in all."""
    parts: list[bytes] = []
    directory: list[bytes] = []
    offset = count = 0
    for name, data in files:
        if name.isascii():
            title, flags = name.encode("ascii"), 0
        else:
            title, flags = name.encode(), _UTF8
        crc, size, kind, body = zlib.crc32(data), len(data), _STORED, data
        if size >= TINY:
            packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, *(_LITTLE if size <= _LITTLE_ROOM else _ANY))
            kind, body = _DEFLATED, packer.compress(data) + packer.flush()
        packed = len(body)
        parts += (
            _LOCAL.pack(b"PK\3\4", _VERSION, flags, kind, _TIME, _DATE, crc, packed, size, len(title), 0),
            title,
            body,
        )
        directory += (
            _CENTRAL.pack(
                b"PK\1\2", _VERSION, _UNIX, _VERSION, 0, flags, kind, _TIME, _DATE, crc, packed, size,
                len(title), 0, 0, 0, 0, _MODE, offset,
            ),
            title,
        )  # fmt: skip
        offset += _LOCAL.size + len(title) + packed
        count += 1
    listing = b"".join(directory)
    parts += (listing, _END.pack(b"PK\5\6", 0, 0, count, count, len(listing), offset, 0))
    return b"".join(parts)
