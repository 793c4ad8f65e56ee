"""Registers an attempt with the watchdog and the helper gate while its pricer runs, and waits for a cold pricer."""

from __future__ import annotations

import os
import time

from raygrid.node.attempt.stages import PreparedAttempt
from raygrid.node.attempt.usage import ProcessEnd, Usage
from raygrid.node.limits.process_limits import USUAL_PROCESSES
from raygrid.node.limits.running import Running
from raygrid.node.limits.segments import AttemptSegments
from raygrid.node.limits.watchdog import Watchdog


def begin(prepared: PreparedAttempt, watchdog: Watchdog) -> Running:
    """Register an attempt before its pricer is started; `end` must follow.

    Raises:
        UnavailableError: helper processes of the pricer were killed and do not end.
    """
    spec, pricer, directory = prepared.spec, prepared.pricer, prepared.directory
    watchdog.helpers.gate.begin(spec.pricer, pricer)  # waits while helper processes of the pricer are being ended
    running = Running(
        attempt=prepared.attempt,
        pricer=spec.pricer,
        started=time.monotonic(),
        timeout_s=min(spec.timeout_s or pricer.timeout_s, pricer.timeout_s),
        memory=pricer.memory,
        processes=pricer.processes or USUAL_PROCESSES,
        output=pricer.output,
        paths=(directory.handle.path, directory.temporary.path, *(each.path for each in directory.captures)),
        shared_memory=prepared.box.shared_memory,
        segments=AttemptSegments(prepared.box.segments, prepared.box.semaphores),
        foreign_bytes=spec.input.size + sum(each.size for each in spec.data),
    )
    watchdog.watch(running)
    return running


def wait_for_child(running: Running) -> ProcessEnd:
    """Wait until a cold pricer has ended, kill the rest of its session, and reap it."""
    try:
        # The pricer stays a zombie until its session is killed: its pid names the session and must not be reused.
        os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
        running.end()
        _, status, usage = os.wait4(running.pid, 0)
    finally:
        running.ended = True
    return ProcessEnd(status, Usage.of_child(usage))


def end(prepared: PreparedAttempt, running: Running, watchdog: Watchdog) -> None:
    """Unregister an attempt whose pricer has ended, or was not started."""
    watchdog.release(running)
    watchdog.helpers.gate.end(prepared.spec.pricer, prepared.pricer)
