"""The documents for contributors agree with the tree: paths exist, packages are on the map, texts keep their length."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

import raygrid
from raygrid.settings.model import GridSettings, load_settings

ROOT = Path(__file__).parents[2]
DECISIONS = ROOT / "docs" / "decisions"
PAGES = sorted(path for path in DECISIONS.glob("*.md") if path.name != "README.md")
PARTS = ("Context", "Decision", "Figures", "What would change it", "Where")
# Every word of the file counts, those of tables, code and diagrams included: what `wc -w` prints.
MOST_WORDS = {"README.md": 1_200, "ARCHITECTURE.md": 2_000}
CHANGES = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def paths_in(text: str) -> set[str]:
    """Texts in backticks that begin with a top-level directory of the repository."""
    tops = {path.name for path in ROOT.iterdir() if path.is_dir()}
    return {span for span in re.findall(r"`([\w./-]+)`", text) if "/" in span and span.split("/")[0] in tops}


def headings(page: Path) -> list[tuple[str, str]]:
    """Identifier and title of each decision of a page."""
    return re.findall(r"^## ([a-z]+-\d\d): (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)


def anchor(heading: str) -> str:
    """The anchor that GitHub and MkDocs both give to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", MOST_WORDS)
def test_a_document_keeps_its_length(name: str) -> None:
    """A document that is read as a whole stays within the agreed number of words."""
    assert len(text_of(name).split()) <= MOST_WORDS[name]


def test_no_file_with_a_new_key_can_be_read_by_others() -> None:
    """Commands of the documents that write a key into a file do so with a umask."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    commands = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines()]
    into_files = [line for line in commands if re.search(r"raygrid keys (add|rotate) .*>", line)]
    assert into_files
    assert [line for line in into_files if not line.startswith("(umask 077; ")] == []


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.ipynb")), ids=lambda path: path.name)
def test_the_cells_of_a_notebook_have_ids(path: Path) -> None:
    """Version 4.5 of the format requires them; Jupyter would add random ones and warn."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell.get("id", "") for cell in notebook["cells"]]
    assert all(re.fullmatch(r"[\w-]{1,64}", each) for each in ids)
    assert len(set(ids)) == len(ids)


def test_every_package_is_on_the_code_map() -> None:
    """ARCHITECTURE.md has a row for each package of raygrid and each of its loose modules."""
    code_map = text_of("ARCHITECTURE.md").partition("## Code map")[2].partition("\n## ")[0]
    package = ROOT / "raygrid"
    packages = {path.parent for path in package.rglob("__init__.py")} - {package, package / "store/migrations/versions"}
    modules = {path for path in package.glob("*.py") if not path.name.startswith("__")}
    entries = {f"`{path.relative_to(ROOT)}/`" for path in packages} | {
        f"`{path.relative_to(ROOT)}`" for path in modules
    }
    assert sorted(entry for entry in entries if entry not in code_map) == []


@pytest.mark.parametrize(
    "name", ["ARCHITECTURE.md", "CONTRIBUTING.md", *(str(page.relative_to(ROOT)) for page in PAGES)]
)
def test_every_path_that_a_document_names_exists(name: str) -> None:
    """A file that was moved or removed is corrected in the documents as well."""
    paths = paths_in(text_of(name))
    assert paths
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_decision_has_all_its_parts(page: Path) -> None:
    """Each decision has an identifier that follows the one before, and all five parts in their order."""
    expected = [f"{page.stem}-{number:02}" for number in range(1, len(headings(page)) + 1)]
    assert [identifier for identifier, _ in headings(page)] == expected
    sections = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert len(sections) == len(expected)
    for section in sections:
        assert tuple(re.findall(r"^\*\*([^*]+)\.\*\* \S", section, re.MULTILINE)) == PARTS, section


def test_the_index_lists_every_decision() -> None:
    """The index has a row with the title and a link for each decision, and no other rows."""
    rows = {
        f"| [{identifier}]({page.name}#{anchor(f'{identifier}: {title}')}) | {title} |"
        for page in PAGES
        for identifier, title in headings(page)
    }
    listed = {line for line in text_of("docs/decisions/README.md").splitlines() if line.startswith("| [")}
    assert listed == rows


def test_every_decision_that_is_cited_exists() -> None:
    """A citation such as (node-03) in code, tests or documents names a decision that exists."""
    known = {identifier for page in PAGES for identifier, _ in headings(page)}
    cited = re.compile(rf"\b(?:{'|'.join(page.stem for page in PAGES)})-\d\d\b")
    files = [ROOT / "ARCHITECTURE.md", *DECISIONS.glob("*.md"), *(ROOT / "raygrid").rglob("*.py")]
    found = {name for path in files for name in cited.findall(path.read_text(encoding="utf-8"))}
    assert found - known == set()
    assert found


def test_every_setting_is_in_the_example_file() -> None:
    """grid.yaml names every field of the settings, and loads."""

    def fields(model: type[BaseModel]) -> Iterator[str]:
        for name, field in model.model_fields.items():
            yield name
            for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if hasattr(inner, "model_fields"):
                    yield from fields(inner)

    text = text_of("grid.yaml")
    assert [name for name in fields(GridSettings) if not re.search(rf"\b{name}:", text)] == []
    assert set(load_settings(ROOT / "grid.yaml").pricers) == {"lines", "greet"}


def test_the_changelog_names_this_version() -> None:
    """The newest section of the changelog is the version of the package."""
    assert re.findall(r"^## \[([\d.]+)\]", text_of("CHANGELOG.md"), re.MULTILINE)[0] == raygrid.__version__


def test_the_changelog_keeps_its_format() -> None:
    """Sections are those of Keep a Changelog, and each entry is one line."""
    text = text_of("CHANGELOG.md")
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= CHANGES
    body = text.partition("\n## ")[2].partition("\n[")[0]
    lines = [line for line in body.splitlines()[1:] if line]
    assert [line for line in lines if not line.startswith(("- ", "## [", "### "))] == []
