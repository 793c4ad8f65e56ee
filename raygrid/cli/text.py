"""The text that commands read and print: names are UTF-8 whatever the locale is, and no command dies of an encoding."""

from __future__ import annotations

import codecs
import io
import locale
import os
import sys

# In the C locale Python itself prints UTF-8.
_AS_PYTHON_HAS_IT = frozenset({"utf-8", "ascii"})


def read_names_as_utf8() -> None:
    """Start this command again in Python's UTF-8 mode where the locale has another encoding.

    Names of files would be decoded by the locale otherwise, and those that it lacks could not be used at all. What this
    command starts, a grid for instance, is in UTF-8 mode as well.
    """
    if os.name != "posix" or sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.execve(  # noqa: S606 - this very command, and no shell
        sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"}
    )


def print_whatever_comes() -> None:
    r"""Have characters that the terminal's encoding lacks printed as escapes, such as `\u53d6`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=_encoding(), errors="backslashreplace")


def _encoding() -> str | None:
    """The encoding of the terminal where UTF-8 mode hides it; None for the one that Python chose."""
    if not sys.flags.utf8_mode or "PYTHONIOENCODING" in os.environ or os.name != "posix":
        return None
    try:
        known = codecs.lookup(locale.nl_langinfo(locale.CODESET)).name
    except LookupError:
        return None
    return None if known in _AS_PYTHON_HAS_IT else known
