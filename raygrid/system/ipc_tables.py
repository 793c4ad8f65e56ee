"""The tables of System V IPC in /proc/sysvipc, and what semaphores and messages take. Format: proc_sysvipc(5)."""

from __future__ import annotations

import os

_CHUNK = 1 << 16
_OBJECT = 64  # bytes of a semaphore (a line of the processor's cache), and of a message besides its text
_SEMAPHORES, _TEXT, _MESSAGES = 3, 3, 4  # columns


class IpcTable:
    """Reads one table repeatedly: `shm`, `sem` or `msg`; `close` ends it.

    The kernel shows the objects of the IPC namespace of the thread that makes this, to whichever thread reads. So an
    agent needs no thread in the namespace of a sandbox.
    """

    def __init__(self, name: str) -> None:
        try:
            self._file = os.open(f"/proc/sysvipc/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # a kernel without System V IPC, or /proc does not show it
            self._file = -1

    def rows(self) -> list[list[bytes]]:
        """The columns of each object; no row if they cannot be read."""
        text = b""
        try:
            while chunk := os.pread(self._file, _CHUNK, len(text)):
                text += chunk
        except OSError:
            return []
        return [line.split() for line in text.splitlines()[1:]]

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class SemaphoresAndMessages:
    """Measures the kernel's memory for the semaphores and messages of an IPC namespace; made and closed as a table.

    A process can make 64 GB of semaphores, and no process is charged for them.
    """

    def __init__(self) -> None:
        self._semaphores, self._messages = IpcTable("sem"), IpcTable("msg")

    def used(self) -> int:
        """The bytes that they take."""
        semaphores = sum(int(row[_SEMAPHORES]) for row in self._semaphores.rows())
        messages = self._messages.rows()
        number = semaphores + sum(int(row[_MESSAGES]) for row in messages)
        return number * _OBJECT + sum(int(row[_TEXT]) for row in messages)

    def close(self) -> None:
        """Close both tables."""
        self._semaphores.close()
        self._messages.close()
