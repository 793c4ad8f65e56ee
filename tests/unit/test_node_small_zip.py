"""Small ZIPs written by hand: any reader takes them, and they are what `zipfile` would have written."""

from __future__ import annotations

import io
import random
import zipfile

import pytest

from raygrid.node.attempt.zip_writers import MOST_FILES, small_zip

NOISE = random.Random(1).randbytes(5_000)


@pytest.mark.parametrize(
    "files",
    [
        [],
        [("stdout.txt", b""), ("stderr.txt", b""), ("manifest.json", b"{}\n")],
        [("text", b"price 1.25\n" * 30), ("sub/noise", NOISE), ("much", b"x" * 3_000_000)],
        [("Preis €.txt", b"1"), ("a" * 300, b"2"), ("日本/曲線", b"3" * 257)],
        [(f"{number}.csv", str(number).encode() * number) for number in range(MOST_FILES)],
    ],
    ids=["none", "nothing-printed", "sizes", "names", "many"],
)
def test_a_small_zip_reads_as_one_of_zipfile(files: list[tuple[str, bytes]]) -> None:
    """Names, contents, order, permissions, times and the ways of packing are those of the standard library's writer."""
    expected = io.BytesIO()
    with zipfile.ZipFile(expected, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, data in files:
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data, compress_type=zipfile.ZIP_STORED if len(data) < 1024 else zipfile.ZIP_DEFLATED)
    made = zipfile.ZipFile(io.BytesIO(small_zip(files)))
    assert made.testzip() is None
    assert [(name, made.read(name)) for name in made.namelist()] == files
    known = zipfile.ZipFile(expected)
    for mine, theirs in zip(made.infolist(), known.infolist(), strict=True):
        for field in ("compress_type", "CRC", "date_time", "external_attr", "flag_bits", "create_system", "file_size"):
            assert getattr(mine, field) == getattr(theirs, field), (mine.filename, field)


def test_nothing_printed_makes_the_same_bytes_as_zipfile() -> None:
    """Where nothing is compressed, not a byte differs."""
    files = [("stdout.txt", b""), ("stderr.txt", b"warning\n"), ("ü", b"x" * 255)]
    expected = io.BytesIO()
    with zipfile.ZipFile(expected, "w") as archive:
        for name, data in files:
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    assert small_zip(files) == expected.getvalue()
