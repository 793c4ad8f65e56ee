"""Runs an attempt as a pipeline of steps, each in its own module. Called from the agent's slot threads.

    definition    finds what to run (`definitions.py`)
    sandbox       finds or makes a sandbox (`../sandbox/`)
    directory     makes a directory with captured output and temporary files (`workspace.py`, `directory.py`)
    inputs        puts the input and shared data into it (`inputs.py`)
    start         spawns the pricer, or gives the job to a warm process (`start.py`, `spawn.py`, `warm/`)
    wait          waits for the end while the watchdog enforces limits (`supervision.py`)
    judgement     derives the outcome from how the process ended (`judgement.py`)
    collect       collects the files and checks whether they can be a result (`collect.py`, `outputs.py`)
    result        makes the ZIP and the final report (`result.py`, `result_zip.py`)

Each step takes a value of `stages.py` and returns the next one.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from raygrid.blobs import BlobStore
from raygrid.core.group.events import AttemptOrder
from raygrid.models import JobSpec, Outcome
from raygrid.node.attempt import supervision
from raygrid.node.attempt.collect import collect
from raygrid.node.attempt.directory import JobDirectory
from raygrid.node.attempt.failures import CannotRunError, Failures, NodeFaultError
from raygrid.node.attempt.inputs import Inputs
from raygrid.node.attempt.judgement import Judge
from raygrid.node.attempt.result import Results
from raygrid.node.attempt.stages import FinishedAttempt, PreparedAttempt, ProcessedAttempt
from raygrid.node.attempt.start import PricerStarter, inherited_environment
from raygrid.node.attempt.usage import Usage
from raygrid.node.attempt.workspace import Workspace
from raygrid.node.definitions import NodeDefinitions
from raygrid.node.limits.disk import DiskWatch
from raygrid.node.limits.kill_reasons import KillReason
from raygrid.node.limits.running import Running
from raygrid.node.limits.watchdog import Watchdog
from raygrid.node.sandbox.no_sandbox import NoSandbox
from raygrid.node.sandbox.requirement import require
from raygrid.node.sandbox.sandboxes import Sandboxes
from raygrid.node.sandbox.users import UnusableUserError
from raygrid.node.shared_data import SharedDataCache
from raygrid.node.traffic import TrafficMeter
from raygrid.node.warm.pool import WarmPool
from raygrid.settings.pricer import Pricer

logger = logging.getLogger(__name__)

# The node itself lacks something, which it may have again later.
_SHORT_OF = (errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EIO, errno.EROFS)


class Runner:
    """Runs attempts on this node; thread-safe. `warm` is the node's pool of warm processes."""

    def __init__(
        self,
        node_id: str,
        definitions: NodeDefinitions,
        blobs: BlobStore,
        workspace: Workspace,
        shared: SharedDataCache,
        watchdog: Watchdog,
        mark_prefix: str,
        traffic: TrafficMeter,
        kill_reason: Callable[[Running, Usage], KillReason | None],
        disk: DiskWatch,
        sandboxes: Sandboxes,
    ) -> None:
        self._node_id = node_id
        self._sandboxes = sandboxes
        self._definitions = definitions
        self._workspace = workspace
        self._watchdog = watchdog
        self.warm = WarmPool(watchdog, mark_prefix, inherited_environment())
        self._inputs = Inputs(blobs, shared, traffic)
        self._starter = PricerStarter(node_id, watchdog, mark_prefix, self.warm)
        self._judge = Judge(workspace, watchdog, disk, kill_reason)
        self._results = Results(node_id, disk, self._inputs)
        self._failures = Failures(node_id, workspace, disk)

    def run(
        self, order: AttemptOrder, pricer_ended: Callable[[], None] = lambda: None, slot: int = 0
    ) -> FinishedAttempt:
        """Run an attempt to its end; every failure becomes a report, none is raised.

        `pricer_ended` is called after its pricer has ended, before its result is made; then its slot number is free
        again.
        """
        directory: JobDirectory | None = None
        box: NoSandbox | None = None
        try:
            spec, pricer = self._definition(order.spec)
            box = self._sandbox(spec.pricer, pricer)
            directory = self._directory(order, box, by_name=pricer.mode == "warm")
            links = self._inputs.place(spec, directory)
            prepared = PreparedAttempt(order.attempt, spec, pricer, slot, directory, box, links)
            processed = self._process(prepared)
            pricer_ended()
            directory.pricer_ended(self._judge.remaining_writers(processed))
            judged = self._judge.judge(processed)
            if judged.report.outcome is Outcome.DISK_FULL:  # the job runs again; its files are not needed
                return FinishedAttempt(judged.report)
            return self._results.finish(collect(judged))
        except Exception as error:  # a defect of the node must not end the slot's thread
            return FinishedAttempt(self._failures.report(order.attempt, error))
        finally:
            if directory is not None:
                self._remove(directory)
            if box is not None:
                self._sandboxes.give_back(box)

    def _definition(self, spec: JobSpec) -> tuple[JobSpec, Pricer]:
        """The job with the digest of its definition, and the pricer to run."""
        resolved = self._definitions.resolve(spec)
        if resolved is None:
            message = f"node {self._node_id} has no pricer {spec.pricer!r} in its settings"
            raise CannotRunError(Outcome.CANNOT_START, message)
        return resolved

    def _sandbox(self, name: str, pricer: Pricer) -> NoSandbox:
        try:
            box = self._sandboxes.take(name, pricer)
        except UnusableUserError as error:
            message = f"node {self._node_id} cannot run pricer {name!r}: {error}"
            raise CannotRunError(Outcome.CANNOT_START, message) from error
        except OSError as error:
            message = f"cannot set up a sandbox for pricer {name!r}: {error}"
            if error.errno in _SHORT_OF:
                raise NodeFaultError(message, error) from error
            # Other pricers can have other sandboxes, so it does not count against the node.
            raise CannotRunError(Outcome.CANNOT_START, f"node {self._node_id}: {message}") from error
        try:
            require(self._node_id, name, pricer, box.state)
        except CannotRunError:
            self._sandboxes.give_back(box)
            raise
        return box

    def _directory(self, order: AttemptOrder, box: NoSandbox, *, by_name: bool) -> JobDirectory:
        try:
            return self._workspace.create(order.attempt, by_name=by_name, within=box.directory)
        except OSError as error:
            raise NodeFaultError(f"cannot make the job directory: {error}", error) from error

    def _process(self, prepared: PreparedAttempt) -> ProcessedAttempt:
        """Start the pricer and wait for its end."""
        running = supervision.begin(prepared, self._watchdog)
        try:
            started_at = datetime.now(UTC)
            end = self._starter.start(prepared, running)()
        finally:
            supervision.end(prepared, running, self._watchdog)
        return ProcessedAttempt(prepared, running, end, started_at, datetime.now(UTC))

    def _remove(self, directory: JobDirectory) -> None:
        try:
            self._workspace.remove(directory)
        except OSError:
            path = directory.handle.path
            logger.warning("cannot remove the job directory %s; it is removed when the agent ends", path, exc_info=True)
