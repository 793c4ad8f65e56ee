"""`xargs -P`: the limit for spawning."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.contenders.contender import AbsentError, Contender, Run


def _version() -> str:
    if shutil.which("xargs") is None:
        raise AbsentError("there is no xargs on this machine")
    said = subprocess.run(["xargs", "--version"], capture_output=True, text=True, check=False).stdout.splitlines()
    return said[0].split()[-1] if said else "?"


@contextmanager
def _opened(command: Sequence[str], at_once: int) -> Iterator[Run]:
    def run(jobs: int, payload: bytes) -> float:
        # -I would cost more. So each job gets its number as a further argument; commands that refuse one, such as
        # sleep, run through a shell that ignores it.
        words = [*command] if command[0].endswith("true") else ["sh", "-c", f"exec {' '.join(command)}"]
        lines = "\n".join(map(str, range(jobs))).encode()
        began = time.perf_counter()
        subprocess.run(["xargs", "-n1", f"-P{at_once}", *words], input=lines, check=True)
        return time.perf_counter() - began

    yield run


CONTENDER = Contender("-n1 -P", "a queue, inputs, results, job directories, limits", _version, _opened)
