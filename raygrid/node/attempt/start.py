"""Starts the pricer of an attempt: a process of its own for a cold pricer, a loaded one for a warm pricer.

A cold pricer leads its own session, has an empty stdin, and prints into files, so that no full pipe and no descendant
with an open pipe can make the job hang.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Mapping
from functools import partial

from raygrid.models import Outcome
from raygrid.node.attempt import diagnosis
from raygrid.node.attempt.failures import CannotRunError, NodeFaultError
from raygrid.node.attempt.spawn import Environment, spawn, when_written
from raygrid.node.attempt.stages import PreparedAttempt
from raygrid.node.attempt.supervision import wait_for_child
from raygrid.node.attempt.usage import ProcessEnd
from raygrid.node.limits.running import Running
from raygrid.node.limits.watchdog import Watchdog
from raygrid.node.sandbox import refusal
from raygrid.node.warm.pool import WarmPool
from raygrid.node.warm.process import WarmProcess
from raygrid.settings.pricer import Pricer
from raygrid.system import resource_limits
from raygrid.system.address_layout import fixed_addresses
from raygrid.system.processes import MARK

MOST_ENVIRONMENTS = 64
# The variables that a pricer gets from the agent's own environment; no secret of the grid is among them.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_NOT_EXECUTABLE = (errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EACCES, errno.ENOEXEC, errno.ELIBBAD)


def inherited_environment() -> dict[str, str]:
    """The variables that pricers get from this process."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


def command_line(prepared: PreparedAttempt) -> list[str]:
    """The words of the command, placeholders filled in; no shell reads them."""
    spec, directory = prepared.spec, prepared.directory
    values = {
        "input": prepared.input_path,
        "output_dir": directory.handle.path,
        "data_dir": directory.path_of("data"),
        "job_id": spec.job_id,
    }
    words: list[str] = []
    for word in prepared.pricer.command:
        if word == "{args}":
            words.extend(spec.args)
        else:
            words.append(word.format_map(values))
    return words


