"""Waits for the process of a cold pricer."""

from __future__ import annotations

import os

from raygrid.node.attempt.usage import ProcessEnd, Usage
from raygrid.node.limits.running import Running


def wait_for_child(running: Running) -> ProcessEnd:
    """Wait until the pricer has ended, kill what is left of its session, and reap it."""
    try:
        # The pricer stays a zombie until its session is killed: its pid names the session and must not be used again.
        os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
        running.end()
        _, status, usage = os.wait4(running.pid, 0)
    finally:
        running.ended = True
    return ProcessEnd(status, Usage.of_child(usage))
