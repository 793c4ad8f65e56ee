"""Profiles parent, leader and agent with py-spy while jobs run, and prints a summary.

Sampling costs time, so a profiled run is separate and gives no figures.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.grid import grid
from bench.tiers import processes

TIERS = ("parent", "leader", "agent", "proxy")
_RATE_HZ = 200
_MOST_S = 600
_SHOWN = 15


def profile_tiers(directory: Path, command: Sequence[str], *, jobs: int, size: int, slots: int) -> None:
    """Run jobs under py-spy; writes stacks (`TIER.txt`, for flame graphs) and prints the functions on top of them."""
    spy = Path(sys.executable).with_name("py-spy")
    program = str(spy) if spy.exists() else shutil.which("py-spy")
    if program is None:
        print("no profile: py-spy is not installed", file=sys.stderr)
        return
    directory.mkdir(parents=True, exist_ok=True)
    with grid({"bench": {"command": list(command)}}, slots=slots) as bench:
        inputs = [b"x" * size] * jobs
        list(bench.client.map(inputs).results())  # warms up
        files, spies = [], []
        for tier, pids in processes(bench.pid).items():
            for number, pid in enumerate(pids if tier in TIERS else ()):
                files.append(directory / (f"{tier}-{number}.txt" if number else f"{tier}.txt"))
                spies.append(_spy(program, pid, files[-1]))
        try:
            list(bench.client.map(inputs).results())
        finally:
            for each in spies:
                each.send_signal(signal.SIGINT)  # it writes what it has
            for each in spies:
                each.wait(60)
    for file in files:
        if file.exists():
            _summarize(file)


def _spy(program: str, pid: int, file: Path) -> subprocess.Popen[bytes]:
    options = ["--format=raw", f"--rate={_RATE_HZ}", f"--duration={_MOST_S}", "--nonblocking", f"--output={file}"]
    return subprocess.Popen(
        [program, "record", f"--pid={pid}", *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


def summary(stacks: str) -> tuple[int, list[tuple[str, int, int]]]:
    """The number of samples, and for each function its own samples and those with its callees, most first."""
    itself, below = Counter[str](), Counter[str]()
    total = 0
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        total += int(count)
        itself[frames[-1]] += int(count)
        for frame in set(frames):
            below[frame] += int(count)
    return total, [(frame, count, below[frame]) for frame, count in itself.most_common()]


def _summarize(file: Path) -> None:
    total, functions = summary(file.read_text(encoding="utf-8"))
    print(f"\n{file}: {total} samples at {_RATE_HZ} a second; own share, share with what it calls")
    for frame, own, whole in functions[:_SHOWN]:
        print(f"{own / total:7.1%} {whole / total:7.1%}  {frame}")
