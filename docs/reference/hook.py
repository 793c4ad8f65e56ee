"""Gives MkDocs the generated pages, and draws diagrams into the others. Named in mkdocs.yml; run by `make docs`."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

from docs.reference import commands, http, python, settings

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

GENERATED = {
    "reference/settings.md": settings.markdown,
    "reference/http.md": http.markdown,
    "reference/commands.md": commands.markdown,
    "reference/python.md": python.markdown,
}
_DIAGRAM = re.compile(r"^<!-- diagram: (?P<name>[a-z_]+) -->$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those that are in the directory."""
    from mkdocs.structure.files import File  # noqa: PLC0415 - the tests of this module do without MkDocs

    for path, write in GENERATED.items():
        files.append(File.generated(config, path, content=write()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Draw the diagrams that a page asks for."""
    return with_diagrams(markdown)


def with_diagrams(markdown: str) -> str:
    """A page with its diagrams in the place of the lines that ask for them."""
    return _DIAGRAM.sub(lambda asked: f"<figure>{svg(asked['name'])}</figure>", markdown)


def svg(name: str) -> str:
    """The diagram that a module of `docs.diagrams` describes."""
    drawn: str = importlib.import_module(f"docs.diagrams.{name}").DIAGRAM.svg()
    return drawn
