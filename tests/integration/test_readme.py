"""The README is run unchanged, on a grid of its own: its commands, its curl lines and its Python."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.documents import ROOT, RUN, Reader, blocks_of

pytestmark = pytest.mark.documents

BLOCKS = blocks_of((ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """An empty directory in which the README is followed."""
    follower = Reader(tmp_path_factory.mktemp("reader"))
    try:
        follower.follow(BLOCKS)
        yield follower
    finally:
        follower.run("raygrid", "down")


def test_every_block_runs_or_has_a_reason() -> None:
    """No command of the README is left untested without a reason, and there is one for each way to use a grid."""
    code = [block for block in BLOCKS if block.language in RUN]
    assert [block.code for block in code if not block.runs and not (block.mark == "not run" and block.words)] == []
    run = "".join(block.code for block in code if block.runs)
    assert all(part in run for part in ("raygrid submit", "curl ", "import raygrid"))


def test_the_first_commands_count_trades(reader: Reader) -> None:
    """`raygrid up` and `raygrid submit --out` as printed leave the unpacked result of the job."""
    assert (reader.directory / "results" / "book" / "stdout.txt").read_text() == "2\n"


@pytest.mark.parametrize("name", ["book-1.zip", "book-2.zip"])
def test_the_curl_lines_leave_results(reader: Reader, name: str) -> None:
    """A submit that waits and one that does not both give the ZIP."""
    assert zipfile.ZipFile(reader.directory / name).read("stdout.txt") == b"2\n"


def test_the_repeated_submit_runs_nothing(reader: Reader) -> None:
    """As described: the same id with the same file gives the same bytes; another file is refused with 409."""
    (reader.directory / "other.csv").write_text("t3,call,95\n")
    url = f"http://127.0.0.1:{reader.port}/submit/book-1"
    reader.run("curl", "-sS", "-F", "file=@book.csv", url, "-o", "again.zip")
    assert (reader.directory / "again.zip").read_bytes() == (reader.directory / "book-1.zip").read_bytes()
    assert '"status":409' in reader.run("curl", "-sS", "-F", "file=@other.csv", url).replace(" ", "")


def test_the_simulation_finds_nothing() -> None:
    """`make simulate` needs no grid, and none of its seeds breaks an invariant."""
    installed = (f"VENV={sys.prefix}", f"--assume-old={sys.prefix}/.ready")  # nothing is installed by a test
    command = ("make", *installed, "simulate", "SEEDS=20")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert "seeds, no violation" in done.stdout


def test_the_links_lead_to_files() -> None:
    """Every relative link of the README names a file of the repository."""
    text = Path(ROOT / "README.md").read_text(encoding="utf-8")
    targets = [part.partition(")")[0] for part in text.split("](")[1:]]
    local = [target for target in targets if "://" not in target]
    assert local
    assert [target for target in local if not (ROOT / target).exists()] == []
