"""Generates the page of all settings from the fields of `GridSettings` and their docstrings."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs.reference.markdown import code, page, table, text
from raygrid.settings.model import GridSettings

OPENING = """\
Every setting has a default, so no file is needed. Settings come from a YAML file (`raygrid up --config grid.yaml`,
`raygrid deploy --config grid.yaml`) and from environment variables, which override it. The
[guide](../guides/settings.md) has an example of a file. Sizes are bytes or text such as `64MB` and `10GiB`; both count
in powers of 1024. `NAME` stands for a name that you choose."""

_KINDS = {
    "Size": "size",
    "Seconds": "seconds, above 0",
    "Name": "name",
    "SandboxMode": "`protect`, `strict` or `off`",
    "ReuseMode": "`off` or `content`",
    "int": "whole number",
    "float": "number",
    "str": "text",
    "bool": "true or false",
    "Path": "path",
    "SecretStr": "text, kept secret",
    "HelperPrograms": "`forbid`, or a list of programs",
    "frozenset[int]": "list of whole numbers",
    "tuple[str, ...]": "list of texts",
    "tuple[PlaceOnNodes, ...]": "list of paths",
    "tuple[ApiKey, ...]": "list of `{name, key}`",
    "dict[str, str]": "mapping of texts",
    "Annotated[tuple[str, ...], NoDecode]": "text, or a list of texts",
    "dict[str, dict[str, float]]": "mapping of mappings of numbers",
    "dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]": "mapping of numbers above 0",
    "dict[str, bool | int | float | str]": "mapping",
}
_UNITS = ((1024**4, "TB"), (1024**3, "GB"), (1024**2, "MB"), (1024, "KB"))


@dataclass(frozen=True)
class Setting:
    """One setting, as the page shows it.

    Attributes:
        path: its path in the file, with dots.
        kind: the allowed values, in words.
        default: its default, as written in a file; None for a required setting, and for a section.
        description: what it does; the first paragraph is one sentence.
        is_section: whether it contains further settings.
    """

    path: str
    kind: str
    default: str | None
    description: str
    is_section: bool

    @property
    def anchor(self) -> str:
        """Its anchor on the page."""
        return self.path.replace("[]", "")

    @property
    def variable(self) -> str | None:
        """The environment variable that sets it; None for a part of a list."""
        return None if "[]." in self.path else "RAYGRID__" + self.anchor.upper().replace(".", "__")


def settings() -> Iterator[Setting]:
    """All settings of a grid; the plain settings of a section come before its sections."""
    yield from _settings_of(GridSettings, "")


def markdown() -> str:
    """The page."""
    parts = []
    sections = [each for each in settings() if each.is_section]
    rows = [(f"[`{each.path}`](#{each.anchor})", text(_first_line(each.description))) for each in sections]
    parts.append(table(("section", "what it sets"), rows))
    parts.append("## Top level")
    top = [each for each in settings() if "." not in each.path and not each.is_section]
    parts += [_entry(each) for each in top]
    for each in settings():
        if each.is_section:
            parts.append(f"## {code(each.path)} {{ #{each.anchor} }}\n\n{text(each.description)}")
        elif "." in each.path:
            parts.append(_entry(each))
    return page("Settings", OPENING, parts)


def _entry(setting: Setting) -> str:
    default = "**required**" if setting.default is None else f"default {code(setting.default)}"
    facts = " · ".join((setting.kind, default, *([code(setting.variable)] if setting.variable else [])))
    return f"### {code(setting.path)} {{ #{setting.anchor} }}\n\n{text(setting.description)}\n\n{facts}\n{{ .facts }}"


def _settings_of(model: type[BaseModel], prefix: str) -> Iterator[Setting]:
    described = descriptions(model)
    sections = []
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        section, below = _section_of(field, path)
        words = described.get(name, "")
        if section is None:
            yield Setting(path, _kind_of(model, name, field), _default_of(model, name, field), words, is_section=False)
        else:
            sections.append((section, Setting(below, "section", None, words, is_section=True)))
    for section, setting in sections:
        yield setting
        yield from _settings_of(section, f"{setting.path}.")


def _section_of(field: FieldInfo, path: str) -> tuple[type[BaseModel] | None, str]:
    """The model of the settings below a field, and their path; None for a plain value."""
    annotation: Any = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, path
    for inner in get_args(annotation):
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            if field.default == {}:
                return inner, f"{path}.NAME"
            return inner, f"{path}[]" if field.default == () else path
    return None, path


@cache
def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings below the fields of a model, by field."""
    [tree] = ast.parse(inspect.getsource(model)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = inspect.cleandoc(str(below.value.value))
    return found


@cache
def _annotations(model: type[BaseModel]) -> dict[str, str]:
    """The types of a model's fields as written in the source: `Size`, not `int`."""
    [tree] = ast.parse(inspect.getsource(model)).body
    assert isinstance(tree, ast.ClassDef)
    fields = [each for each in tree.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
    return {each.target.id: ast.unparse(each.annotation) for each in fields if isinstance(each.target, ast.Name)}


def _kind_of(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    source = _annotations(model)[name]
    if source.startswith("Literal["):
        return " or ".join(code(choice) for choice in get_args(field.annotation))
    optional = source.endswith(" | None")
    words = _KINDS[source.removesuffix(" | None")]
    limits = [f"at least {each.ge:g}" for each in field.metadata if getattr(each, "ge", None)]
    limits += [f"at most {each.le:g}" for each in field.metadata if getattr(each, "le", None) is not None]
    return ", ".join((words, *limits)) + ("; or `null`" if optional else "")


def _default_of(model: type[BaseModel], name: str, field: FieldInfo) -> str | None:
    if field.default is PydanticUndefined:
        return None
    value = field.default
    if isinstance(value, int) and _annotations(model)[name].startswith("Size"):
        return next((f"{value // unit}{word}" for unit, word in _UNITS if value and value % unit == 0), str(value))
    if value is None:
        return "null"
    if value == {}:
        return "{}"
    if value in ((), frozenset()):
        return "[]"
    return f"{value:g}" if isinstance(value, float) and value < 1e6 else str(value)


def _first_line(description: str) -> str:
    return description.partition("\n\n")[0]
