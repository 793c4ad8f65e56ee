"""Parses the headers of a part of a form: its name, the name of its file, and the encoding of its bytes.

Browsers, .NET, Spring and other clients write these headers in different ways (RFC 7578, 5987 and 2047). Unambiguous
headers are accepted; all others are refused with a reason, so that no name is guessed.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from raygrid.errors import InvalidRequestError

CONTENT_HEADERS = frozenset({b"content-disposition", b"content-transfer-encoding", b"content-type"})

# The usual form of the header, for which the general parser is not needed.
_USUAL = re.compile(rb'form-data; name="([^"\\]*)"(?:; filename="((?!=\?)[^"\\]*)")?')
# Possessive (`*+`), so that a long run of blanks takes linear time.
_PARAMETER = re.compile(rb'\s*+;\s*+([^\s=;"]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s;"]*+))\s*+(?=;|$)', re.DOTALL)
_ESCAPED = re.compile(rb'\\(["\\])')
_EXTENDED = re.compile(r"([^']*)'[^']*'((?:[^%]|%[0-9A-Fa-f]{2})*)", re.DOTALL)
_WORD = r"=\?([^?*\s]+)(?:\*[^?\s]*)?\?([bBqQ])\?([!->@-~]*)\?="
_ENCODED_WORDS = re.compile(rf"{_WORD}(?:[ \t]+{_WORD})*")
_ONE_WORD = re.compile(_WORD)
_Q_TEXT = re.compile(r"(?:[^=]|=[0-9A-Fa-f]{2})*")
_CHARSET_NAME = re.compile(r"[A-Za-z0-9._:-]{1,40}")
# Character sets by Python's names; other codecs of Python are not character sets, or are slow.
_CHARSETS = frozenset(
    [
        *("utf-8", "ascii", "utf-16", "utf-16-be", "utf-16-le", "koi8-r", "koi8-u", "mac-roman", "cp437", "cp850"),
        *("cp932", "shift_jis", "shift_jis_2004", "euc_jp", "iso2022_jp", "cp949", "euc_kr", "cp874"),
        *("gb2312", "gbk", "gb18030", "big5", "big5hkscs", "cp950"),
    ]
    + [f"iso8859-{part}" for part in range(1, 17)]
    + [f"cp{page}" for page in range(1250, 1259)]
)


@dataclass(frozen=True, slots=True)
class PartHead:
    """The content of a part's headers.

    Attributes:
        name: name of the form's field.
        filename: name of the file; None if the part is not a file.
        transfer_encoding: encoding of the bytes, in lower case; empty if the header is missing.
        charset: character set of a text; None if the headers name none.
    """

    name: str
    filename: str | None = None
    transfer_encoding: str = ""
    charset: str | None = None


def part_head(headers: Mapping[bytes, bytes]) -> PartHead:
    """Parse a part's headers, given by their names in lower case.

    Raises:
        InvalidRequestError: the name of the part is missing, or a header is ambiguous.
    """
    disposition = headers.get(b"content-disposition", b"")
    usual = _USUAL.fullmatch(disposition)
    if usual is not None and len(headers) == 1:
        return PartHead(*_named(usual[1], usual[2]))
    if usual is not None:
        name, filename = _named(usual[1], usual[2])
    else:
        name, filename = _unusual(disposition)
    encoding = headers.get(b"content-transfer-encoding", b"").decode("latin-1").strip().lower()
    return PartHead(name, filename, encoding, None if filename is not None else _charset(headers, name))


def _named(name: bytes, filename: bytes | None) -> tuple[str, str | None]:
    field = name.decode(errors="replace")  # no option has a name that is not UTF-8
    if filename is None:
        return field, None
    try:
        return field, filename.decode()
    except UnicodeDecodeError:
        raise InvalidRequestError(
            f"the file name in the part {field[:140]!r} is not UTF-8: {filename[:140]!r}; send it as UTF-8, or as "
            "filename*=UTF-8''… with percent-encoding (RFC 5987)"
        ) from None


def _unusual(disposition: bytes) -> tuple[str, str | None]:
    _, parameters = parameters_of(disposition)
    if b"name" not in parameters:
        raise InvalidRequestError("a part of the form has no name; each needs Content-Disposition: form-data; name=…")
    name = parameters[b"name"]
    field = name.decode(errors="replace")
    if any(parameter.startswith(b"filename*") for parameter in parameters.keys() - {b"filename*"}):
        raise InvalidRequestError(
            f"the file name in the part {field[:140]!r} is split (filename*0=…); send it as one parameter, filename=… "
            "or filename*=UTF-8''…"
        )
    if b"filename*" in parameters:  # takes precedence over filename (RFC 6266)
        return field, _extended(parameters[b"filename*"], field)
    _, filename = _named(name, parameters.get(b"filename"))
    return field, filename if filename is None else _without_encoded_words(filename, field)


def parameters_of(header: bytes) -> tuple[str, dict[bytes, bytes]]:
    """The value of a header, and its parameters by their names in lower case.

    In quotes, only escaped quotes and backslashes are resolved, because some clients send Windows paths unescaped.

    Raises:
        InvalidRequestError: it is malformed, or a parameter is repeated.
    """
    kind, semicolon, rest = header.partition(b";")
    rest = semicolon + rest
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(rest) and rest[at:].strip(b"; \t"):
        match = _PARAMETER.match(rest, at)
        if match is None or match[1].lower() in found:
            raise InvalidRequestError(f"a header of the form is malformed: {header[:200]!r}")
        found[match[1].lower()] = _ESCAPED.sub(rb"\1", match[2]) if match[2] is not None else match[3]
        at = match.end()
    return kind.decode("latin-1").strip().lower(), found


def _extended(value: bytes, field: str) -> str:
    """The text of a parameter whose name ends in an asterisk (RFC 5987)."""
    match = _EXTENDED.fullmatch(value.decode("latin-1"))
    if match is None:
        raise InvalidRequestError(
            f"filename* in the part {field[:140]!r} is malformed: {value[:140]!r}; write filename*=UTF-8''name with "
            "percent-encoding"
        )
    return decoded(unquote_to_bytes(match[2].encode("latin-1")), match[1], f"filename* in the part {field[:140]!r}")


def _without_encoded_words(filename: str, field: str) -> str:
    """A file name; decoded if it consists of encoded words (RFC 2047), such as `=?utf-8?B?…?=`."""
    if _ENCODED_WORDS.fullmatch(filename) is None:
        return filename
    what = f"the file name in the part {field[:140]!r}"
    pieces = []
    for charset, kind, text in _ONE_WORD.findall(filename):
        try:
            if kind in "bB":
                data = binascii.a2b_base64(text, strict_mode=True)
            elif _Q_TEXT.fullmatch(text) is not None:
                data = binascii.a2b_qp(text, header=True)
            else:
                raise binascii.Error("an escape is not complete")
        except binascii.Error:
            raise InvalidRequestError(f"{what} is malformed: {filename[:140]!r}") from None
        pieces.append(decoded(data, charset, what))
    return "".join(pieces)


def _charset(headers: Mapping[bytes, bytes], field: str) -> str | None:
    """The character set in the content type of an option; UTF-8 for types other than text; None if there is none."""
    if b"content-type" not in headers:
        return None
    kind, parameters = parameters_of(headers[b"content-type"])
    if b"charset" in parameters:
        return parameters[b"charset"].decode("latin-1")
    return None if kind.startswith("text/") or not kind else "utf-8"


def decoded(data: bytes | bytearray, charset: str, what: str) -> str:
    """Decode text in a character set that a client names.

    Raises:
        InvalidRequestError: the character set is unknown, or the bytes are invalid in it; begins with `what`.
    """
    try:
        codec = codecs.lookup(charset).name if _CHARSET_NAME.fullmatch(charset) else ""
    except LookupError:
        codec = ""
    if codec not in _CHARSETS:
        raise InvalidRequestError(f"{what} has an unknown character set, {charset[:40]!r}; send it as UTF-8")
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        named = "UTF-8" if codec == "utf-8" else charset
        raise InvalidRequestError(f"{what} is not {named} text") from None