class PricerStarter:
    """Starts pricers on one node; thread-safe."""

    def __init__(self, node_id: str, watchdog: Watchdog, mark_prefix: str, warm: WarmPool) -> None:
        self._node_id = node_id
        self._watchdog = watchdog
        self._mark_prefix = mark_prefix
        self._warm = warm
        self._inherited = inherited_environment()
        self._environments: dict[tuple[str, str], tuple[Pricer, Environment]] = {}  # by pricer and definition
        self._nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def start(self, prepared: PreparedAttempt, running: Running) -> Callable[[], ProcessEnd]:
        """Start the pricer; return a function that waits for its end.

        Raises:
            CannotRunError: the pricer cannot be started on this node, or on any.
            NodeFaultError: the node failed to start it.
            UnavailableError: the agent is stopping, or has too many warm processes that do not end.
        """
        try:
            if prepared.is_warm:
                spec = prepared.spec
                take = partial(
                    self._warm.take, spec.pricer, spec.definition, prepared.pricer, prepared.attempt, prepared.box
                )
                return partial(self._run_warm, when_written(take), running, prepared)
            if prepared.box.only_starts:
                return partial(self._run_beside, prepared, running)
            return partial(prepared.box.run, partial(self._run, prepared, running))
        except OSError as error:
            raise self._explained(prepared, error) from error

    def _run_warm(self, process: WarmProcess, running: Running, prepared: PreparedAttempt) -> ProcessEnd:
        """Run a job in a warm process."""
        end = self._warm.run(process, running, prepared)
        prepared.box.directory.unlock()
        return end

    def _run(self, prepared: PreparedAttempt, running: Running) -> ProcessEnd:
        """Start a cold pricer and wait for its end, in a thread of its sandbox, whose restrictions the pricer gets."""
        end = self._run_with(partial(self._spawn, prepared), prepared, running)
        running.left_nothing = self._watchdog.has_no_stray(prepared.spec.pricer, prepared.attempt)
        prepared.box.pricer_ended(left_nothing=running.left_nothing)
        return end

    def _run_beside(self, prepared: PreparedAttempt, running: Running) -> ProcessEnd:
        """The same, waiting in this thread, because others run pricers in the sandbox at the same time."""
        end = self._run_with(partial(prepared.box.run, partial(self._spawn, prepared)), prepared, running)
        prepared.box.directory.unlock()
        has_no_stray = partial(self._watchdog.has_no_stray, prepared.spec.pricer, prepared.attempt)
        running.left_nothing = prepared.box.run(has_no_stray)  # in the thread whose child the pricer was
        return end

    def _run_with(self, spawn: Callable[[], int], prepared: PreparedAttempt, running: Running) -> ProcessEnd:
        try:
            pid = when_written(spawn)
        except OSError as error:
            raise self._explained(prepared, error) from error
        running.spawned(pid)
        resource_limits.apply(pid)
        return wait_for_child(running)

    def _spawn(self, prepared: PreparedAttempt) -> int:
        spec, attempt, directory = prepared.spec, prepared.attempt, prepared.directory
        own = {
            "RAYGRID_JOB_ID": spec.job_id,
            MARK: f"{self._mark_prefix}{spec.pricer}|{attempt.name}",
            "RAYGRID_SLOT": str(prepared.slot),
        }
        # Under wine, all jobs must have the same TMPDIR, where they look for wine's server.
        is_wine = self._watchdog.helpers.gate.runs_under_wine(prepared.pricer)
        if not is_wine:
            own |= directory.temporary.variables(prepared.pricer.env)
        elif prepared.sandbox.mode == "strict":  # which hides /tmp
            own |= directory.temporaries.variables(prepared.pricer.env)
        stdout, stderr = directory.captures
        streams = (self._nothing, stdout.descriptor, stderr.descriptor)
        environment = self._environment_of(prepared, own)
        with fixed_addresses() if is_wine else contextlib.nullcontext():
            return spawn(command_line(prepared), environment, own, directory.handle.path, streams)

    def _environment_of(self, prepared: PreparedAttempt, own: Mapping[str, str]) -> Environment:
        """The environment that all attempts with a definition share, without the variables of this attempt."""
        key, pricer = (prepared.spec.pricer, prepared.spec.definition), prepared.pricer
        known = self._environments.get(key)
        if known is None or known[0] is not pricer:
            shared = {**self._inherited, **prepared.box.variables, **pricer.env}
            made = Environment({variable: value for variable, value in shared.items() if variable not in own})
            if len(self._environments) >= MOST_ENVIRONMENTS:
                self._environments.clear()
            self._environments[key] = known = (pricer, made)
        return known[1]

    def _explained(self, prepared: PreparedAttempt, error: OSError) -> Exception:
        """The error to raise for a pricer that could not be started."""
        pricer = prepared.pricer
        if error.errno in _NOT_EXECUTABLE:
            program = str(error.filename or pricer.command[0])
            search_path = pricer.env.get("PATH") or self._inherited.get("PATH") or os.defpath
            why = diagnosis.why_not(program, search_path) or f"{program!r}; the file must exist there and be executable"
            plan, name = prepared.box.plan, prepared.spec.pricer
            refused = refusal.explain(name, pricer, plan, why) if plan is not None else None
            return CannotRunError(
                Outcome.CANNOT_START,
                f"cannot start pricer {name!r} on node {self._node_id}: {error.strerror}: {why}"
                + (f". {refused}" if refused else ""),
            )
        if error.errno == errno.E2BIG:  # the arguments are too long on every node
            return CannotRunError(
                Outcome.BAD_OUTPUT, "the command line is too long for the operating system; pass less in args"
            )
        return NodeFaultError(f"cannot spawn {pricer.command[0]!r}: {error}")
