"""Splits a command that is written as one line, and refuses shell operators in it, because no shell runs it.

Without a shell, `echo {input} > out.csv` prints its words, exits with code 0 and leaves no file: a wrong result that
looks right. Called by `pricer.py`.
"""

from __future__ import annotations

import re
import shlex

_OPERATOR = re.compile(r"\|\|?&?|&&?|&>>?.*|\d*(?:>>?|<<?<?|>\|)(?:&?[^&|;]*)?|(?:.*[^\\])?;;?", re.DOTALL)


def split(line: str) -> tuple[str, ...]:
    """The words of a command, as a shell would split it.

    Raises:
        ValueError: a word is a shell operator, or a quote is not closed.
    """
    if (operator := operator_in(line)) is not None:
        raise ValueError(
            f"no shell runs the command, so {operator[:40]!r} would be a plain argument: quote it if that is intended, "
            "or write sh -c 'COMMANDS' {input}, where COMMANDS use \"$0\" for the input"
        )
    return tuple(shlex.split(line))


def operator_in(line: str) -> str | None:
    r"""The first shell operator of a line, as written; None if there is none.

    Quoted and escaped words are not operators: `awk '$1 > 5'`, `--sep='|'`, `find … \;`.
    """
    return next((word for word in _as_written(line) if _OPERATOR.fullmatch(word)), None)


def _as_written(line: str) -> list[str]:
    """The words of a line with their quotes and backslashes."""
    words, word, quote, escaped = [], "", "", False
    for character in line:
        if escaped:
            word, escaped = word + character, False
        elif character == "\\" and quote != "'":
            word, escaped = word + character, True
        elif quote:
            word, quote = word + character, "" if character == quote else quote
        elif character.isspace():
            words.append(word)
            word = ""
        else:
            word, quote = word + character, character if character in "'\"" else ""
    return [each for each in (*words, word) if each]
