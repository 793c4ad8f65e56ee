"""What a drill does to processes: they are killed or frozen, and every frozen one goes on later."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raygrid.drill import machine_faults
from raygrid.drill.everything import kill_all
from raygrid.drill.machine_faults import MachineFaults
from raygrid.system.proc import start_time
from raygrid.system.relatives import descendants

FREEZE_AND_DIE = """
import os, sys
from raygrid.drill.machine_faults import MachineFaults
faults = MachineFaults()
faults.target_processes([int(sys.argv[1])], float(sys.argv[2]))
faults.inject()
os._exit(0)
"""


@pytest.fixture
def family() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a child."""
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"]) as process:
        until(lambda: len(descendants(process.pid)) == 1)
        child = descendants(process.pid)[0]
        yield process
        for pid in (process.pid, child):
            if start_time(pid) is not None:
                os.kill(pid, 9)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come in time"
        time.sleep(0.01)


def test_a_killed_process_is_dead(family: subprocess.Popen[bytes]) -> None:
    """The text that was printed before names the process."""
    killer = MachineFaults()
    assert killer.target_processes([family.pid]) == ["sh -c sleep 60 & wait"]
    assert family.poll() is None
    assert killer.inject() == 1
    assert family.wait(5) == -9


def test_a_frozen_process_goes_on_in_time_even_if_the_freezer_died(family: subprocess.Popen[bytes]) -> None:
    """The process that froze it is gone at once; a separate process thaws it."""
    command = [sys.executable, "-c", FREEZE_AND_DIE, str(family.pid), "3"]
    subprocess.run(command, check=True, timeout=20)
    until(lambda: state(family.pid) == "T")  # it stops when a processor runs it next
    until(lambda: state(family.pid) == "S")


def test_a_frozen_process_can_be_thawed_before_its_time(family: subprocess.Popen[bytes]) -> None:
    """For example when a drill is interrupted."""
    freezer = MachineFaults()
    freezer.target_processes([family.pid], 5.0)
    assert state(family.pid) == "S", "taking aim does nothing yet"
    freezer.inject()
    until(lambda: state(family.pid) == "T")
    freezer.thaw()
    until(lambda: state(family.pid) == "S", within_s=2)


def test_a_machine_falls_silent_as_a_whole(family: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """The raylet and all processes below it stop, except this process and what it has started."""
    [child] = descendants(family.pid)
    monkeypatch.setattr(machine_faults, "ancestor_called", lambda name: family.pid)
    # Here the family is below this process; on a real machine this process is a child of the raylet.
    monkeypatch.setattr(machine_faults, "descendants", lambda root: [] if root == os.getpid() else descendants(root))
    freezer = MachineFaults()
    freezer.target_machine(5.0)
    assert freezer.inject() == 2
    until(lambda: state(family.pid) == state(child) == "T")
    freezer.thaw()
    until(lambda: state(family.pid) == state(child) == "S")

    monkeypatch.setattr(machine_faults, "ancestor_called", lambda name: os.getpid())
    below_us = MachineFaults()
    below_us.target_machine(5.0)
    monkeypatch.setattr(machine_faults, "descendants", lambda root: [family.pid] if root == os.getpid() else [])
    assert below_us.inject() == 0, "this process and those below it are spared"


def test_a_process_that_is_gone_is_no_target(family: subprocess.Popen[bytes]) -> None:
    """Its pid may belong to another process by now."""
    family.kill()
    family.wait()
    with pytest.raises(ProcessLookupError, match="have ended"):
        MachineFaults().target_processes([family.pid])
    with pytest.raises(ProcessLookupError, match="not below a raylet"):
        MachineFaults().target_machine(1.0)


def test_a_head_without_a_supervisor_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a head, with books in memory, with books on disk and no supervisor: spared; with both: not."""
    assert MachineFaults().why_head_must_live() == "the head's GCS process was not found"
    monkeypatch.setattr(machine_faults, "gcs_pid", os.getpid)
    monkeypatch.setattr(machine_faults, "_environment", lambda pid: {})
    assert "in memory only" in str(MachineFaults().why_head_must_live())
    monkeypatch.setattr(machine_faults, "_environment", lambda pid: {"RAY_gcs_storage": "rocksdb"})
    assert "no supervisor would restart the head" in str(MachineFaults().why_head_must_live())
    monkeypatch.setattr(machine_faults, "title_of", lambda pid: "python -m raygrid.cluster.supervisor")
    assert MachineFaults().why_head_must_live() is None


def test_everything_below_a_process_dies_with_it(family: subprocess.Popen[bytes]) -> None:
    """So do all processes of a grid in the drill that loses everything."""
    [child] = descendants(family.pid)
    assert kill_all(family.pid) == 2
    assert family.wait(5) == -9
    until(lambda: start_time(child) is None)
