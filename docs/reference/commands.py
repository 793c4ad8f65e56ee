"""Generates the page of all commands from the Typer application."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import typer

from docs.reference.markdown import code, page, table, text
from raygrid.cli import app

OPENING = """\
Options of `raygrid` itself come before the command: `raygrid --url http://grid:8000 status`. Every command has
`--help`. An id that begins with `-` needs `--` before it: `raygrid status -- -7`.

Exit codes: 0 for success; 1 if a job failed, or a time limit was exceeded; 2 if the command line or a setting is wrong;
130 after Ctrl-C."""


@dataclass(frozen=True)
class Parameter:
    """An argument or option of a command."""

    names: str
    value: str
    default: str
    help: str
    is_argument: bool


@dataclass(frozen=True)
class CommandPage:
    """One command, as the page shows it."""

    name: str
    help: str
    parameters: tuple[Parameter, ...]
    is_family: bool

    @property
    def usage(self) -> str:
        """The command line in short."""
        words = [each.names for each in self.parameters if each.is_argument]
        options = ["[OPTIONS]"] if any(not each.is_argument for each in self.parameters) else []
        return " ".join((self.name, *options, *words, *(["COMMAND"] if self.is_family else [])))


def commands() -> Iterator[CommandPage]:
    """All commands that are not hidden; a group comes before its commands."""
    yield from _commands_of("raygrid", typer.main.get_command(app))


def markdown() -> str:
    """The page."""
    found = list(commands())
    rows = [(f"[`{each.name}`](#{_anchor(each)})", text(_first_sentence(each.help))) for each in found]
    return page("Command line", OPENING, (table(("command", "what it does"), rows), *(_entry(each) for each in found)))


def _entry(command: CommandPage) -> str:
    parts = [
        f"## {code(command.name)} {{ #{_anchor(command)} }}",
        f"```text\n{command.usage}\n```",
        text(inspect.cleandoc(command.help)),
    ]
    for title, of_arguments in (("argument", True), ("option", False)):
        rows = [
            (code(each.names), each.value, each.default, text(each.help))
            for each in command.parameters
            if each.is_argument is of_arguments
        ]
        if rows:
            parts.append(table((title, "value", "default", "meaning"), rows))
    return "\n\n".join(parts)


def _commands_of(name: str, command: Any) -> Iterator[CommandPage]:
    below = getattr(command, "commands", {})
    parameters = tuple(_parameter(each) for each in command.params if not each.hidden)
    yield CommandPage(name, command.help or "", parameters, bool(below))
    for word, each in below.items():
        if not each.hidden:
            yield from _commands_of(f"{name} {word}", each)


def _parameter(parameter: Any) -> Parameter:
    is_argument = parameter.param_type_name == "argument"
    if is_argument:
        word = (parameter.metavar or parameter.name).upper().removesuffix("...")
        names = word if parameter.required else f"[{word}]"
        names += "..." if parameter.nargs == -1 else ""
    else:
        names = ", ".join((*parameter.opts, *parameter.secondary_opts))
    return Parameter(names, _value(parameter), _default(parameter), parameter.help or "", is_argument)


def _value(parameter: Any) -> str:
    if parameter.metavar and parameter.param_type_name == "option":
        return code(parameter.metavar)
    if getattr(parameter, "is_flag", False):
        return ""
    kind = _plain(parameter.type_descriptor.annotation)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(code(each.value) for each in kind)
    return {int: "whole number", float: "number", Path: "path"}.get(kind, "text")


def _plain(annotation: Any) -> Any:
    """The type of one value of an option that may be left out or repeated."""
    if get_origin(annotation) in (Union, types.UnionType, list):
        return _plain(next(each for each in get_args(annotation) if each is not type(None)))
    return annotation


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if getattr(parameter, "is_flag", False):
        return code(parameter.opts[0] if value else parameter.secondary_opts[0]) if parameter.secondary_opts else ""
    if value is None or callable(value):
        return ""
    return code(value.value if isinstance(value, Enum) else value)


def _anchor(command: CommandPage) -> str:
    return command.name.replace(" ", "-")


def _first_sentence(help_text: str) -> str:
    return inspect.cleandoc(help_text).partition("\n\n")[0]
