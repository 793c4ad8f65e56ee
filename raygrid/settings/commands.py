"""Placeholders in the commands of pricers, and the reasons why a command is refused.

Pure. Called by `settings/pricer.py`.
"""

from __future__ import annotations

import os
import string
from collections.abc import Sequence

from raygrid.settings.code_words import code_words

FIELDS = frozenset({"input", "output_dir", "data_dir", "job_id", "args"})
MOST_TEXT = 128 * 1024 - 1
"""The kernel's limit for one word of a command and for one variable ("NAME=VALUE"), bytes."""

_PLACEHOLDERS = frozenset(f"{{{name}}}" for name in FIELDS)


def placeholders(word: str) -> list[str]:
    """The names in braces, without formats and conversions."""
    return [name for _, name, _, _ in string.Formatter().parse(word) if name is not None]


def command_problem(command: Sequence[str]) -> str | None:
    """Why a command is refused, for its author; None if it is accepted.

    Raises:
        ValueError: the braces in a word are not balanced.
    """
    if not command:
        return "the command is empty; write for instance './pricer.exe {input}'"
    if not command[0]:
        return "the first word of the command is empty; it must name the program"
    if command[0] in _PLACEHOLDERS:
        return (
            f"the command begins with {command[0]}, but its first word must be the program: write for instance "
            f"'./pricer.exe {' '.join(command)}'"
        )
    problem = next((problem for word in command if (problem := _problem_of_word(word)) is not None), None)
    return problem or _problem_of_code(command)


def _problem_of_code(command: Sequence[str]) -> str | None:
    """The error for a placeholder in code that the command runs, which would run text from clients."""
    for code in code_words(command):
        for placeholder in placeholders(code.word):
            form = code.form.format(program=code.program, placeholder=placeholder)
            return (
                f"{{{placeholder}}} stands in code that {code.program} runs, {code.word[:80]!r}: text from a client, "
                "such as a file name, would run as code. Write it as a separate word after the code, which then reads "
                "it as an argument" + (f", for instance {form}" if form else "")
            )
    return None


def _problem_of_word(word: str) -> str | None:
    if "\0" in word or len(os.fsencode(word)) > MOST_TEXT:
        return f"a word of the command contains a NUL or has more than {MOST_TEXT} bytes: {word[:40]!r}"
    for placeholder in placeholders(word):
        if placeholder not in FIELDS:
            known = ", ".join(f"{{{name}}}" for name in sorted(FIELDS))
            return f"unknown placeholder {{{placeholder}}} in {word!r}; known are {known}"
        if placeholder == "args" and word != "{args}":
            return f"{{args}} must be a separate word, not part of {word!r}"
    if (plain := _plain(word)) != word:
        return f"a placeholder cannot contain ':' or '!': write {plain!r}"
    return None


def _plain(word: str) -> str:
    """A word of a command without the formats and conversions of its placeholders."""
    pieces = []
    for literal, name, _, _ in string.Formatter().parse(word):
        pieces.append(literal.replace("{", "{{").replace("}", "}}"))
        if name is not None:
            pieces.append(f"{{{name}}}")
    return "".join(pieces)
