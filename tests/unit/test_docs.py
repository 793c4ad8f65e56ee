"""The documentation against the code: nothing is left out of the generated pages, and no block is left untested."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel

import raygrid
from docs.diagrams.job_states import DIAGRAM
from docs.reference import commands, hook, http, python, settings
from raygrid import errors, pricer
from raygrid.cli import app
from raygrid.core.lifecycle import MOVES
from raygrid.models import Outcome
from raygrid.settings.model import GridSettings
from tests.support.documents import ROOT, RUN, Block, blocks_of, printed_as_shown

DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(DOCS)): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if "decisions" not in path.parts
}
ALL_BLOCKS = [(page, block) for page, text in PAGES.items() for block in blocks_of(text)]
DATA = ("yaml", "json")


def fields(model: type[BaseModel]) -> list[tuple[type[BaseModel], str]]:
    """All fields of a model and of the models in it."""
    found = []
    for name, field in model.model_fields.items():
        found.append((model, name))
        annotation: Any = field.annotation
        for inner in (annotation, *getattr(annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found += fields(inner)
    return found


def test_every_setting_is_described() -> None:
    """Each field of the settings has a docstring below it, in a sentence."""
    bare = [f"{model.__name__}.{name}" for model, name in fields(GridSettings) if not described(model, name)]
    assert bare == []


def described(model: type[BaseModel], name: str) -> bool:
    return settings.descriptions(model).get(name, "").endswith(".")


def test_every_setting_is_on_its_page() -> None:
    """The page has one entry for each field of the settings, with what it may be, its default and its variable."""
    shown = list(settings.settings())
    assert len(shown) == len(fields(GridSettings))
    page = settings.markdown()
    for each in shown:
        assert f"{{ #{each.anchor} }}" in page
        assert each.is_section or each.kind
    assert "`RAYGRID__HTTP__PORT`" in page
    assert "whole number, at least 1, at most 65535 · default `8000`" in page
    assert "size · default `64MB` · `RAYGRID__NODE__CACHE`" in page


def test_every_command_is_on_its_page() -> None:
    """The page has each command that is not hidden, with each of its options, all with a help text."""

    def names(prefix: str, command: Any) -> list[str]:
        below = [each for each in getattr(command, "commands", {}).items() if not each[1].hidden]
        return [prefix, *(name for word, each in below for name in names(f"{prefix} {word}", each))]

    shown = list(commands.commands())
    assert [each.name for each in shown] == names("raygrid", typer.main.get_command(app))
    page = commands.markdown()
    for each in shown:
        assert f"\n## `{each.name}` " in page
        assert each.help
        assert all(parameter.help for parameter in each.parameters), each.name
    assert "| `--name-by` | `input` or `job` | `input` |" in page
    assert "| `--wait, --no-wait` |  | `--wait` |" in page


def test_every_route_is_on_its_page() -> None:
    """The page has each route of the interface, with a summary, and each object that they take and give."""
    described = http.description()
    page = http.markdown()
    shown = list(http.routes(described))
    assert len(shown) == sum(len(methods) for methods in described["paths"].values())
    for method, path, route in shown:
        assert route["summary"]
        assert f"\n### `{method} {path}` " in page
    for name in described["components"]["schemas"]:
        assert f"\n### `{name}` " in page
    assert "`urn:raygrid:problem:damaged-result` | 500 |" in page


def test_every_public_name_is_on_its_page() -> None:
    """The page has each name of `raygrid.__all__`, of `raygrid.pricer`, and the errors; each has a docstring."""
    shown = {name for part in python.PARTS for name in part.names}
    assert set(raygrid.__all__) - {"errors"} <= shown
    assert {"serve", "PricerJob"} <= shown
    for part in python.PARTS:
        for name in part.names:
            home = {"raygrid": raygrid, "raygrid.errors": errors, "raygrid.pricer": pricer}.get(part.module)
            assert home is None or getattr(home, name).__doc__, name


def test_every_page_is_in_the_navigation() -> None:
    """Each page that is written or generated can be reached, and nothing else is named."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    [navigation] = re.findall(r"^nav:\n(.*)", text, re.DOTALL | re.MULTILINE)
    named = re.findall(r"[\w/-]+\.md", navigation)
    assert sorted(named) == sorted([*PAGES, *hook.GENERATED, "decisions/README.md"])


def test_nothing_is_loaded_from_other_hosts() -> None:
    """Fonts are off, and no extra style or program has an address elsewhere."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert config["theme"]["font"] is False
    assert not any("://" in path for path in (*config["extra_css"], *config.get("extra_javascript", ())))


@pytest.mark.parametrize(("page", "block"), ALL_BLOCKS)
def test_every_block_is_tested_or_has_a_reason(page: str, block: Block) -> None:
    """A block that a reader could run or use is marked, and one that is not run has a reason; others are plain text."""
    if block.language in (*RUN, *DATA):
        assert block.mark in ("test", "not run"), f"{page}: mark this block:\n{block.code}"
        assert block.mark == "test" or len(block.words) > 10, (
            f"{page}: give the reason why this is not run:\n{block.code}"
        )
        assert block.language in RUN or block.words, f"{page}: name the test of this block:\n{block.code}"
    else:
        assert block.language == "text", f"{page}: a block in {block.language!r} is neither run nor plain text"


def test_output_is_compared_with_what_is_shown() -> None:
    """Spaces do not matter, `…` matches anything, and everything else counts."""
    assert printed_as_shown("2\n", "2\n")
    assert printed_as_shown("ready after …\n", "ready after 3.2 s\n")
    assert printed_as_shown('{"a": 1}', '{"a":1}')
    assert not printed_as_shown("2\n", "3\n")
    assert not printed_as_shown("2\n", "2\n3\n")


def test_the_diagram_of_job_states_shows_the_moves_of_the_code() -> None:
    """Each state is a box, and there is an arrow for each move from one state to another, and no other."""
    assert {box.name for box in DIAGRAM.boxes} == {state.value for state in MOVES}
    drawn = {(arrow.start, arrow.end) for arrow in DIAGRAM.arrows}
    assert drawn == {(a.value, b.value) for a, ends in MOVES.items() for b in ends if a is not b}


def test_every_reason_of_a_failure_is_explained() -> None:
    """The guide to pricers names each way in which an attempt can end, and why a job failed."""
    reasons = {outcome.value for outcome in Outcome} - {"exited", "cancelled"} | {"exit_code", "poison"}
    assert sorted(reason for reason in reasons if f"`{reason}`" not in PAGES["guides/pricers.md"]) == []


@pytest.mark.parametrize("name", [path.stem for path in (DOCS / "diagrams").glob("*.py") if path.stem[0] != "_"])
def test_every_diagram_is_drawn_into_a_page(name: str) -> None:
    """Its page gets an SVG with a title for screen readers."""
    if name == "drawing":
        return
    asking = [text for text in PAGES.values() if f"<!-- diagram: {name} -->" in text]
    assert asking
    assert "<title>" in hook.with_diagrams(asking[0])


def test_a_page_names_no_file_of_the_sources_that_is_gone() -> None:
    """Paths in the sources that the pages name exist."""
    named = {
        found for text in PAGES.values() for found in re.findall(r"`((?:docs|deploy|examples|tests)/[\w./-]*)`", text)
    }
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists() and path != "docs/decisions/"] == []


def test_pages_are_short() -> None:
    """A page can be read in some minutes; longer ones are split."""
    long = {page: len(text.split()) for page, text in PAGES.items() if len(text.split()) > 1600}
    assert long == {}
