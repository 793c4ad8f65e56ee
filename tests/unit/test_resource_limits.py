"""Resource limits of new processes."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from raygrid.system import resource_limits
from raygrid.system.resource_limits import MOST_FILES, at_most
from tests.support.lone_agent import wait_until

INFINITE = resource.RLIM_INFINITY


def limits_of(pid: int | str) -> dict[str, tuple[str, str]]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): (line[26:47].strip(), line[47:68].strip()) for line in lines}


@pytest.fixture(autouse=True)
def _derived_anew() -> Iterator[None]:
    """The limits are derived from this process's own in each test."""
    resource_limits._lowered.cache_clear()
    yield
    resource_limits._lowered.cache_clear()


@pytest.mark.parametrize(
    ("limits", "lowered"),
    [
        ((1_024, 524_288), (1_000, 1_000)),
        ((INFINITE, INFINITE), (1_000, 1_000)),
        ((100, INFINITE), (100, 1_000)),
        ((100, 200), (100, 200)),
    ],
)
def test_a_limit_is_only_lowered(limits: tuple[int, int], lowered: tuple[int, int]) -> None:
    """The soft limit stays where it is below the maximum, and never exceeds the hard one."""
    assert at_most(limits, 1_000) == lowered


def test_a_new_process_is_limited_and_this_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """No core files, fewer open files and, if there is a limit, fewer processes than this process may have."""
    monkeypatch.setattr(resource_limits, "MOST_FILES", 500)
    before = limits_of("self")
    with subprocess.Popen(["sleep", "100"]) as process:
        try:
            resource_limits.apply(process.pid)
            limits = limits_of(process.pid)
            soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        finally:
            process.kill()
    assert limits["Max core file size"] == ("0", "0")
    assert limits["Max open files"] == ("500", "500")
    if soft != INFINITE:
        assert limits["Max processes"] == (str(soft - soft // 8), str(min(hard, soft - soft // 8)))
    assert limits_of("self") == before
    assert MOST_FILES >= 4_096, "programs such as wine and JVMs open thousands of files"


def test_a_process_that_has_ended_is_no_error() -> None:
    """Short jobs may end before their limits are set; a zombie and a pid without a process are both accepted."""
    with subprocess.Popen(["true"]) as process:
        wait_until(lambda: "Z (zombie)" in Path(f"/proc/{process.pid}/status").read_text())
        resource_limits.apply(process.pid)
    resource_limits.apply(process.pid)


def test_a_process_with_lower_limits_of_its_own_is_no_error() -> None:
    """A pricer may have lowered its limits before they are set."""
    with subprocess.Popen(["sh", "-c", "ulimit -n 20; echo; exec sleep 100"], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            resource_limits.apply(process.pid)
            assert limits_of(process.pid)["Max core file size"] == ("0", "0")
        finally:
            process.kill()
