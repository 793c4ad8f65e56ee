"""Headers of a form's part, as real clients write them."""

from __future__ import annotations

import time

import pytest

from raygrid.errors import InvalidRequestError
from raygrid.parent.http.part_headers import PartHead, part_head

NAME = "取引.csv"
STAR = b"filename*=UTF-8''%E5%8F%96%E5%BC%95.csv"
B_WORD = b"=?utf-8?B?5Y+W5byVLmNzdg==?="


def head(disposition: bytes, **others: bytes) -> PartHead:
    headers = {name.replace("_", "-").encode(): value for name, value in others.items()}
    return part_head({b"content-disposition": b"form-data; " + disposition, **headers})


@pytest.mark.parametrize(
    ("disposition", "filename"),
    [
        (f'name="file"; filename="{NAME}"'.encode(), NAME),
        (b'name=file; filename="' + B_WORD + b"\"; filename*=utf-8''%E5%8F%96%E5%BC%95.csv", NAME),
        (b'name="file"; ' + STAR, NAME),
        (b'name="file"; ' + STAR + b'; filename="fallback.csv"', NAME),
        (b'name="file"; filename="%E5%8F%96%E5%BC%95.csv"; ' + STAR, NAME),
        (b"name=\"file\"; FileName*=iso-8859-1'en'%A3%20rates.csv", "£ rates.csv"),
        (b'name="file"; filename="=?UTF-8?Q?=E5=8F=96=E5=BC=95.csv?="', NAME),
        (b'name="file"; filename="' + B_WORD + b'"', NAME),
        (b'name="file"; filename="=?utf-8?Q?a_b?= =?iso-8859-1?q?=E9.csv?="', "a bé.csv"),
        (b'name="file"; filename="=?iso-2022-jp?B?GyRCPGgwehsoQi5jc3Y=?="', NAME),
        (b'name="file"; filename="a =?utf-8?Q?b?=.csv"', "a =?utf-8?Q?b?=.csv"),
        (b'name="file"; filename="100%25.csv"', "100%25.csv"),
        (b'name="file"; filename="say \\"hi\\".csv"', 'say "hi".csv'),
        (b'name="file"; filename="say %22hi%22.csv"', "say %22hi%22.csv"),
        (b'name="file"; filename="a;b=c.csv"', "a;b=c.csv"),
        (b'name="file"; filename="C:\\Users\\me\\book.csv"', "C:\\Users\\me\\book.csv"),
        (b'name="file"; filename="C:\\\\me\\\\book.csv"', "C:\\me\\book.csv"),
        (b'name="file"; filename=""', ""),
        (b"filename=book.csv ;name=file", "book.csv"),
        (b'name="file"', None),
    ],
)
def test_a_file_name_is_read_as_the_client_meant_it(disposition: bytes, filename: str | None) -> None:
    """Quoted, percent-encoded (RFC 5987) and encoded as words (RFC 2047): each gives the one name that is meant."""
    assert head(disposition) == PartHead("file", filename)


@pytest.mark.parametrize(
    ("disposition", "fragment"),
    [
        (b'filename="x"', "has no name"),
        (b"", "has no name"),
        (b'name="file"; filename="' + NAME.encode("cp932") + b'"', "is not UTF-8"),
        (b'name="file"; filename="' + "予定表.csv".encode("cp932") + b'"', "is not UTF-8"),
        (b'name="file"; filename="' + "予定表".encode("cp932") + b'"', "malformed"),
        (b'name="file"; filename="a"; filename="b"', "malformed"),
        (b'name="file"; name="other"', "malformed"),
        (b'name="file"; filename="a', "malformed"),
        (b'name="file"; filename', "malformed"),
        (b'name="file"; filename="a" b', "malformed"),
        (b'name="file"; filename*=book.csv; filename="book.csv"', "filename* in the part 'file' is malformed"),
        (b"name=\"file\"; filename*=UTF-8''%E5%8F.csv", "is not UTF-8 text"),
        (b"name=\"file\"; filename*=UTF-8''%E5%8.csv", "malformed"),
        (b"name=\"file\"; filename*=unicode_escape''a", "unknown character set"),
        (b"name=\"file\"; filename*=nothing-known''a", "unknown character set"),
        (b'name="file"; filename*0="a"; filename*1="b"', "is split"),
        (b'name="file"; filename="=?utf-8?B?5Y+W5by?="', "malformed"),
        (b'name="file"; filename="=?utf-8?Q?=E5=8F?="', "is not UTF-8 text"),
        (b'name="file"; filename="=?utf-8?Q?=E?="', "malformed"),
        (b'name="file"; filename="=?idna?Q?a?="', "unknown character set"),
    ],
)
def test_a_name_that_could_be_read_in_several_ways_is_refused(disposition: bytes, fragment: str) -> None:
    """Bytes of an unnamed character set, doubled parameters and broken escapes are refused, and never guessed."""
    with pytest.raises(InvalidRequestError, match=fragment.replace("*", r"\*")):
        head(disposition)


def test_encoding_and_character_set_are_read_apart_from_the_names() -> None:
    """The encoding counts for all parts, the character set for texts only; other kinds of text are UTF-8."""
    option, file = b'name="args"', b'name="file"; filename="x"'
    sjis = b"Text/Plain; Charset=Shift_JIS"
    assert head(option, content_type=sjis) == PartHead("args", charset="Shift_JIS")
    assert head(file, content_type=sjis) == PartHead("file", "x")
    assert head(option, content_type=b"text/plain") == PartHead("args")
    assert head(option, content_type=b"application/json") == PartHead("args", charset="utf-8")
    assert head(file, content_transfer_encoding=b" BASE64 ") == PartHead("file", "x", "base64")
    assert part_head({b"content-disposition": b"attachment; name=file"}) == PartHead("file")


@pytest.mark.parametrize("parameter", [b"name=", b"name=file; charset=", b"name=file;", b'name="file"; x'])
def test_a_header_of_blanks_is_read_at_once(parameter: bytes) -> None:
    """A long run of blanks is read once: seconds for one header would stop the whole parent."""
    began = time.process_time()
    with pytest.raises(InvalidRequestError):
        head(parameter + b" " * 16_000 + b'"x')
    assert time.process_time() - began < 1
