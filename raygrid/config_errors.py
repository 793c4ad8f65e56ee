"""Where settings are wrong and what is allowed there, in words for whoever wrote them. Called by `config` only.

What was written is never quoted: it may be a secret.
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
_KINDS = frozenset({"bool", "int", "float", "str", "[key]"})  # what pydantic adds to a place, and nobody wrote


def in_words(
    error: ValidationError, model: type[BaseModel], prefix: str, path: Path | None, text: str, given: Collection[str]
) -> str:
    """Say of everything that is wrong where it stands and what is allowed there.

    Args:
        error: what is wrong.
        model: the settings as a whole.
        prefix: what the names of variables begin with.
        path: the settings file, if there is one.
        text: what stands in it.
        given: top-level settings that win over the file, and come from elsewhere.
    """
    root = yaml.compose(text) if text else None
    found: dict[Place, list[str]] = {}
    for each in error.errors(include_input=False):
        place = each["loc"]
        while place and place[-1] in _KINDS:
            place = place[:-1]
        words = found.setdefault(place, [])
        said = _allowed(each["type"], each["msg"], each.get("ctx", {}), place, model)
        if said not in words:
            words.append(said)
    lines = []
    for place, words in found.items():
        where = _origin(place, prefix, path, None if set(place[:1]) & set(given) else root)
        name = ".".join(str(part) for part in place)
        lines.append("  " + ": ".join(part for part in (where, name, ", or ".join(words)) if part))
    return "the settings are not valid:\n" + "\n".join(lines)


def _allowed(kind: str, message: str, context: Mapping[str, Any], place: Place, model: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        known = sorted(_known(model, place[:-1]))
        close = difflib.get_close_matches(str(place[-1]), known, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        return f"no such setting; {meant}known here are {', '.join(known)}" if known else "no such setting"
    if kind == "value_error":
        return str(context.get("error", message))
    return _ALLOWED[kind].format(**context) if kind in _ALLOWED else message


def _known(model: type[BaseModel], place: Place) -> Collection[str]:
    """The settings that a section has; the section is named by its place."""
    kind: Any = model
    for part in place:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            if field is None:
                return ()
            kind = field.annotation
        else:  # of a dict or a list: what it holds
            kind = next((each for each in reversed(get_args(kind)) if each is not Ellipsis), None)
        if type(None) in get_args(kind):
            kind = get_args(kind)[0]
    return kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else ()


def _origin(place: Place, prefix: str, path: Path | None, root: yaml.Node | None) -> str:
    """The variable or the line of the file that says it; empty where neither does."""
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
    """The line on which a setting stands, from 1; None if it does not."""
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


def unreadable_yaml(error: yaml.YAMLError) -> str:
    """Where a file stops being YAML, and why, without the lines that YAML would quote."""
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    if mark is None:
        return "it cannot be read"
    problem = (error.problem if isinstance(error, yaml.MarkedYAMLError) else None) or ""
    if r"'\t'" in problem:
        problem = "a tab stands where YAML wants spaces"
    why = f": {problem}" if problem and not re.search("['\"`]", problem) else ""
    return f"see line {mark.line + 1}, column {mark.column + 1}{why}"


def unreadable_variable(message: str, prefix: str) -> str:
    """Which variable holds what cannot be read."""
    named = re.search(r'field "(\w+)"', message)
    if named is None:
        return f"a variable that begins with {prefix} cannot be read"
    variable = f"{prefix}{named[1].upper()}"
    return (
        f"the variable {variable} is not JSON; write JSON, or one variable for each setting, such as {variable}__NAME"
    )
