"""Generates the page of the HTTP interface from the OpenAPI description, which parents serve at `/openapi.json`."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from docs.reference.markdown import code, page, table, text
from raygrid.errors import PROBLEM_PREFIX, PROBLEMS
from raygrid.parent.http.app import build_app
from raygrid.settings.model import GridSettings

OPENING = """\
The [guide](../guides/http.md) shows these requests with `curl`. A running grid serves the same description, for
programs, at `/openapi.json`, and as a page to try requests from at `/docs`; both work without another network.

Every request but those below `/health` and the page `/docs` needs `Authorization: Bearer KEY`, except those of the user
who started a grid without keys on the same machine. The [guide to access](../guides/access.md) says which role a key
needs for which request.
`HEAD` is answered wherever `GET` is. A query parameter that a route does not have, or one given twice, is refused
with 422."""

PROBLEM_OPENING = """\
Every error is a problem document (RFC 9457, `application/problem+json`). Its `type` is stable; its `detail` states what
happened and what to do. The last column is the exception that raygrid's Python client raises."""

_FORMATS = {"binary": "bytes", "date-time": "date and time"}
_METHODS = ("get", "put", "post", "delete")
_TAGS = {
    "submit": "Submit",
    "jobs": "Jobs",
    "batches": "Batches",
    "data": "Shared data",
    "grid": "The grid",
    "keys": "API keys",
    "health": "Health",
}


def description() -> dict[str, Any]:
    """The OpenAPI description, generated without a grid: routes do not depend on one."""
    parent: Any = SimpleNamespace(settings=GridSettings(), keys=None)
    return build_app(parent, manage=False).openapi()


def routes(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each route as method, path and description."""
    for path, methods in described["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield method.upper(), path, methods[method]


def markdown() -> str:
    """The page."""
    described = description()
    parts = [_summary(described)]
    for tag, title in _TAGS.items():
        parts.append(f"## {title}")
        parts += [_route(*each) for each in routes(described) if each[2]["tags"] == [tag]]
    parts += ["## Problems", PROBLEM_OPENING, _problems(), "## Values", "The JSON objects of requests and answers."]
    parts += [_schema(name, schema) for name, schema in sorted(described["components"]["schemas"].items())]
    return page("HTTP", OPENING, parts)


def _summary(described: dict[str, Any]) -> str:
    rows = [
        (f"[`{method} {path}`](#{_anchor(method, path)})", text(route["summary"]))
        for method, path, route in routes(described)
    ]
    return table(("request", "what it does"), rows)


def _route(method: str, path: str, route: dict[str, Any]) -> str:
    parts = [f"### {code(f'{method} {path}')} {{ #{_anchor(method, path)} }}", text(f"{route['summary']}.")]
    if "description" in route:
        parts.append(text(route["description"]))
    if parameters := route.get("parameters"):
        rows = [
            (code(each["name"]), each["in"], _kind(each["schema"]), text(each.get("description", "")))
            for each in parameters
        ]
        parts.append(table(("parameter", "in", "value", "meaning"), rows))
    for media, body in route.get("requestBody", {}).get("content", {}).items():
        parts += [f"Body: {code(media)}.", *_body(body["schema"])]
    answers = [
        (status, text(answer["description"]).replace("Successful Response", "Success"), _content(answer))
        for status, answer in sorted(route["responses"].items())
    ]
    parts.append(table(("status", "meaning", "body"), answers))
    return "\n\n".join(parts)


def _body(schema: dict[str, Any]) -> list[str]:
    if not (fields := schema.get("properties")):
        return []
    required = schema.get("required", ())
    rows = [
        (code(name) + (" (required)" if name in required else ""), _kind(each), text(each.get("description", "")))
        for name, each in fields.items()
    ]
    if more := schema.get("additionalProperties"):
        rows.append(("*any other name*", _kind(more), text(more["description"])))
    return [table(("field", "value", "meaning"), rows)]


def _content(answer: dict[str, Any]) -> str:
    found = []
    for media, body in answer.get("content", {}).items():
        schema = body.get("schema", {})
        found.append(_kind(schema) if "$ref" in schema else code(media))
    return ", ".join(found)


def _problems() -> str:
    rows = []
    for word, (kind, status) in PROBLEMS.items():
        first, _, _ = (kind.__doc__ or "").partition("\n")
        rows.append((code(PROBLEM_PREFIX + word), str(status), text(first), code(kind.__name__)))
    return table(("`type`", "status", "meaning", "in Python"), rows)


def _schema(name: str, schema: dict[str, Any]) -> str:
    parts = [f"### {code(name)} {{ #{name} }}"]
    if "description" in schema:
        parts.append(text(schema["description"]))
    if "enum" in schema:
        parts.append("One of " + ", ".join(code(each) for each in schema["enum"]) + ".")
    rows = [
        (code(member), _kind(each), text(each.get("description", "")))
        for member, each in schema.get("properties", {}).items()
    ]
    if rows:
        parts.append(table(("member", "value", "meaning"), rows))
    return "\n\n".join(parts)


def _kind(schema: dict[str, Any]) -> str:
    """The allowed values, in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[`{name}`](#{name})"
    if choices := schema.get("anyOf") or schema.get("allOf"):
        return " or ".join(_kind(each) for each in choices)
    if "items" in schema:
        return f"list of {_kind(schema['items'])}"
    if isinstance(of := schema.get("additionalProperties"), dict):
        return f"mapping to {_kind(of)}"
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    limits = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return " ".join((schema.get("type", "any"), *limits))


def _anchor(method: str, path: str) -> str:
    return "-".join((method, *path.replace("{", "").replace("}", "").strip("/").split("/"))).lower()
