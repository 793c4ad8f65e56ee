"""A Ray node beside the head that dies is started again, with growing pauses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from raygrid.local.worker_node import FIRST_PAUSE_S, FORGET_S, MOST_PAUSE_S, STEADY_S, WorkerNode

HOLD = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read(); import time; time.sleep(60)"]
DIE = [sys.executable, "-c", "raise SystemExit(7)"]


def gone(name: str) -> bool:
    """Ray does not list the node any more."""
    return False


def wait_for_exit(node: WorkerNode) -> None:
    """Wait until the process has ended."""
    assert node._process is not None
    node._process.wait(10)


def test_a_node_that_lives_is_left_alone(tmp_path: Path) -> None:
    """Nothing is logged and nothing done."""
    node = WorkerNode("rack-a", "rack-a-2", HOLD, tmp_path / "log")
    node.start()
    try:
        assert node.restart_if_dead(0.0, gone) is None
        assert node.exit_code is None
    finally:
        node.end(grace_s=5.0)
    wait_for_exit(node)


def test_a_node_that_dies_starts_again_with_growing_pauses(tmp_path: Path) -> None:
    """Each death is logged with its exit code; the pauses double up to a minute."""
    node = WorkerNode("rack-a", "rack-a-2", DIE, tmp_path / "log")
    node.start()
    now, pauses = 1000.0, []
    for _ in range(8):
        wait_for_exit(node)
        text = node.restart_if_dead(now, gone)
        assert text is not None
        assert "rack-a-2 died (exit code 7)" in text
        pause = float(text.split()[-2])
        pauses.append(pause)
        assert node.restart_if_dead(now + pause - 0.01, gone) is None
        now += pause
        assert node.restart_if_dead(now, gone) == "starting node rack-a-2 again"
    wait_for_exit(node)
    assert pauses == [min(FIRST_PAUSE_S * 2**n, MOST_PAUSE_S) for n in range(8)]


def test_a_node_that_was_well_for_long_starts_again_soon(tmp_path: Path) -> None:
    """A death a day is no crash loop."""
    node = WorkerNode("rack-a", "rack-a-2", DIE, tmp_path / "log")
    node.start()
    now = 0.0
    for _ in range(3):
        wait_for_exit(node)
        text = node.restart_if_dead(now, gone)
        assert text is not None
        assert text.endswith(f" in {FIRST_PAUSE_S:g} s")
        assert node.restart_if_dead(now + FIRST_PAUSE_S, gone) is not None
        now += FIRST_PAUSE_S + STEADY_S
    wait_for_exit(node)


@pytest.mark.parametrize("forgotten_after_s", [20.0, 1e9])
def test_the_name_is_free_before_it_is_used_again(tmp_path: Path, forgotten_after_s: float) -> None:
    """Ray takes a dead node for alive for a while, and would choose another name; the wait is bounded."""
    node = WorkerNode("rack-a", "rack-a-2", DIE, tmp_path / "log")
    node.start()
    wait_for_exit(node)
    assert node.restart_if_dead(0.0, gone) is not None
    seconds = iter(range(10_000))
    clock = [0]

    def known(name: str) -> bool:
        return clock[0] < forgotten_after_s

    while node.restart_if_dead(clock[0], known) is None:
        clock[0] = next(seconds)
    assert clock[0] == min(forgotten_after_s, FORGET_S)
    wait_for_exit(node)
