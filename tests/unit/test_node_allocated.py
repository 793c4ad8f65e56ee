"""Room on a disk: blocks count, holes and memory files do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raygrid.node.limits.allocated import Allocated, allocated, deleted_but_open
from tests.support.lone_agent import wait_until

MB = 1024**2


def written(*paths: Path) -> int:
    return allocated(map(str, paths)).written


def test_a_hole_takes_no_room(tmp_path: Path) -> None:
    """A file of 2 TB of holes counts nothing; one with a little data counts a little."""
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2 * 1024**4)
        assert allocated([str(tmp_path)]).held == 0
        file.seek(1024**4)
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())
    assert 4096 <= allocated([str(tmp_path)]).held < MB


def test_files_below_a_directory_count_once(tmp_path: Path) -> None:
    """Directories are searched, a file with two names counts once, a link counts nothing, what is gone nothing."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "one").write_bytes(b"x" * MB)
    (tmp_path / "two").hardlink_to(inner / "one")
    (tmp_path / "link").symlink_to(inner / "one")
    assert written(tmp_path) == MB
    assert written(inner / "one", tmp_path / "two", tmp_path / "nowhere") == MB


def test_a_few_bytes_count_as_such(tmp_path: Path) -> None:
    """Small files count their bytes, not the blocks that they are rounded up to; `held` has the blocks."""
    for number in range(10):
        (tmp_path / str(number)).write_bytes(b"x")
    taken = allocated([str(tmp_path)])
    assert taken.written == 10
    assert taken.held >= 10


def test_room_that_was_reserved_counts(tmp_path: Path) -> None:
    """Blocks that a program has reserved beyond a file's end are taken."""
    (tmp_path / "reserved").touch()
    reserve = ["fallocate", "--keep-size", "--length", str(8 * MB), str(tmp_path / "reserved")]
    if subprocess.run(reserve, capture_output=True, check=False).returncode != 0:
        pytest.skip("this file system reserves no room")
    assert written(tmp_path) >= 8 * MB


def test_only_recently_changed_files_are_growing(tmp_path: Path) -> None:
    """A file that was not changed since the given moment counts as held, not as growing."""
    (tmp_path / "old").write_bytes(b"x" * MB)
    os.utime(tmp_path / "old", (1, 1))
    (tmp_path / "new").write_bytes(b"x" * MB)
    taken = allocated([str(tmp_path)], changed_since_ns=2 * 10**9)
    assert taken.held >= 2 * MB
    assert MB <= taken.growing < 2 * MB


def test_files_without_a_name_count_and_memory_files_do_not(tmp_path: Path) -> None:
    """A deleted file that a process keeps open takes room on its disk; a memory file of any size takes none."""
    script = (
        "import os, time\n"
        f"file = open({str(tmp_path / 'gone')!r}, 'wb', 0)\n"
        f"os.unlink({str(tmp_path / 'gone')!r})\n"
        f"file.write(bytes({MB}))\n"
        "memory = os.memfd_create('x')\n"
        "os.ftruncate(memory, 2 * 1024**4)\n"
        f"os.write(memory, bytes({MB}))\n"
        f"open({str(tmp_path / 'ready')!r}, 'w')\n"
        "time.sleep(1000)\n"
    )
    device = tmp_path.stat().st_dev
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        try:
            wait_until((tmp_path / "ready").exists)
            assert deleted_but_open([process.pid, 2**30], device).written == MB
            assert deleted_but_open([process.pid], device + 1) == Allocated()
        finally:
            process.kill()
