"""Errors in settings, in words: where they are and what is allowed there. Called by `model.py` and `sources.py`.

Values are never quoted, because they may be secrets; neither is text in the place of a name (`key:SECRET`).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

Place = tuple[int | str, ...]

_TEXT = "must be text (in quotes, if it looks like something else)"
_SETTINGS = "must hold settings of its own, each as NAME: VALUE"
_ALLOWED = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": _TEXT,
    "path_type": _TEXT,
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "model_type": _SETTINGS,
    "model_attributes_type": _SETTINGS,
    "dict_type": _SETTINGS,
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "frozen_set_type": "must be a list",
}
# Part of a message of YAML, and the text that replaces it: YAML often quotes the file, and names tokens and scalars.
_OF_YAML = {
    r"character '\t'": "a tab where YAML needs spaces",
    "cannot start any token": "a value that begins with this character must be in quotes",
    "mapping values are not allowed here": "mapping values are not allowed here; one that holds ': ' must be in quotes",
    "expected ',' or ']'": "the list that begins in BEGUN lacks a ',' or ']' here",
    "expected ',' or '}'": "the settings in braces that begin in BEGUN lack a ',' or '}' here",
    "unexpected end of stream": "the quotes that open in BEGUN are not closed",
    "expected <block end>": "this does not fit the lines before it; check the indentation, dashes and quotes",
    "expected ':'": "a line above is neither NAME: VALUE nor part of a value; see BEGUN",
    "undefined alias": "a value that begins with * must be in quotes",
    "second occurrence": "a value that begins with & must be in quotes",
    "alphabetic or numeric character": "a value that begins with & or * must be in quotes",
    "constructor for the tag": "a value that begins with ! must be in quotes",
    "tag handle": "a value that begins with ! must be in quotes",
    "expected '>'": "a value that begins with ! must be in quotes",
    "unknown escape character": "unknown escape; in single quotes a backslash is an ordinary character",
    "escape sequence": "incomplete escape; in single quotes a backslash is an ordinary character",
    "chomping or indentation": "after | or > the text begins on the next line",
    "the node content": "a value is missing here",
    "set twice": "this name is set here for the second time; the first time is in BEGUN",
    "neither date nor number": "this looks like a date or a number but is not one; put text in quotes",
    "too large": "the settings are nested too deeply, or have too many values with all those that * repeats",
    "contains itself": "this value contains itself; a value that begins with * must be in quotes",
    "unhashable key": "a name cannot be a list or settings in braces",
    "<document start>": "a line above begins with %, which YAML reserves",
    "another document": "a second document begins here with ---; settings must be one document",
}
_UNKNOWN = "no such setting"
_OWN_NAME = r"[a-z_]{1,40}"  # names of settings
_ANY_NAME = r"[\w.-]{1,64}"  # names of variables, pricers and the like
_KINDS = frozenset({"bool", "int", "float", "str", "[key]"})  # parts that pydantic adds to the end of a place


def error_message(
    error: ValidationError, model: type[BaseModel], prefix: str, path: Path | None, text: str, given: Collection[str]
) -> str:
    """List every error: where it is, in the file (`path` with its `text`) or a variable, and what is allowed there.

    Names of variables begin with `prefix`; `given` are the top-level settings that override the file.
    """
    root = yaml.compose(text) if text else None
    found: dict[Place, list[str]] = {}
    for each in error.errors(include_input=False):
        place = each["loc"]
        while place and place[-1] in _KINDS:
            place = place[:-1]
        words = found.setdefault(place, [])
        rule = _allowed(each["type"], each["msg"], each.get("ctx", {}), place, model)
        if rule not in words:
            words.append(rule)
    lines = []
    for place, words in found.items():
        where = _origin(place, prefix, path, None if set(place[:1]) & set(given) else root)
        patterns = [_ANY_NAME] * len(place)
        if any(each.startswith(_UNKNOWN) for each in words):
            patterns[-1] = _OWN_NAME
        name = ".".join(map(_named, place, patterns))
        lines.append("  " + ": ".join(part for part in (where, name, ", or ".join(words)) if part))
    return "the settings are not valid:\n" + "\n".join(lines)


def _named(part: int | str, pattern: str) -> str:
    """A part of a place, or `…` if it may be a value in the place of a name."""
    text = str(part)
    return text if re.fullmatch(pattern, text) else "…"


def _allowed(kind: str, message: str, context: Mapping[str, Any], place: Place, model: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        known = sorted(_known(model, place[:-1]))
        close = difflib.get_close_matches(str(place[-1]), known, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        return f"{_UNKNOWN}; {meant}known here are {', '.join(known)}" if known else _UNKNOWN
    if kind == "value_error":
        return str(context.get("error", message))
    return _ALLOWED[kind].format(**context) if kind in _ALLOWED else message


def _known(model: type[BaseModel], place: Place) -> Collection[str]:
    """The settings of a section, given by its place."""
    kind: Any = model
    for part in place:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            if field is None:
                return ()
            kind = field.annotation
        else:  # a dict or a list: the kind of its values
            kind = next((each for each in reversed(get_args(kind)) if each is not Ellipsis), None)
        if type(None) in get_args(kind):
            kind = get_args(kind)[0]
    return kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else ()


def _origin(place: Place, prefix: str, path: Path | None, root: yaml.Node | None) -> str:
    """The variable or the line of the file that sets a place; empty if neither does."""
    variables = {name.upper(): name for name in os.environ}
    for length in range(len(place), 0, -1):
        variable = variables.get((prefix + "__".join(str(part) for part in place[:length])).upper())
        if variable is not None:
            return f"variable {variable}"
        line = None if root is None or path is None else _line(root, place[:length])
        if line is not None:
            return f"{path}, line {line}"
    return str(path) if path is not None and not place else ""


def _line(node: yaml.Node, place: Sequence[int | str]) -> int | None:
    """The line of a setting in the file, from 1; None if it is not there."""
    line = None
    for part in place:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if pair is None:
                return None
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return None
    return line


def unreadable_yaml(error: yaml.YAMLError, text: str) -> str:
    """Where a file is not valid YAML, and why, without quoting the file."""
    if isinstance(error, yaml.reader.ReaderError):
        line, column = text.count("\n", 0, error.position), error.position - text.rfind("\n", 0, error.position) - 1
        return f"see {_at(line, column)}: a character that YAML does not allow, such as a control character"
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return "it cannot be read"
    mark, begun = error.problem_mark, error.context_mark or error.problem_mark
    return f"see {_at(mark.line, mark.column)}: {_why(error.problem or '', _at(begun.line, begun.column))}"


def _at(line: int, column: int) -> str:
    return f"line {line + 1}, column {column + 1}"


def _why(problem: str, begun: str) -> str:
    """YAML's error in plain words, without its quotes."""
    for part, words in _OF_YAML.items():
        if part in problem:
            return words.replace("BEGUN", begun)
    return re.sub("['\"`].*['\"`]", "…", problem, flags=re.DOTALL) or "this is not YAML"


