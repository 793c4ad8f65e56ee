"""Every block of the documentation runs as printed: commands, curl lines and Python on one grid; its settings load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raygrid.settings.model import load_settings
from tests.support.documents import ROOT, Block, Reader, blocks_of

pytestmark = pytest.mark.documents

DOCS = ROOT / "docs"
FIRST = "getting-started.md"  # its blocks start the grid that the other pages use
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if "decisions" not in path.parts)


def blocks(page: str) -> list[Block]:
    return blocks_of((DOCS / page).read_text(encoding="utf-8"))


def pages_with(wanted: str) -> list[str]:
    """The pages with blocks that run, or with blocks of settings."""
    if wanted == "settings":
        return [page for page in PAGES if any("settings" in block.words for block in blocks(page))]
    return [page for page in PAGES if page != FIRST and any(block.runs for block in blocks(page))]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A directory in which "Getting started" has been followed."""
    follower = Reader(tmp_path_factory.mktemp("reader"))
    try:
        follower.follow(blocks(FIRST))
        yield follower
    finally:
        follower.run("raygrid", "down")


def test_getting_started_leaves_the_described_files(reader: Reader) -> None:
    """`up`, `submit --out` and `result --batch` as printed leave the unpacked results."""
    assert (reader.directory / "results" / "book" / "stdout.txt").read_text() == "2\n"
    assert (reader.directory / "evening" / "book" / "stdout.txt").read_text() == "2\n"


@pytest.mark.parametrize("page", pages_with("code"))
def test_a_page_runs_as_printed(reader: Reader, page: str) -> None:
    """Every block of the page succeeds and prints what the page shows."""
    reader.follow(blocks(page))


@pytest.mark.parametrize("page", pages_with("settings"))
def test_the_settings_of_a_page_load(tmp_path: Path, page: str) -> None:
    """Every settings file of the page is valid, and safe to listen with."""
    for block in blocks(page):
        if "settings" in block.words:
            (tmp_path / "grid.yaml").write_text(block.code, encoding="utf-8")
            load_settings(tmp_path / "grid.yaml").require_safe_listening()
