"""What attempts write outside of their directories."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from raygrid.models import AttemptId
from raygrid.node.limits.files_elsewhere import FilesElsewhere, with_descendants
from raygrid.node.limits.running import Running
from raygrid.system.process_memory import tmpfs_devices_beside
from raygrid.system.written_files import born_at_ns, open_for_writing, written_by
from tests.support.lone_agent import wait_until

MB = 1024**2


@contextmanager
def shell(script: str, directory: Path) -> Iterator[int]:
    """A process that runs a script and then waits; yields its pid when the script has run."""
    ready = directory / "ready"
    command = ["sh", "-c", f"{script}\n: > {ready}\nread -r line"]
    with subprocess.Popen(command, cwd=directory, stdin=subprocess.PIPE) as process:
        try:
            wait_until(ready.exists)
            yield process.pid
        finally:
            process.kill()


def attempt(directory: Path, started: float | None = None) -> Running:
    began = time.monotonic() - 60 if started is None else started
    return Running(AttemptId("job", 1), began, 60.0, None, MB, (str(directory / "own"),))


def bytes_of(files: FilesElsewhere, pid: int, *, explained: int = 0, room: int = MB) -> int:
    files.measure([pid], explained, room)
    return files.bytes


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the own directory of an attempt in it."""
    (tmp_path / "own").mkdir()
    return tmp_path


def test_a_new_file_elsewhere_counts_also_after_it_was_closed(place: Path) -> None:
    """All that it has, while it exists; a file in the own directory does not."""
    script = "exec 5> new 6> own/own; head -c 3000000 /dev/zero >&5; head -c 3000000 /dev/zero >&6"
    with shell(script, place) as pid:
        files = FilesElsewhere(attempt(place))
        assert bytes_of(files, pid) == 3_000_000
    with (place / "new").open("ab") as more:
        more.write(bytes(1_000_000))
    with shell("true", place) as other:  # this process itself may write something
        assert bytes_of(FilesElsewhere(attempt(place)), other) == 0
        (place / "new").unlink()
        assert bytes_of(files, other) == 0


def test_a_file_counts_from_when_it_was_noticed_if_it_is_older_than_the_attempt(place: Path) -> None:
    """A log that jobs append to: what it had before belongs to others."""
    (place / "log").write_bytes(bytes(5 * MB))
    wait_until(lambda: time.time_ns() > os.stat(place / "log").st_mtime_ns + 10**7)
    with shell("exec 5>> log; head -c 3000000 /dev/zero > /dev/null", place) as pid:
        files = FilesElsewhere(attempt(place, time.monotonic()))
        assert bytes_of(files, pid) == 0
        with (place / "log").open("ab") as log:
            log.write(bytes(2 * MB))
        assert bytes_of(files, pid) == 2 * MB
        with (place / "log").open("ab") as log:
            log.write(bytes(9 * MB))
        assert bytes_of(files, pid) == written_by(pid) < 11 * MB, "no more than the attempt itself has written"


def test_descriptors_are_read_only_if_much_was_written_that_is_not_in_the_own_directory(place: Path) -> None:
    """Reading them costs more than reading how much was written."""
    with shell("exec 5> new; head -c 3000000 /dev/zero >&5", place) as pid:
        assert bytes_of(FilesElsewhere(attempt(place)), pid, explained=3_000_000) == 0
        assert bytes_of(FilesElsewhere(attempt(place)), pid, room=7 * MB) == 0
        assert bytes_of(FilesElsewhere(attempt(place)), pid, room=5 * MB) == 3_000_000


def test_files_in_memory_are_no_files_on_disk(place: Path) -> None:
    """They count as memory, unless the own directory is in the same memory."""
    memory = os.stat("/dev/shm").st_dev
    if memory not in tmpfs_devices_beside("/proc"):
        pytest.skip("/dev/shm is not in memory")
    assert memory not in tmpfs_devices_beside("/dev/shm")
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        script = f"exec 5> {file.name}; head -c 3000000 /dev/zero >&5"
        with shell(script, place) as pid:
            expected = 3_000_000 if os.stat(place).st_dev == memory else 0
            assert bytes_of(FilesElsewhere(attempt(place, 0.0)), pid) == expected


def test_children_are_looked_for(place: Path) -> None:
    """A shell's redirection is open in the program that it runs."""
    with shell("(exec 5> new; head -c 3000000 /dev/zero >&5; sleep 1000) & sleep 0", place) as pid:
        wait_until(lambda: (place / "new").stat().st_size == 3_000_000)
        children = with_descendants([pid]) - {pid}
        assert children
        files = FilesElsewhere(attempt(place))
        wait_until(lambda: bytes_of(files, pid) == 3_000_000)
        for child in children:
            with suppress(ProcessLookupError):  # `sleep 0` may have been among them
                os.kill(child, 9)


def test_what_is_open_for_reading_is_not_written(place: Path) -> None:
    """Only regular files that a process can write, with their paths."""
    (place / "input").write_bytes(b"x")
    with shell("exec 4< input 5> new 6<> both", place) as pid:
        found = {each.path for each in open_for_writing(pid)}
        assert {each for each in found if each.startswith(str(place))} == {f"{place}/new", f"{place}/both"}
    assert list(open_for_writing(1 << 30)) == []
    assert written_by(1 << 30) == 0


def test_when_a_file_was_made_is_known_where_its_file_system_stores_it(place: Path) -> None:
    """Later writes do not change it."""
    before_ns = time.time_ns()
    (place / "file").write_bytes(b"x")
    born_ns = born_at_ns(str(place / "file"))
    if born_ns is None:
        pytest.skip("this file system does not store when a file was made")
    assert abs(born_ns - before_ns) < 10**9
    os.utime(place / "file", (1, 1))
    assert born_at_ns(str(place / "file")) == born_ns
    assert born_at_ns(str(place / "nowhere")) is None
