"""Holds an attempt to its limits while its pricer runs: the watchdog and the helper gate know of it from before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from raygrid.node.attempt.stages import PreparedAttempt
from raygrid.node.limits.running import Running
from raygrid.node.limits.watchdog import Watchdog


@contextmanager
def supervised(prepared: PreparedAttempt, watchdog: Watchdog) -> Iterator[Running]:
    """Register an attempt before its pricer is started, until its pricer has ended."""
    spec, pricer, directory = prepared.spec, prepared.pricer, prepared.directory
    gate = watchdog.helpers.gate
    gate.begin(spec.pricer, pricer)  # waits while helper processes of the pricer are being ended
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
    try:
        yield running
    finally:
        watchdog.release(running)
        gate.end(spec.pricer, pricer)
