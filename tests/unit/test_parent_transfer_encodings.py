"""Decoders of a part's Content-Transfer-Encoding: the same bytes however they are cut, and no others."""

from __future__ import annotations

import base64
import quopri
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raygrid.parent.http.transfer_encodings import MOST_BLANKS, decoder

CUTS = st.lists(st.integers(0, 2_000), max_size=20)


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    at = 0
    for cut in sorted({*cuts, len(data)}):
        yield data[at:cut]
        at = max(at, cut)


def decoded(encoding: str, data: bytes, cuts: list[int]) -> bytes:
    made = decoder(encoding)
    assert made is not None
    return b"".join([*(made.feed(piece) for piece in pieces(data, cuts)), made.finish()])


@given(st.binary(max_size=1_500), CUTS, st.sampled_from([b"\r\n", b"\n", b""]))
def test_base64_gives_what_was_encoded(content: bytes, cuts: list[int], line_end: bytes) -> None:
    """Wherever chunks are cut and lines are broken, base64 decodes to the bytes that were encoded."""
    assert decoded("base64", base64.encodebytes(content).replace(b"\n", line_end), cuts) == content


@given(st.binary(max_size=1_500), CUTS)
def test_quoted_printable_gives_what_was_encoded(content: bytes, cuts: list[int]) -> None:
    """Wherever chunks are cut, quoted-printable decodes to the bytes that were encoded; lines end as they were sent."""
    content = content.replace(b"\r", b"").replace(b"\n", b"\r\n")
    encoded = quopri.encodestring(content.replace(b"\r\n", b"\n"), quotetabs=True).replace(b"\n", b"\r\n")
    assert decoded("quoted-printable", encoded, cuts) == content


@pytest.mark.parametrize(
    ("sent", "content"),
    [
        (b"a=3Db=\r\nc\r\n", b"a=bc\r\n"),
        (b"a=3db", b"a=b"),
        (b"a \t \r\nb  ", b"a\r\nb"),
        (b"a=20 \r\nb", b"a \r\nb"),
        (b"a= \t\r\nb=", b"ab"),
        (b"a \nb\rc", b"a\nb\rc"),
        (b"a =\r\nb", b"a b"),
        (b"", b""),
    ],
)
def test_quoted_printable_by_hand(sent: bytes, content: bytes) -> None:
    """Soft line breaks go, blanks before a line's end go, small letters are digits, too; for each place of a cut."""
    for cut in range(len(sent) + 1):
        assert decoded("quoted-printable", sent, [cut]) == content


@pytest.mark.parametrize(
    ("encoding", "sent", "fragment"),
    [
        ("base64", b"aWQ*", "has the byte"),
        ("base64", b"id,kind\r\nt1,call\r\n", "has the byte"),
        ("base64", b"aWQsa2luZ", "not complete"),
        ("base64", b"YQ==YQ==", "continues after the end|padding before its end"),
        ("base64", b"YQ==\r\n\r\nYQ==", "continues after the end|padding before its end"),
        ("base64", b"Y===", "padding before its end|more padding"),
        ("base64", b"====", "padding before its end|more padding"),
        ("base64", b"ZA++====", "more padding|continues after the end|padding before its end"),
        ("quoted-printable", b"==\r\n3D", "two hexadecimal digits"),
        ("base64", b"YQ=a", "padding before its end"),
        ("base64", b"YQ==a", "continues after the end"),
        ("base64", b"YQ===", "padding before its end|continues after the end|more padding"),
        ("quoted-printable", b"a=", None),
        ("quoted-printable", b"a=3", "two hexadecimal digits"),
        ("quoted-printable", b"a=xy", "two hexadecimal digits"),
        ("quoted-printable", b"==3D", "two hexadecimal digits"),
        ("quoted-printable", b"a=b,c", "two hexadecimal digits"),
        ("quoted-printable", "é".encode(), "must be written as =XX"),
        ("quoted-printable", b"a\0", "must be written as =XX"),
    ],
)
def test_bytes_outside_the_encoding_are_refused(encoding: str, sent: bytes, fragment: str | None) -> None:
    """Garbage, text that was cut off and text after the end are errors wherever chunks are cut."""
    for cut in range(len(sent) + 1):
        if fragment is None:
            assert decoded(encoding, sent, [cut]) == b"a"
        else:
            with pytest.raises(ValueError, match=fragment):
                decoded(encoding, sent, [cut])


def test_a_line_of_blanks_without_an_end_is_not_held() -> None:
    """Quoted-printable holds back only what a line can end with, so a body of blanks does not fill the memory."""
    made = decoder("quoted-printable")
    assert made is not None
    for _ in range(MOST_BLANKS):
        made.feed(b" ")
    with pytest.raises(ValueError, match=f"more than {MOST_BLANKS} blanks"):
        made.feed(b" ")


def test_other_encodings() -> None:
    """Encodings that leave bytes as they are need no decoder; unknown ones are refused."""
    assert [decoder(each) for each in ("", "7bit", "8bit", "binary")] == [None] * 4
    with pytest.raises(ValueError, match="'x-uuencode' is not known"):
        decoder("x-uuencode")
