"""Decodes parts of a form that were sent with a Content-Transfer-Encoding, piece by piece and strictly.

RFC 7578 deprecates these encodings, but mail libraries use them. A pricer must not get the encoded text.
"""

from __future__ import annotations

import binascii
import re
from typing import Protocol

PLAIN = frozenset({"", "7bit", "8bit", "binary"})
MOST_BLANKS = 1_000  # at the end of a line of quoted-printable; a line should have 76 characters

_WHITESPACE = b" \t\r\n"
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]")
_SOFT_BREAK = re.compile(rb"=[ \t]*\r?\n")
_BROKEN_ESCAPE = re.compile(rb"=(?![0-9A-Fa-f]{2}|[ \t]*\r?\n)")
_BLANKS_AT_END = re.compile(rb"(?<![ \t=])[ \t]+(?=\r?\n)")
_NOT_PRINTABLE = re.compile(rb"[^\t\r\n -~]")


class Decoder(Protocol):
    """Decodes one part. Both methods raise ValueError with the reason if the part is not in this encoding."""

    def feed(self, data: bytes) -> bytes:
        """Add the next bytes of the part; returns the bytes that can be decoded now."""

    def finish(self) -> bytes:
        """End the part; returns the remaining bytes."""


def decoder(transfer_encoding: str) -> Decoder | None:
    """A decoder for an encoding, given in lower case; None for encodings that do not change the bytes.

    Raises:
        ValueError: the encoding is unknown.
    """
    if transfer_encoding in PLAIN:
        return None
    if transfer_encoding == "base64":
        return Base64()
    if transfer_encoding == "quoted-printable":
        return QuotedPrintable()
    raise ValueError(
        f"its Content-Transfer-Encoding {transfer_encoding[:40]!r} is not known; send binary, base64 or "
        "quoted-printable, or leave the header out"
    )


class Base64:
    """Base64 (RFC 2045): line breaks and blanks are allowed anywhere, padding only at the end."""

    def __init__(self) -> None:
        self._held = b""
        self._ended = False

    def feed(self, data: bytes) -> bytes:
        """See `Decoder`."""
        text = self._held + data.translate(None, _WHITESPACE)
        if not text:
            return b""
        if self._ended:
            raise ValueError("it continues after the end of its base64 text")
        if (odd := _NOT_BASE64.search(text)) is not None:
            raise ValueError(f"it is not base64: it has the byte {odd[0]!r}")
        whole = len(text) // 4 * 4
        block, self._held = text[:whole], text[whole:]
        # Padding in the incomplete group must follow two characters of it, and only groups without padding.
        if b"=" in self._held and (b"=" in block or self._held.find(b"=") < 2):
            raise ValueError("it is not base64: it has padding before its end")
        if not block:
            return b""
        self._ended = block.endswith(b"=")
        if block.endswith(b"==="):
            raise ValueError("it is not base64: it has more padding than a group can have")
        if self._ended and self._held:
            raise ValueError("it continues after the end of its base64 text")
        try:
            return binascii.a2b_base64(block, strict_mode=True)
        except binascii.Error:
            raise ValueError("it is not base64: it has padding before its end") from None

    def finish(self) -> bytes:
        """See `Decoder`."""
        if self._held:
            raise ValueError("its base64 text is not complete: the number of characters is not a multiple of 4")
        return b""


class QuotedPrintable:
    """Quoted-printable (RFC 2045): line breaks are kept as sent, blanks at the end of a line are removed."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """See `Decoder`."""
        text = self._held + data
        at = _unfinished(text)
        if len(text) - at > MOST_BLANKS:
            raise ValueError(f"it is not quoted-printable: a line ends with more than {MOST_BLANKS} blanks")
        self._held = text[at:]
        return _unquoted(text[:at])

    def finish(self) -> bytes:
        """See `Decoder`."""
        rest = self._held.rstrip(b" \t") if not self._held.endswith(b"\r") else self._held
        return _unquoted(rest.removesuffix(b"="))


def _unfinished(text: bytes) -> int:
    """The start of an incomplete escape, soft line break or end of line at the end of a text."""
    line = text.removesuffix(b"\r").rstrip(b" \t")
    if line.endswith(b"="):
        return len(line) - 1
    if line[-2:-1] == b"=" and len(line) == len(text):
        return len(line) - 2
    return len(line)


def _unquoted(text: bytes) -> bytes:
    if (odd := _NOT_PRINTABLE.search(text)) is not None:
        raise ValueError(f"it is not quoted-printable: it has the byte {odd[0]!r}, which must be written as =XX")
    text = _BLANKS_AT_END.sub(b"", text)
    if _BROKEN_ESCAPE.search(text) is not None:
        raise ValueError("it is not quoted-printable: a '=' is not followed by two hexadecimal digits")
    return binascii.a2b_qp(_SOFT_BREAK.sub(b"", text))
