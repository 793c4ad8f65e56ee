"""Measures what an attempt writes outside of its own directories, as far as an ordinary user can.

Such a file is noticed while a process of the attempt has it open for writing, and remembered by its path. What a file
had before it was noticed does not count, unless it was made during the attempt.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from raygrid.node.limits.allocated import BLOCK
from raygrid.node.limits.running import Running
from raygrid.system.proc import children_of
from raygrid.system.process_memory import tmpfs_devices_beside
from raygrid.system.written_files import WrittenFile, born_at_ns, open_for_writing, written_by


@dataclass(slots=True)
class _KnownFile:
    path: str
    before: int  # bytes that it had before


class FilesElsewhere:
    """The files that one attempt writes elsewhere.

    Attributes:
        bytes: how much they have grown, at the last measurement.
    """

    def __init__(self, running: Running) -> None:
        self._running = running
        self._known: dict[tuple[int, int], _KnownFile] = {}
        self._looked_at = 0  # what the attempt had written when descriptors were read
        self._in_memory: Collection[int] | None = None
        self.bytes = 0

    def measure(self, pids: Sequence[int], explained: int, room: int) -> None:
        """Measure again.

        Args:
            pids: the processes of the attempt; their children are looked for.
            explained: bytes in its own directories.
            room: bytes that it may still write; descriptors are read only if it may have written half of that.
        """
        everyone = with_descendants(pids)
        written = sum(map(written_by, everyone))
        if written - max(explained, self._looked_at) > room // 2:
            self._looked_at = written
            self._find(everyone)
        # A file may grow by what others write into it, such as a log.
        self.bytes = min(written, sum(self._grown(identity, each) for identity, each in self._known.items()))

    def _find(self, pids: Iterable[int]) -> None:
        if self._in_memory is None:
            self._in_memory = tmpfs_devices_beside(self._running.directory)
        for pid in pids:
            for each in open_for_writing(pid):
                identity = each.status.st_dev, each.status.st_ino
                if identity not in self._known and self._is_elsewhere(each, self._in_memory):
                    self._known[identity] = _KnownFile(each.path, self._before(each))

    def _is_elsewhere(self, file: WrittenFile, in_memory: Collection[int]) -> bool:
        own = any(file.path == path or file.path.startswith(f"{path}/") for path in self._running.paths)
        return not own and file.status.st_nlink > 0 and file.status.st_dev not in in_memory

    def _before(self, file: WrittenFile) -> int:
        """Bytes of a file that it had before it was noticed; none if it was made during the attempt."""
        began_ns = time.time_ns() - int((time.monotonic() - self._running.started) * 1e9)
        born_ns = born_at_ns(file.opened)
        return 0 if born_ns is not None and born_ns >= began_ns else _size(file.status)

    @staticmethod
    def _grown(identity: tuple[int, int], file: _KnownFile) -> int:
        try:
            status = os.lstat(file.path)
        except OSError:  # removed, or seen under this path in its sandbox only
            return 0
        return max(0, _size(status) - file.before) if (status.st_dev, status.st_ino) == identity else 0


def with_descendants(pids: Iterable[int]) -> set[int]:
    """These processes and all that descend from them now."""
    found, waiting = set[int](), [pid for pid in pids if pid > 0]
    while waiting:
        if (pid := waiting.pop()) not in found:
            found.add(pid)
            waiting.extend(children_of(pid))
    return found


def _size(status: os.stat_result) -> int:
    return min(status.st_size, status.st_blocks * BLOCK)
