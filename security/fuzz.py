"""Runs the fuzzers, each in a process of its own, and reports what they find with the input that shows it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from security.fuzzers.target import CORPUS
from security.row import Row

ROOT = Path(__file__).resolve().parents[1]
INPUT_TIMEOUT_S = 10  # an input that takes longer is a hang
MOST_BYTES = 4096
STARTS_S = 60
_DONE = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_FOUND = "crash-", "timeout-", "oom-", "leak-"
_TAIL = 30  # lines of the output that are shown


def fuzz(name: str, seconds: int, scratch: Path) -> Row:
    """Run one fuzzer; what it finds is kept in `scratch`, and so are the inputs that reach new code."""
    places = [scratch / part / name for part in ("found", "corpus")]
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    found, grown = places
    command = [
        *(sys.executable, "-m", "security.fuzzers", name, str(grown), str(CORPUS / name)),
        f"-artifact_prefix={found}/",
        f"-max_total_time={seconds}",
        f"-timeout={INPUT_TIMEOUT_S}",
        f"-max_len={MOST_BYTES}",
        "-print_final_stats=1",
    ]
    began = time.monotonic()
    log = scratch / f"{name}.log"
    # A fuzzer ends without cleaning up, and targets write temporary files.
    with log.open("wb") as out, tempfile.TemporaryDirectory(dir=scratch) as temporary:
        code = _run(command, temporary, out.fileno(), seconds + STARTS_S + INPUT_TIMEOUT_S)
    took_s = time.monotonic() - began
    text = log.read_text(encoding="utf-8", errors="replace")
    inputs = [path for path in sorted(found.iterdir()) if path.name.startswith(_FOUND)]
    done = _DONE.search(text)
    extent = f"{int(done[1]):,} inputs" if done else "stopped"
    if code == 0 and not inputs:
        return Row(f"fuzzer {name}", extent, took_s, "no crash, no hang", passed=True)
    print(f"--- {name}: exit code {code}", *text.splitlines()[-_TAIL:], sep="\n")
    what = ", ".join(map(str, inputs)) or f"exit code {code}, see {log}"
    return Row(f"fuzzer {name}", extent, took_s, f"found: {what}", passed=False)


def _run(command: Sequence[str], temporary: str, out: int, most_s: float) -> int:
    environment = {**os.environ, "TMPDIR": temporary}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        return process.wait(most_s)
    except BaseException as error:
        process.kill()
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):  # it hangs where its own alarm does not reach
            return -1
        raise
