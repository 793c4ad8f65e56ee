"""The owner's side of a guard (`system/guard.py`): writes a byte a second while this process works."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from raygrid.system import guard
from raygrid.system.orphans import VARIABLE

if TYPE_CHECKING:  # every reaper imports this module, and does not need asyncio
    import asyncio

BEAT_S = 1.0
ENDS_S = 30.0
# A guard gets no other variables: other processes of the user may read its environment, and that of its owner may hold
# credentials. Without the supervisor's variable it would be ended as a stray, when its owner has died.
_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "TMPDIR", "VIRTUAL_ENV", VARIABLE)


def start_guarded(limit_s: float) -> Heartbeat:
    """Start a guard that kills this process if it is frozen for `limit_s`; `close` of the heartbeat ends the guard."""
    command = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(limit_s)]
    return Heartbeat(start_guard(command))


def start_guard(command: list[str]) -> subprocess.Popen[bytes]:
    """Start a guard that reads the heartbeat from its standard input; it gets no credentials."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a signal to the owner's process group does not reach its guard
        cwd="/",
        env={name: value for name, value in os.environ.items() if name in _VARIABLES or name.startswith("PYTHON")},
    )


class Heartbeat:
    """Writes the heartbeat from its own thread. It never blocks, even if the guard is frozen.

    Attributes:
        pid: the guard's process.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        self._process = process
        self._pipe = process.stdin
        self.pid = process.pid
        os.set_blocking(self._pipe.fileno(), False)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_turns = True
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="raygrid-heartbeat", daemon=True)
        self._thread.start()

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write from now on only while this event loop runs: a process with a blocked loop must be restarted, too."""
        if self._loop is None:
            self._loop = loop

    def send(self, data: bytes) -> bool:
        """Pass at most `select.PIPE_BUF` bytes to the guard; False if it cannot take them now. Thread-safe."""
        try:
            os.write(self._pipe.fileno(), data)
        except (BlockingIOError, ValueError):  # ValueError: closed
            return False
        except BrokenPipeError:
            return True  # the guard was killed, so keeping the data is useless
        return True

    def close(self) -> None:
        """End the guard, and wait until it has finished what it does when its owner ends."""
        self._closed.set()
        self._thread.join(timeout=ENDS_S)
        self._pipe.close()
        self._process.wait(timeout=ENDS_S)

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_S):
            if not self._turned():
                continue
            with contextlib.suppress(BlockingIOError):
                try:
                    os.write(self._pipe.fileno(), b".")
                except BrokenPipeError:
                    return  # the guard was killed; this process goes on without one

    def _turned(self) -> bool:
        """Whether the loop has run a callback since the last check; schedules the next one."""
        if self._loop is None:
            return True
        if not self._loop_turns:
            return False
        self._loop_turns = False
        with contextlib.suppress(RuntimeError):  # the loop is closed: this process is about to end
            self._loop.call_soon_threadsafe(self._note_turn)
        return True

    def _note_turn(self) -> None:
        self._loop_turns = True
