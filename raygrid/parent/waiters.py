"""Who waits in this parent for a job to change, and how they are woken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from raygrid.models import DoneJob
from raygrid.transport.ports import JobChange


class Watch(asyncio.Event):
    """Set whenever something may have changed.

    Attributes:
        done: the job that is watched, once it is told to be done; else the woken has to look into the store.
    """

    done: DoneJob | None = None


class Waiters:
    """Wakes waiters when leaders tell of changes. Unless it comes with a job that is done, a wake-up is only a hint."""

    def __init__(self) -> None:
        self._by_job: dict[str, dict[Watch, None]] = {}  # all in the order in which they came
        self._any: dict[Watch, None] = {}

    def watch_job(self, job_id: str) -> Watch:
        """An event that is set whenever the job may have changed; `forget` it in the end."""
        event = Watch()
        self._by_job.setdefault(job_id, {})[event] = None
        return event

    def watch_all(self) -> Watch:
        """An event that is set whenever any job may have changed; `forget` it in the end."""
        event = Watch()
        self._any[event] = None
        return event

    def forget(self, event: Watch, job_id: str | None = None) -> None:
        """Wait no more."""
        self._any.pop(event, None)
        if job_id is not None and (events := self._by_job.get(job_id)) is not None:
            events.pop(event, None)
            if not events:
                del self._by_job[job_id]

    def changed(self, changes: Iterable[JobChange]) -> None:
        """Wake those who wait for one of these jobs, once it has ended, and those who wait for anything."""
        something = False
        for change in changes:
            something = True
            for event in self._by_job.get(change.job_id, ()):
                event.done = event.done or change.done
                event.set()
        if something:
            self._wake_any()

    def wake_all(self) -> None:
        """Changes may have been missed: everybody looks."""
        for events in self._by_job.values():
            for event in events:
                event.set()
        self._wake_any()

    def _wake_any(self) -> None:
        for event in self._any:
            event.set()
