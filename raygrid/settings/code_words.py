"""Finds the words of a command that are code: the script of `sh -c`, the program of `python -c`, `perl -e` or `awk`.

A placeholder must not be part of code. Clients choose the names of inputs, so `sh -c 'wc -l {input}'` would run code
that a file name contains. Pure; `settings/commands.py` checks commands with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

_SHELLS = r"(?:ba|da|a|z|k|mk|pdk|ya|rba|fi|c|tc)?sh(?:93)?"
_AS_ARGUMENT = """{program} -c 'wc -l "$0"' {{{placeholder}}}"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """How a program takes code.

    Attributes:
        names: pattern of its names, without directory and `.exe`.
        code: letters of the short options that take code.
        long: long options that take code.
        takes_value: letters of short options, and long options, whose value is the next word.
        ends: letters after which no option belongs to the interpreter.
        is_attached: whether code may follow the letter in the same word; otherwise other letters may follow it.
        is_operand: whether the first word that is not an option is code even without such a letter.
        form: a correct command, for the error.
    """

    names: str
    code: str
    long: tuple[str, ...] = ()
    takes_value: tuple[str, ...] = ()
    ends: str = ""
    is_attached: bool = True
    is_operand: bool = False
    form: str = ""


_PYTHON = "{program} -c 'import sys; print(open(sys.argv[1]).read())' {{{placeholder}}}"
_PERL = "{program} -e 'print scalar <>' {{{placeholder}}}"
_INTERPRETERS = (
    Interpreter(
        _SHELLS, "c", ("--command",), ("o", "O", "--rcfile", "--init-file"), is_attached=False, form=_AS_ARGUMENT
    ),
    Interpreter(
        r"python[\d.]*w?|pypy[\d.]*",
        "c",
        takes_value=("W", "X", "Q", "--check-hash-based-pycs"),
        ends="m",
        form=_PYTHON,
    ),
    Interpreter(r"perl[\d.]*", "eE", takes_value=("I",), form=_PERL),
    Interpreter(r"ruby[\d.]*", "e", takes_value=("I", "r", "C", "E")),
    Interpreter(r"node|nodejs|bun", "ep", ("--eval", "--print"), ("r", "--require", "--import"), is_attached=False),
    Interpreter(r"php[\d.]*", "rRBE", ("--run", "--process-code"), ("d", "c", "--define")),
    Interpreter(r"lua[\d.]*|luajit|texlua", "e", takes_value=("l",)),
    Interpreter(r"Rscript|R|littler", "e", ("--expression",)),
    Interpreter(r"julia", "eE", ("--eval", "--print"), ("L", "--load")),
    Interpreter(r"guile[\d.]*", "c", takes_value=("L", "C", "l")),
    Interpreter(
        r"[gmn]?awk",
        "",
        takes_value=("F", "v", "--field-separator", "--assign"),
        ends="f",
        is_operand=True,
        form="{program} 'PROGRAM' {{{placeholder}}}",
    ),
    Interpreter(r"env", "S", ("--split-string",), ("u", "C", "--unset", "--chdir")),
)
_OPTION = re.compile(r"[-+][A-Za-z].*", re.DOTALL)
_RUNS_SHELL = frozenset({"su", "runuser", "script", "flock"})  # their -c may follow other words
_SYSTEM = frozenset({"", "/bin", "/sbin", "/usr/bin", "/usr/sbin"})
_WINDOWS = re.compile(r"cmd|powershell|pwsh", re.IGNORECASE)
_CMD_COMMAND = re.compile(r"/[ckr]", re.IGNORECASE)
_POWERSHELL_COMMAND = re.compile(r"[-/](?:c|co|com|comm|comma|comman|command)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CodeWord:
    """A word that is code, or a part of one, of the program that runs it."""

    word: str
    program: str
    form: str = ""


def code_words(command: Sequence[str]) -> Iterator[CodeWord]:
    """The words of a command that are code, for every program in it that runs code (also after `env` or `nice`)."""
    for at, word in enumerate(command):
        name = PurePath(word.replace("\\", "/")).name.removesuffix(".exe")
        rest = command[at + 1 :]
        if _WINDOWS.fullmatch(name):
            yield from _of_windows(name, rest)
        if name in _RUNS_SHELL and word.rpartition("/")[0] in _SYSTEM:  # elsewhere, the name may be another program's
            yield from (CodeWord(each, word) for each in _of_option_c(rest))
        for interpreter in _INTERPRETERS:
            if re.fullmatch(interpreter.names, name):
                for code in _code_in(interpreter, rest):
                    yield CodeWord(code, word, interpreter.form)


def _code_in(interpreter: Interpreter, words: Sequence[str]) -> Iterator[str]:
    """The code in the words that follow an interpreter's name."""
    at, is_due = 0, interpreter.is_operand
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            continue
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            if name in interpreter.long:
                yield from (value,) if equals else words[at : at + 1]
            at += not equals and name in (*interpreter.long, *interpreter.takes_value)
        elif _OPTION.fullmatch(word):
            found = _of_cluster(interpreter, word[1:])
            if found.ends:
                return
            if found.code:
                yield found.code
            elif found.has_code and interpreter.is_attached:
                yield from words[at : at + 1]
            else:
                is_due |= found.has_code
            at += found.takes_next or (found.has_code and not found.code and interpreter.is_attached)
        else:
            if is_due:
                yield word
            return


@dataclass(frozen=True, slots=True)
class _Cluster:
    """Short options in one word."""

    has_code: bool = False
    code: str = ""
    takes_next: bool = False
    ends: bool = False


def _of_cluster(interpreter: Interpreter, letters: str) -> _Cluster:
    if not interpreter.is_attached:
        takes_next = letters[-1] in interpreter.takes_value
        return _Cluster(has_code=any(each in interpreter.code for each in letters), takes_next=takes_next)
    for index, letter in enumerate(letters):
        rest = letters[index + 1 :]
        if letter in interpreter.code:
            return _Cluster(has_code=True, code=rest)
        if letter in interpreter.ends:
            return _Cluster(ends=True)
        if letter in interpreter.takes_value:
            return _Cluster(takes_next=not rest)
        if not letter.isalnum() or letter in "Mm":  # the rest is a value, as in -Mstrict or -i.bak
            break
    return _Cluster()


def _of_option_c(words: Sequence[str]) -> Iterator[str]:
    """The words that follow -c and --command."""
    for at, word in enumerate(words):
        if word in ("-c", "--command"):
            yield from words[at + 1 : at + 2]
        elif word.startswith("--command="):
            yield word


def _of_windows(name: str, words: Sequence[str]) -> Iterator[CodeWord]:
    """The words that cmd and PowerShell join to one line of code: all words after /c or -Command.

    For cmd, a word that is only a placeholder is allowed: a batch file gets its input this way.
    """
    is_cmd = name.lower() == "cmd"
    command = _CMD_COMMAND if is_cmd else _POWERSHELL_COMMAND
    start = next((at for at, word in enumerate(words) if command.fullmatch(word)), len(words))
    for word in words[start + 1 :]:
        if not (is_cmd and re.fullmatch(r"\{\w+\}", word)):
            yield CodeWord(word, name, "" if is_cmd else '[{program}, -File, SCRIPT.ps1, "{{{placeholder}}}"]')
