"""Splits a command that is written as one line, and refuses in it what was meant for a shell, for none runs it.

`echo {input} > out.csv` without a shell prints its words, ends with exit code 0 and leaves no file: a wrong answer that
looks right. Called by `config`.
"""

from __future__ import annotations

import re
import shlex

_OPERATOR = re.compile(r"\|\|?&?|&&?|&>>?.*|\d*(?:>>?|<<?<?|>\|)(?:&?[^&|;]*)?|(?:.*[^\\])?;;?", re.DOTALL)


def split(line: str) -> tuple[str, ...]:
    """The words of a command, as a shell would split it.

    Raises:
        ValueError: a word is an operator of the shell, or a quote is not closed; says what to write instead.
    """
    if (operator := operator_in(line)) is not None:
        raise ValueError(
            f"no shell runs the command, so that {operator[:40]!r} in it would be a plain argument: quote it if it is "
            "meant as one, or write sh -c 'COMMANDS' {input}, where COMMANDS name the input as \"$0\""
        )
    return tuple(shlex.split(line))


def operator_in(line: str) -> str | None:
    r"""The first word of a line that only a shell understands, as it is written; None where there is none.

    Quoted and escaped words mean themselves: `awk '$1 > 5'`, `--sep='|'`, `find … \;`.
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
