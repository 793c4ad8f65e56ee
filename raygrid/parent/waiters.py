"""Wakes requests of this parent that wait for a job to change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from raygrid.models import DoneJob
from raygrid.transport.ports import JobChange


class Watch(asyncio.Event):
    """An event that is set when a job may have changed.

    Attributes:
        done: the watched job, if a leader has reported it as done; if None, read the job from the store.
    """

    done: DoneJob | None = None


class Waiters:
    """Wakes waiters when leaders report changes. Without a done job, a wake-up is only a hint."""

    def __init__(self) -> None:
        self._by_job: dict[str, dict[Watch, None]] = {}  # in order of arrival
        self._any: dict[Watch, None] = {}

    def watch_job(self, job_id: str) -> Watch:
        """An event that is set when the job may have changed; pass it to `forget` at the end."""
        event = Watch()
        self._by_job.setdefault(job_id, {})[event] = None
        return event

    def watch_all(self) -> Watch:
        """An event that is set when any job may have changed; pass it to `forget` at the end."""
        event = Watch()
        self._any[event] = None
        return event

    def forget(self, event: Watch, job_id: str | None = None) -> None:
        """Remove an event."""
        self._any.pop(event, None)
        if job_id is not None and (events := self._by_job.get(job_id)) is not None:
            events.pop(event, None)
            if not events:
                del self._by_job[job_id]

    def changed(self, changes: Iterable[JobChange]) -> None:
        """Wake the waiters for these jobs and the waiters for any job."""
        something = False
        for change in changes:
            something = True
            for event in self._by_job.get(change.job_id, ()):
                event.done = event.done or change.done
                event.set()
        if something:
            self._wake_any()

    def wake_all(self) -> None:
        """Wake all waiters, because changes may have been missed."""
        for events in self._by_job.values():
            for event in events:
                event.set()
        self._wake_any()

    def _wake_any(self) -> None:
        for event in self._any:
            event.set()
