"""The code blocks of a document, and a reader that runs them as printed.

A comment above a block decides what is done with it:

    <!-- test -->                 it is run (sh, python), in the order of the page
    <!-- test: file NAME -->      it is written to that file, which later blocks use
    <!-- test: settings -->       it is loaded as settings of a grid
    <!-- test: WORDS -->          a test of its own uses it
    <!-- prints -->               it is what the block before prints; … matches anything
    <!-- not run: REASON -->      it cannot be run in a test
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from raygrid.local import free_port

ROOT = Path(__file__).parents[2]
RUN = ("sh", "python")
_BLOCK = re.compile(
    r"(?:<!-- (?P<mark>test|prints|not run)(?:: (?P<words>[^\n]+))? -->\n)?"
    r"```(?P<language>\w*)[^\n]*\n(?P<code>.*?)```",
    re.DOTALL,
)
_BETWEEN = "\x1e"  # printed between blocks that run as one script


@dataclass
class Block:
    """A code block of a document.

    Attributes:
        mark: `test`, `prints`, `not run`, or empty for a block without any.
        words: the text after the mark.
        language: the word after the fence.
        code: the block itself.
        prints: what it prints, as the document shows it; None where it does not.
    """

    mark: str
    words: str
    language: str
    code: str
    prints: str | None = None

    @property
    def runs(self) -> bool:
        """Whether a reader runs it."""
        return self.mark == "test" and not self.words and self.language in RUN


def blocks_of(text: str) -> list[Block]:
    """All code blocks of a document in order; what one prints is a part of that one."""
    found: list[Block] = []
    for match in _BLOCK.finditer(text):
        block = Block(match["mark"] or "", match["words"] or "", match["language"], match["code"])
        if block.mark == "prints":
            assert found, f"nothing is before the output {block.code!r}"
            assert found[-1].runs, f"no block that runs is before the output {block.code!r}"
            found[-1].prints = block.code
        else:
            found.append(block)
    return found


def printed_as_shown(shown: str, printed: str) -> bool:
    """Whether a block printed what its document shows; `…` matches anything, spaces do not matter."""
    pattern = ".*".join(re.escape("".join(part.split())) for part in shown.split("…"))
    return re.fullmatch(pattern, "".join(printed.split()), re.DOTALL) is not None


class Reader:
    """Follows documents in a directory that was empty, with a grid of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(directory),
            "RAYGRID_STATE_DIR": str(directory / "state"),
            "RAYGRID__HTTP__PORT": str(self.port),
            **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
        }

    def run(self, *command: str) -> str:
        """Run a command and give what it prints; fail with that if it fails."""
        done = subprocess.run(
            command, cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def follow(self, blocks: list[Block]) -> None:
        """Run the blocks that are to be run and write the files; compare what is printed with what is shown."""
        for block in blocks:
            if block.mark == "test" and block.words.startswith("file "):
                (self.directory / block.words.removeprefix("file ")).write_text(block.code, encoding="utf-8")
        for language, together in groupby((block for block in blocks if block.runs), key=lambda block: block.language):
            scripts = list(together)
            for block, printed in zip(scripts, self._run_together(language, scripts), strict=True):
                if block.prints is not None:
                    assert printed_as_shown(block.prints, printed), f"{block.code}\nprinted:\n{printed}"

    def _run_together(self, language: str, scripts: list[Block]) -> Iterator[str]:
        """Run blocks as one script, so that a later one finds what an earlier one left; give what each printed."""
        here = f"127.0.0.1:{self.port}"
        codes = [block.code.replace("127.0.0.1:8000", here) for block in scripts]
        if language == "sh":
            printed = self.run("bash", "-euc", f"printf '{_BETWEEN}'\n".join(codes))
        else:
            printed = self.run(sys.executable, "-c", f"print({_BETWEEN!r}, end='', flush=True)\n".join(codes))
        yield from (each.replace(here, "127.0.0.1:8000") for each in printed.split(_BETWEEN))