def repeated_name(first: yaml.Node, second: yaml.Node) -> yaml.YAMLError:
    """The error for a name that a file sets twice in one place."""
    return yaml.constructor.ConstructorError(None, first.start_mark, "set twice", second.start_mark)


def unreadable_value(node: yaml.Node) -> yaml.YAMLError:
    """The error for a value that looks like a date or a number but is not one."""
    return yaml.constructor.ConstructorError(None, node.start_mark, "neither date nor number", node.start_mark)


def too_large(mark: yaml.Mark) -> yaml.YAMLError:
    """The error for a file that has too many values, or one that lies too deep."""
    return yaml.constructor.ConstructorError(None, mark, "too large", mark)


def contains_itself(mark: yaml.Mark) -> yaml.YAMLError:
    """The error for a value that contains an alias of itself."""
    return yaml.constructor.ConstructorError(None, mark, "contains itself", mark)


def unreadable_variable(message: str, prefix: str) -> str:
    """Which variable cannot be read, and why."""
    named = re.search(r'field "(\w+)"', message)
    if named is None:
        return f"a variable that begins with {prefix} cannot be read"
    variable = f"{prefix}{named[1].upper()}"
    inner = sorted(name for name in os.environ if name.upper().startswith(f"{variable}__"))
    if inner and not any(name.upper() == variable for name in os.environ):
        which = "the variable" if len(inner) == 1 else "one of the variables"
        return f"{which} {', '.join(inner)} is not JSON; a list or a group of settings must be JSON"
    return (
        f"the variable {variable} is not JSON; write JSON, or one variable for each setting, such as {variable}__NAME"
    )
