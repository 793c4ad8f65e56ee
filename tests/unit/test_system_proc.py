"""What /proc shows of processes in states that are rare."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from raygrid.system.proc import environment_of, open_file_statuses, process_of
from raygrid.system.process_memory import memfd_device, proportional_parts, resident_parts
from raygrid.system.written_files import open_for_writing
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


MAPS_AND_OPENS = """
import ctypes, os, sys, threading, time
kept = bytearray(50_000_000)
file = os.memfd_create("kept")
os.write(file, b"x")
written = open(sys.argv[1], "w")
threading.Thread(target=time.sleep, args=(60,)).start()
if os.geteuid() == 0:  # root may read everything
    libc = ctypes.CDLL(None)
    for set_ids in (libc.setresgid, libc.setresuid):
        set_ids(65534, 65534, 65534)
    libc.prctl(4, 1, 0, 0, 0)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_without_its_first_thread_hides_neither_memory_nor_files(tmp_path: Path) -> None:
    """A pricer that ends its first thread would otherwise use no memory, as /proc shows it, and escape its limit."""
    command = [sys.executable, "-S", "-c", MAPS_AND_OPENS, str(tmp_path / "written")]
    with subprocess.Popen(command) as process:
        pid = process.pid
        try:
            wait_until(lambda: "Z (zombie)" in Path(f"/proc/{pid}/status").read_text())
            found = process_of(pid)
            assert found is not None
            assert not found.is_zombie
            assert found.rss_bytes > 50_000_000
            assert sum(resident_parts(pid, found.rss_bytes)) >= found.rss_bytes
            proportional = proportional_parts(pid)
            assert proportional is not None
            assert proportional.own > 50_000_000
            assert str(tmp_path / "written") in {file.path for file in open_for_writing(pid)}
            assert memfd_device() in {status.st_dev for status in open_file_statuses(pid)}
        finally:
            process.kill()
