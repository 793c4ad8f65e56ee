"""Lock files: one holder at a time, and no lock outlives its holder."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raygrid.errors import SettingsError
from raygrid.system.lock import holder, is_locked, only_one, try_lock
from raygrid.system.proc import start_time

HOLD_AND_START_A_CHILD = """
import subprocess, sys, time
from pathlib import Path
from raygrid.system.lock import try_lock
lock = try_lock(Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "60"], close_fds=False)
print(child.pid, flush=True)
time.sleep(60)
"""


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come within 10 s"
        time.sleep(0.01)


def test_a_file_is_locked_once_until_it_is_released(tmp_path: Path) -> None:
    """A second attempt gives None at once; the file stays and is its owner's alone."""
    path = tmp_path / "lock"
    assert not is_locked(path)
    lock = try_lock(path)
    assert lock is not None
    assert is_locked(path)
    assert try_lock(path) is None
    lock.release()
    assert not is_locked(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert try_lock(path) is not None


def test_a_patient_caller_gets_the_lock_when_it_is_released(tmp_path: Path) -> None:
    """It waits for the holder, which may be another thread."""
    lock = try_lock(tmp_path / "lock")
    assert lock is not None
    threading.Timer(0.1, lock.release).start()
    assert try_lock(tmp_path / "lock", patience_s=10) is not None


def test_a_child_of_a_dead_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    """The descriptor of the lock is not inherited, even by a child that inherits all that it can."""
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD_AND_START_A_CHILD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            assert is_locked(path)
            process.kill()
            process.wait()
            until(lambda: not is_locked(path))
            assert start_time(child) is not None
        finally:
            os.kill(child, 9)


def test_the_holder_of_a_directory_is_known_while_it_holds_the_lock(tmp_path: Path) -> None:
    """Afterwards there is none, although this process lives on."""
    with only_one(tmp_path):
        life = holder(tmp_path)
        assert life is not None
        assert life.pid == os.getpid()
        with pytest.raises(SettingsError, match="another grid already uses"), only_one(tmp_path):
            pass
        assert holder(tmp_path) == life
    assert holder(tmp_path) is None
    assert not is_locked(tmp_path / "lock")
