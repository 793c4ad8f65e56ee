"""The Celery application of the Celery contender, imported by its client and by its worker."""

from __future__ import annotations

import os
from collections.abc import Sequence

from celery import Celery

from bench.contenders.spawn import spawn

_URL = f"redis+socket://{os.environ['BENCH_REDIS']}"

app = Celery("bench", broker=_URL, backend=_URL)
app.conf.update(
    # As its documentation recommends for many short tasks: prefetch many, transient messages, small results in Redis.
    worker_prefetch_multiplier=64,
    task_default_delivery_mode="transient",
    worker_send_task_events=False,
)


@app.task(name="spawn")  # type: ignore[untyped-decorator]  # it has no types
def job(command: Sequence[str], payload: bytes) -> int:
    """Run the command; returns its exit code."""
    return spawn(command, payload)
