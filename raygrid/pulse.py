"""The owner's side of a guard (`guard.py`): a byte a second that says that this process works."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from raygrid import guard

if TYPE_CHECKING:  # each reaper imports this module, and would load it in vain
    import asyncio

BEAT_S = 1.0
ENDS_S = 30.0


def start_guarded(limit_s: float) -> Pulse:
    """Have this process killed once it was frozen for so long. `close` of what is returned ends the guard."""
    command = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(limit_s)]
    return Pulse(start_guard(command))


def start_guard(command: list[str]) -> subprocess.Popen[bytes]:
    """Start a guard that takes the pulse from its standard input."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # whoever kills the owner's process group does not hit its guard
        cwd="/",
    )


class Pulse:
    """Beats for a guard from a thread of its own. It never blocks, even where the guard itself is frozen.

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
        self._thread = threading.Thread(target=self._beat, name="raygrid-pulse", daemon=True)
        self._thread.start()

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat from now on only while this event loop turns: a process whose loop hangs is of no use either."""
        if self._loop is None:
            self._loop = loop

    def send(self, data: bytes) -> bool:
        """Pass data to the guard between two beats, at most `select.PIPE_BUF` bytes; False where it cannot take it now.

        Never blocks, and is safe to call from any thread.
        """
        try:
            os.write(self._pipe.fileno(), data)
        except (BlockingIOError, ValueError):  # ValueError: it is closed
            return False
        except BrokenPipeError:
            return True  # the guard was killed; there is nothing to keep it for
        return True

    def close(self) -> None:
        """Let the guard end, with whatever it does at its owner's end, and wait for that."""
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
                    return  # the guard was killed; the owner does its work without

    def _turned(self) -> bool:
        """Whether the loop has turned since the last time that this was asked; ask it to do so again."""
        if self._loop is None:
            return True
        if not self._loop_turns:
            return False
        self._loop_turns = False
        with contextlib.suppress(RuntimeError):  # it is closed: this process is about to end
            self._loop.call_soon_threadsafe(self._note_turn)
        return True

    def _note_turn(self) -> None:
        self._loop_turns = True
