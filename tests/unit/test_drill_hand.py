"""What a drill does to processes: they die or stand still, and whatever stands still goes on again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raygrid.drill import hand
from raygrid.drill.everything import kill_all
from raygrid.drill.hand import Hand, below
from raygrid.system.proc import start_time

FREEZE_AND_DIE = """
import os, sys
from raygrid.drill.hand import Hand
hand = Hand()
hand.aim_at([int(sys.argv[1])], float(sys.argv[2]))
hand.strike()
os._exit(0)
"""


@pytest.fixture
def family() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a child."""
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"]) as process:
        until(lambda: len(below(process.pid)) == 1)
        child = below(process.pid)[0]
        yield process
        for pid in (process.pid, child):
            if start_time(pid) is not None:
                os.kill(pid, 9)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_a_killed_process_is_dead(family: subprocess.Popen[bytes]) -> None:
    """And the words before tell which it was."""
    killer = Hand()
    assert killer.aim_at([family.pid]) == ["sh -c sleep 60 & wait"]
    assert family.poll() is None
    assert killer.strike() == 1
    assert family.wait(5) == -9


def test_what_is_frozen_goes_on_when_its_time_is_over_even_without_the_hand(family: subprocess.Popen[bytes]) -> None:
    """The process that froze it is gone at once; nothing was left to chance."""
    command = [sys.executable, "-c", FREEZE_AND_DIE, str(family.pid), "0.5"]
    subprocess.run(command, check=True, timeout=20)
    assert state(family.pid) == "T"
    until(lambda: state(family.pid) == "S")


def test_what_is_frozen_can_be_thawed_before_its_time(family: subprocess.Popen[bytes]) -> None:
    """As when a drill is interrupted."""
    freezer = Hand()
    freezer.aim_at([family.pid], 5.0)
    assert state(family.pid) == "S", "taking aim does nothing yet"
    freezer.strike()
    until(lambda: state(family.pid) == "T")
    freezer.thaw()
    until(lambda: state(family.pid) == "S", within_s=2)


def test_a_machine_falls_silent_as_a_whole(family: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A raylet and all that is below it, but neither the hand nor what it has started."""
    [child] = below(family.pid)
    monkeypatch.setattr(hand, "ancestor", lambda name: family.pid)
    # Here the family is below this process; on a real machine the hand is one among the children of the raylet.
    monkeypatch.setattr(hand, "below", lambda root: [] if root == os.getpid() else below(root))
    freezer = Hand()
    freezer.aim_at_machine(5.0)
    assert freezer.strike() == 2
    until(lambda: state(family.pid) == state(child) == "T")
    freezer.thaw()
    until(lambda: state(family.pid) == state(child) == "S")

    monkeypatch.setattr(hand, "ancestor", lambda name: os.getpid())
    below_us = Hand()
    below_us.aim_at_machine(5.0)
    monkeypatch.setattr(hand, "below", lambda root: [family.pid] if root == os.getpid() else [])
    assert below_us.strike() == 0, "this process and what is below it belong to the hand"


def test_whoever_is_gone_is_not_aimed_at(family: subprocess.Popen[bytes]) -> None:
    """Better than to kill whoever has got its pid since."""
    family.kill()
    family.wait()
    with pytest.raises(ProcessLookupError, match="not all live"):
        Hand().aim_at([family.pid])
    with pytest.raises(ProcessLookupError, match="not below a raylet"):
        Hand().aim_at_machine(1.0)


def test_a_head_is_spared_where_nothing_brings_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """No head here; books in memory; books on disk, but nobody who would start it again; and then somebody."""
    assert Hand().why_no_head() == "the head's GCS process was not found"
    monkeypatch.setattr(hand, "gcs_pid", os.getpid)
    monkeypatch.setattr(hand, "_environment", lambda pid: {})
    assert "in memory only" in str(Hand().why_no_head())
    monkeypatch.setattr(hand, "_environment", lambda pid: {"RAY_gcs_storage": "rocksdb"})
    assert "nothing here would start the head again" in str(Hand().why_no_head())
    monkeypatch.setattr(hand, "title_of", lambda pid: "python -m raygrid.cluster.supervisor")
    assert Hand().why_no_head() is None


def test_everything_below_a_process_dies_with_it(family: subprocess.Popen[bytes]) -> None:
    """As all processes of a grid die in the drill that loses everything."""
    [child] = below(family.pid)
    assert kill_all(family.pid) == 2
    assert family.wait(5) == -9
    until(lambda: start_time(child) is None)
