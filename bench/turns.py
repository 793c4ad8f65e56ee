"""Contenders take turns: each is started, warmed up, timed and ended before the next, in every round.

So none runs beside another's idle services, and other load on the machine affects all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.contenders import GRID, MODULES, AbsentError
from bench.figures import Plan
from bench.tiers import settle

ROOT = Path(__file__).parents[1]
_START_S = 180.0
_RUN_S = 900.0
_END_S = 60.0


class BrokenContenderError(Exception):
    """A contender ended, failed or did not answer; the others are still measured."""


@dataclass(slots=True)
class Times:
    """The results of one contender: seconds by round, or why it is absent."""

    seconds: list[float] = field(default_factory=list)
    version: str = ""
    absent: str | None = None


def take_turns(plan: Plan, command: Sequence[str], *, jobs: int, size: int, at_once: int) -> dict[str, Times]:
    """Time every contender that takes part; returns their times by name."""
    found = {name: Times() for name in MODULES if not plan.only or name in plan.only}
    for number in range(plan.rounds):
        for name, times in found.items():
            if times.absent is not None:
                continue
            try:
                with _hosted(name, command, at_once, plan.scratch) as host:
                    times.version = host.version
                    host.run(max(at_once, jobs // 5), size)
                    host.settle()
                    times.seconds.append(host.run(jobs, size))
                _say(f"round {number + 1} of {plan.rounds}: {name}: {jobs / times.seconds[-1]:.1f} jobs/s")
            except (AbsentError, BrokenContenderError) as error:
                times.absent = str(error)
                _say(f"{name}: {error}")
    return found


class _Host:
    """Our side of a contender's process."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self._name = name
        self._process = process
        self.version = ""

    def expect_up(self) -> None:
        """Wait until it can run jobs.

        Raises:
            AbsentError: it cannot run on this machine.
        """
        answer = self._answer(_START_S)
        if "absent" in answer:
            raise AbsentError(answer["absent"])
        self.version = answer["version"]

    def run(self, jobs: int, size: int) -> float:
        """Seconds for that many jobs with an input of `size` bytes."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # reading the answer then raises the error
            self._process.stdin.write(json.dumps({"jobs": jobs, "size": size}) + "\n")
            self._process.stdin.flush()
        return float(self._answer(_RUN_S)["seconds"])

    def settle(self) -> None:
        """Wait until its services are idle: some still start others after they have reported to be up."""
        settle(self._process.pid)

    def _answer(self, within_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(within_s):
                raise BrokenContenderError(f"{self._name} did not answer within {within_s:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise BrokenContenderError(f"{self._name} ended with exit code {self._process.wait()}; see its stderr")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def _hosted(name: str, command: Sequence[str], at_once: int, scratch: Path) -> Iterator[_Host]:
    """A contender in its own process group, all of which ends with the context."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if name != GRID:  # the grid cleans up by itself, and its sockets' paths would be too long there
        environment["TMPDIR"] = str(scratch)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.contenders.host", name, str(at_once), *command],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        host = _Host(name, process)
        host.expect_up()
        yield host
    finally:
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()  # it then ends its services and itself
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
