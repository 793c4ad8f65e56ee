r"""Makes texts of pricers and other users safe to show: control characters become escapes such as `\x1b`.

Terminal sequences can hide or forge lines, change the title of the window, or write to the clipboard. Bidirectional
overrides and isolates show a text in another order than that of its characters. The text of every error is escaped,
and so is what commands print on a terminal. A pricer's own bytes, in results and in pipes, are never changed.
"""

from __future__ import annotations

import re

# C0 but tab and the end of a line (LF, CR LF), DEL and C1; bidirectional embeddings, overrides and isolates.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|\r(?!\n)")


def escape_control_characters(text: str) -> str:
    """The text with its control characters visible; escaping it again changes nothing."""
    return text if text.isascii() and text.isprintable() else _CONTROL.sub(_escape, text)


def escape_in_json(text: str) -> str:
    """A JSON document with the same content, in which they are escaped as JSON has it."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
