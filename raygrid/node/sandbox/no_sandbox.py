"""Running pricers without a sandbox, in the shape that sandboxes have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from raygrid.core.sandbox_state import NO_SANDBOX
from raygrid.node.attempt.jobs_directory import JobsDirectory
from raygrid.node.sandbox.plan import SandboxPlan
from raygrid.node.sandbox.threads import RestrictedThreads
from raygrid.system import capabilities
from raygrid.system.ipc_tables import SemaphoresAndMessages
from raygrid.system.shared_segments import SegmentTable

T = TypeVar("T")


class NoSandbox:
    """Runs pricers without any restriction, for `sandbox: off`.

    Attributes:
        directory: where job directories are made.
        state: what protects from these pricers: nothing.
        plan: how it was set up; None if nothing was.
        shared_memory: a descriptor of the sandbox's own `/dev/shm`; -1 without one.
        segments: the System V shared memory of its IPC namespace.
        semaphores: semaphores and messages of that namespace, if it is its own; else None.
        only_starts: whether `run` must only start pricers, and others wait for their ends.
        variables: environment variables that its processes need besides their pricer's.
    """

    def __init__(self, directory: JobsDirectory) -> None:
        self.directory = directory
        self.segments = SegmentTable()
        self.semaphores: SemaphoresAndMessages | None = None
        self.state = NO_SANDBOX
        self.plan: SandboxPlan | None = None
        self.shared_memory = -1
        self.only_starts = False
        self.variables: Mapping[str, str] = {}

    def run(self, work: Callable[[], T]) -> T:
        """Do work that starts a pricer; return what it returns, raise what it raises.

        Then its directory is opened again for the node: a pricer can take permissions away.
        """
        try:
            return self._run(work)
        finally:
            self.directory.unlock()

    def _run(self, work: Callable[[], T]) -> T:
        return work()

    def pricer_ended(self, *, left_nothing: bool) -> None:
        """Called by work after the end of its pricer; states whether it left no process behind."""

    def close(self) -> None:
        """End what belongs to it."""
        self.segments.close()


class WithoutPrivileges(NoSandbox):
    """No sandbox either, but without the capabilities that an agent has in its user namespace."""

    def __init__(self, directory: JobsDirectory) -> None:
        super().__init__(directory)
        self._threads = RestrictedThreads(capabilities.drop_all, lambda: None)

    def _run(self, work: Callable[[], T]) -> T:
        return self._threads.run(work)

    def close(self) -> None:
        """End the waiting thread."""
        self._threads.close()
        super().close()
