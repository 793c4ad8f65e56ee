"""What /proc shows of processes in states that are rare."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from raygrid.node.processes import environment_of
from tests.support.lone_agent import wait_until

ENDS_ITS_FIRST_THREAD = (
    "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); "
    "ctypes.CDLL(None).pthread_exit(None)"
)


def test_the_environment_of_a_process_whose_first_thread_has_ended_is_that_of_its_other_threads() -> None:
    """Such a process is recognised by its mark as any other; Linux shows the environment at its living threads only."""
    command = [sys.executable, "-S", "-c", ENDS_ITS_FIRST_THREAD]
    with subprocess.Popen(command, env={"MARK": "own"}) as process:
        try:
            wait_until(lambda: "Z (zombie)" in Path(f"/proc/{process.pid}/status").read_text())
            assert environment_of(process.pid) == b"MARK=own\0"
        finally:
            process.kill()


def test_a_process_that_has_ended_has_no_environment() -> None:
    """Neither while it is a zombie, nor afterwards."""
    with subprocess.Popen(["true"]) as process:
        wait_until(lambda: "Z (zombie)" in Path(f"/proc/{process.pid}/status").read_text())
        assert not environment_of(process.pid)
    assert environment_of(process.pid) is None
