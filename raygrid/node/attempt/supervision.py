"""Holds an attempt to its limits while its pricer runs: the watchdog and the helper gate know of it from before."""

from __future__ import annotations

import time

from raygrid.node.attempt.stages import PreparedAttempt
from raygrid.node.limits.running import Running
from raygrid.node.limits.watchdog import Watchdog


def begin(prepared: PreparedAttempt, watchdog: Watchdog) -> Running:
    """Register an attempt before its pricer is started; `end` must follow.

    Raises:
        UnavailableError: helper processes of the pricer are being ended, and do not end.
    """
    spec, pricer, directory = prepared.spec, prepared.pricer, prepared.directory
    watchdog.helpers.gate.begin(spec.pricer, pricer)  # waits while helper processes of the pricer are being ended
    running = Running(
        attempt=prepared.attempt,
        pricer=spec.pricer,
        started=time.monotonic(),
        timeout_s=min(spec.timeout_s or pricer.timeout_s, pricer.timeout_s),
        memory=pricer.memory,
        output=pricer.output,
        paths=(directory.where, directory.temporary.where, *(each.where for each in directory.captures)),
        given=spec.input.size + sum(each.size for each in spec.data),
    )
    watchdog.watch(running)
    return running


def end(prepared: PreparedAttempt, running: Running, watchdog: Watchdog) -> None:
    """The pricer has ended, or was not started."""
    watchdog.release(running)
    watchdog.helpers.gate.end(prepared.spec.pricer, prepared.pricer)
