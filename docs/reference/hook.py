"""A hook of MkDocs, named in mkdocs.yml: adds the generated pages, and draws diagrams into the others."""

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
    """Add the generated pages to those of the directory."""
    from mkdocs.structure.files import File  # noqa: PLC0415 - the tests of this module run without MkDocs

    for path, write in GENERATED.items():
        files.append(File.generated(config, path, content=write()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Draw the diagrams of a page."""
    return with_diagrams(markdown)


def with_diagrams(markdown: str) -> str:
    """A page with its diagrams in place of the lines that name them."""
    return _DIAGRAM.sub(lambda asked: f"<figure>{svg(asked['name'])}</figure>", markdown)


def svg(name: str) -> str:
    """The diagram of a module of `docs.diagrams`."""
    drawn: str = importlib.import_module(f"docs.diagrams.{name}").DIAGRAM.svg()
    return drawn
