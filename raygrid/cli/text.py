"""The encoding of what commands read and print: names are UTF-8 in every locale, and every character can be printed."""

from __future__ import annotations

import codecs
import io
import locale
import os
import sys

# Python's own choice is right for these: in the C locale (ASCII) it prints UTF-8.
_KEPT = frozenset({"utf-8", "ascii"})


def read_names_as_utf8() -> None:
    """Start this command again in Python's UTF-8 mode if the locale has another encoding.

    Otherwise Python decodes file names by the locale's encoding, and names that it cannot decode are unusable.
    Processes that the command starts, such as a grid, inherit the mode.
    """
    if os.name != "posix" or sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.execve(  # noqa: S606 - this command itself, without a shell
        sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"}
    )


def escape_unprintable_characters() -> None:
    r"""Print characters that the terminal's encoding lacks as escapes, such as `\u53d6`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=_encoding(), errors="backslashreplace")


def _encoding() -> str | None:
    """The encoding of the terminal, which UTF-8 mode hides; None for the one that Python chose."""
    if not sys.flags.utf8_mode or "PYTHONIOENCODING" in os.environ or os.name != "posix":
        return None
    try:
        known = codecs.lookup(locale.nl_langinfo(locale.CODESET)).name
    except LookupError:
        return None
    return None if known in _KEPT else known
