"""Runs one attempt: job directory, input, spawn, wait, result ZIP. Called from the agent's slot threads.

The pricer is spawned from a thread, leads a session of its own, reads nothing, and prints into files, so that neither
a full pipe nor a descendant that keeps one open can hang the job.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from raygrid import expected
from raygrid.blobs import BlobStore
from raygrid.config import Pricer
from raygrid.content import Contents
from raygrid.core.events import AttemptOrder
from raygrid.errors import BlobDamagedError, BlobNotFoundError, DefinitionLostError, SettingsError, UnavailableError
from raygrid.models import AttemptReport, JobSpec, Outcome
from raygrid.node import diagnosis, result, workspace
from raygrid.node.beneath import BadOutputError
from raygrid.node.captures import Capture
from raygrid.node.definitions import Definitions
from raygrid.node.disk import NO_ROOM, DiskWatch
from raygrid.node.processes import MARK
from raygrid.node.result import ResultZip
from raygrid.node.shared_data import Link, SharedDataCache
from raygrid.node.spares import JobDirectory
from raygrid.node.spawn import Environment, spawn, when_written
from raygrid.node.traffic import TrafficMeter
from raygrid.node.usage import Usage
from raygrid.node.verdicts import Verdict
from raygrid.node.warm import WarmPool
from raygrid.node.warm_process import Ended, WarmProcess
from raygrid.node.watchdog import Running, Watchdog
from raygrid.node.workspace import OutputFile, Workspace

logger = logging.getLogger(__name__)

STDERR_TAIL = 4_000
MOST_ENVIRONMENTS = 64
SHELL_SAW_KILL = 128 + signal.SIGKILL
_NO_CAPTURES = tuple(OutputFile(name, -1, "", 0) for name in ("stdout.txt", "stderr.txt"))
_ANSWERS = "it must answer each job with a line on its stdout, see docs/warm-pricers.md"
# What a pricer gets of the agent's own environment; secrets of the grid are not among it.
PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "USER",
    "LOGNAME",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
)


@dataclass(frozen=True, slots=True)
class Finished:
    """An attempt that has ended on this node, with its ZIP (if any) not yet stored."""

    report: AttemptReport
    zip: ResultZip | None = None


def command_line(pricer: Pricer, spec: JobSpec, input_path: str, directory: JobDirectory) -> list[str]:
    """The words of the command, placeholders filled in; never passed through a shell."""
    values = {
        "input": input_path,
        "output_dir": directory.where,
        "data_dir": f"{directory.where}/data",
        "job_id": spec.job_id,
    }
    words: list[str] = []
    for word in pricer.command:
        if word == "{args}":
            words.extend(spec.args)
        else:
            words.append(word.format_map(values))
    return words


class Runner:
    """Runs attempts on this node; safe to call from many threads."""

    def __init__(
        self,
        node_id: str,
        definitions: Definitions,
        blobs: BlobStore,
        places: Workspace,
        shared: SharedDataCache,
        watchdog: Watchdog,
        mark_prefix: str,
        traffic: TrafficMeter | None = None,
        verdict: Callable[[Running, Usage], Verdict | None] = lambda *_: None,
        disk: DiskWatch | None = None,
    ) -> None:
        self._verdict = verdict
        self._disk = disk or DiskWatch(watchdog, places)
        self._traffic = traffic or TrafficMeter()
        self._node_id = node_id
        self._definitions = definitions
        self._contents = Contents()
        self._blobs = blobs
        self._places = places
        self._shared = shared
        self._watchdog = watchdog
        self._mark_prefix = mark_prefix
        self._environments: dict[tuple[str, str], tuple[Pricer, Environment]] = {}  # by pricer and definition
        self._nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        self.warm = WarmPool(places, watchdog, mark_prefix, self._environment)

    def run(self, order: AttemptOrder, ended: Callable[[], None] = lambda: None, slot: int = 0) -> Finished:
        """Run an attempt to its end; every failure becomes a report, none is raised.

        Args:
            order: the attempt.
            ended: called when its pricer has ended, and only its result is still to be put together.
            slot: number of the slot that it has; it is free again once `ended` is called.
        """
        attempt = order.attempt
        pricer = self._pricer_for(order)
        if isinstance(pricer, Finished):
            return pricer
        try:
            directory = self._places.create(attempt)
        except OSError as error:
            return self._infrastructure(order, f"cannot make the job directory: {error}", error)
        try:
            return self._run_in(directory, order, pricer, ended, slot)
        except BlobNotFoundError as error:
            # Nothing is wrong with the node, so this is not held against it.
            return Finished(AttemptReport(attempt, Outcome.INPUT_LOST, message=str(error)))
        except (OSError, UnavailableError) as error:
            what = str(error) if isinstance(error, UnavailableError) else f"{type(error).__name__}: {error}"
            return self._infrastructure(order, what, error)
        except Exception as error:  # a defect of ours must not take the slot with it
            return self._infrastructure(order, f"unexpected {type(error).__name__}: {error}")
        finally:
            try:
                self._places.remove(directory)
            except OSError:  # the answer stands; what is left goes with the agent's life
                logger.warning("the directory of attempt %s is not removed", directory.where, exc_info=True)

    def _pricer_for(self, order: AttemptOrder) -> Pricer | Finished:
        """What to run; or how the attempt has ended, where that is not known here."""
        try:
            pricer = self._definitions.pricer(order.spec)
        except DefinitionLostError as error:
            return Finished(AttemptReport(order.attempt, Outcome.DEFINITION_LOST, message=str(error)))
        except (SettingsError, UnavailableError) as error:
            return self._infrastructure(order, str(error))
        if pricer is None:
            message = f"node {self._node_id} has no pricer {order.spec.pricer!r} in its settings"
            return Finished(AttemptReport(order.attempt, Outcome.CANNOT_START, message=message))
        return pricer

    def _infrastructure(self, order: AttemptOrder, what: str, error: Exception | None = None) -> Finished:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return Finished(self._disk.no_room(order.attempt, error))
        message = f"node {self._node_id} failed the attempt: {self._places.without_paths(what)}"
        return Finished(AttemptReport(order.attempt, Outcome.INFRASTRUCTURE, message=message))

    def _run_in(
        self, directory: JobDirectory, order: AttemptOrder, pricer: Pricer, has_ended: Callable[[], None], slot: int
    ) -> Finished:
        attempt, spec = order.attempt, self._definitions.named(order.spec, pricer)
        input_path = f"{directory.where}/{spec.filename}"
        input_mark, links = self._place_input(spec, input_path, directory)
        self._watchdog.helpers.gate.begin(spec.pricer, pricer)
        running = Running(
            attempt=attempt,
            pricer=spec.pricer,
            started=time.monotonic(),
            timeout_s=min(spec.timeout_s or pricer.timeout_s, pricer.timeout_s),
            memory=pricer.memory,
            output=pricer.output,
            paths=(directory.where, directory.temporary_files.where, *(each.where for each in directory.streams)),
            given=spec.input.size + sum(each.size for each in spec.data),
        )
        self._watchdog.watch(running)
        try:
            started_at = datetime.now(UTC)
            try:
                if pricer.mode == "warm":
                    take = partial(self.warm.take, spec.pricer, spec.definition, pricer, attempt)
                    warm: WarmProcess | None = when_written(take)
                else:
                    warm = None
                    name = f"{attempt.job_id}.{attempt.number}"
                    start = partial(self._spawn, pricer, spec, input_path, directory, name, slot)
                    running.spawned(when_written(start))
            except OSError as error:
                return self._cannot_start(order, pricer, error)
            ended = (
                self.warm.run(warm, running, spec, input_path, directory, slot) if warm is not None else _wait(running)
            )
        finally:
            self._watchdog.release(running)
            self._watchdog.helpers.gate.end(spec.pricer, pricer)
        has_ended()
        directory.is_warm = warm is not None
        if warm is None:
            directory.is_left_alone = self._watchdog.sees_nobody_astray(spec.pricer)  # before one looks at what it left
        report = self._explained(_report(running, ended, started_at), running, ended.usage)
        if report.message is not None:
            report = replace(report, message=self._places.without_paths(report.message))
        report = self._disk.judge(running, report)
        if report.outcome is Outcome.DISK_FULL:
            return Finished(report)
        try:
            report, zipped = self._zip(directory, spec, input_mark, pricer, report, ended.usage)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            report, zipped = self._disk.no_room_for_result(running, report, error), None
            if report.outcome is Outcome.OUTPUT_LIMIT:
                report, zipped = self._zip(directory, spec, input_mark, pricer, report, ended.usage)
        report = self._disk.judge_result(running, report)
        if report.outcome is Outcome.DISK_FULL:
            return Finished(report)
        unchanged = self._shared.release(links, directory.held) if links else True
        if pricer.reuse == "content" and unchanged and report.outcome is Outcome.EXITED and report.exit_code == 0:
            report = replace(report, content=self._contents.key(spec, pricer))
        return Finished(report, zipped)

    def _place_input(self, spec: JobSpec, path: str, directory: JobDirectory) -> tuple[tuple[int, int], list[Link]]:
        if spec.inline is not None:
            if hashlib.sha256(spec.inline).hexdigest() != spec.input.digest:
                raise BlobDamagedError(
                    f"the input of job {spec.job_id} in the job store is damaged (sha256 differs); submit it again "
                    "under a new jobId"
                )
            input_mark = self._places.write_input(directory, spec.filename, spec.inline)
        else:
            self._places.clear_input(directory)
            self._blobs.fetch_now(spec.input, Path(path))
            directory.input = spec.filename
            self._traffic.add(inputs=spec.input.size)
            input_mark = workspace.mark(path)
        if spec.data:
            directory.data.mkdir()
        return input_mark, [self._shared.link(data, directory.data) for data in spec.data]

    def _spawn(
        self, pricer: Pricer, spec: JobSpec, input_path: str, directory: JobDirectory, name: str, slot: int
    ) -> int:
        command = command_line(pricer, spec, input_path, directory)
        own = {
            "RAYGRID_JOB_ID": spec.job_id,
            MARK: f"{self._mark_prefix}{spec.pricer}|{name}",
            "RAYGRID_SLOT": str(slot),
        }
        if not self._watchdog.helpers.gate.runs_under_wine(spec.pricer):  # whose server all jobs look for in one TMPDIR
            own |= directory.temporary_files.variables(pricer.env)
        environment = self._environment_of(pricer, spec, own)
        captures = [each.file for each in directory.streams]
        return spawn(command, environment, own, directory.where, self._nothing, *captures)

    def _environment_of(self, pricer: Pricer, spec: JobSpec, own: Mapping[str, str]) -> Environment:
        """The environment that all attempts with a definition share, but for what is their `own`."""
        known = self._environments.get((spec.pricer, spec.definition))
        if known is None or known[0] is not pricer:
            shared = {**self._environment, **pricer.env}
            made = Environment({variable: value for variable, value in shared.items() if variable not in own})
            if len(self._environments) >= MOST_ENVIRONMENTS:
                self._environments.clear()
            self._environments[spec.pricer, spec.definition] = known = (pricer, made)
        return known[1]

    def _cannot_start(self, order: AttemptOrder, pricer: Pricer, error: OSError) -> Finished:
        if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError) or error.errno in (
            errno.ENOEXEC,
            errno.ELIBBAD,
        ):
            message = (
                f"cannot start pricer {order.spec.pricer!r} on node {self._node_id}: {error.strerror}: "
                f"{self._why_not(pricer, error)}"
            )
            message = self._places.without_paths(message)
            return Finished(AttemptReport(order.attempt, Outcome.CANNOT_START, message=message))
        if error.errno == errno.E2BIG:  # the arguments are too long wherever it runs
            message = "the command line is too long for the operating system; pass less in args"
            return Finished(AttemptReport(order.attempt, Outcome.BAD_OUTPUT, message=message))
        return self._infrastructure(order, f"cannot spawn {pricer.command[0]!r}: {error}")

    def _why_not(self, pricer: Pricer, error: OSError) -> str:
        """What is wrong with a program that could not be started, and what to do."""
        program = str(error.filename or pricer.command[0])
        search_path = pricer.env.get("PATH") or self._environment.get("PATH") or os.defpath
        return diagnosis.why_not(program, search_path) or f"{program!r}; the file must exist there and be executable"

    def _explained(self, report: AttemptReport, running: Running, usage: Usage) -> AttemptReport:
        """The report of a pricer that died of SIGKILL, or has a shell say so of its child, with the reason if known."""
        if running.killed_for is not None or (report.signal != signal.SIGKILL and report.exit_code != SHELL_SAW_KILL):
            return report
        verdict = self._verdict(running, usage)
        if verdict is None:
            return report
        return replace(_with(report, Outcome.MEMORY_PRESSURE, verdict.message), crowded=verdict.crowded)

    def _zip(
        self,
        directory: JobDirectory,
        spec: JobSpec,
        input_mark: tuple[int, int],
        pricer: Pricer,
        report: AttemptReport,
        usage: Usage,
    ) -> tuple[AttemptReport, ResultZip]:
        """The result, and what its files make of the report."""
        captures, files, report = self._collect(directory, input_mark, pricer, report)
        try:
            zipped = result.build(directory, spec, self._node_id, report, usage, captures, files)
        except (BadOutputError, PermissionError, FileNotFoundError) as error:
            # One of its files cannot be read, or a descendant removed it meanwhile; elsewhere it would be the same.
            if isinstance(error, BadOutputError):
                report = _spoilt(report, str(error))
            else:
                report = _spoilt(report, f"the pricer left a file that cannot be read: {type(error).__name__}")
            if report.outcome is Outcome.BAD_OUTPUT:
                report = _with(report, report.outcome, report.message, stderr_tail=_tail(directory, pricer))
            zipped = result.build(directory, spec, self._node_id, report, usage, _NO_CAPTURES, [])
        return report, zipped

    def _collect(
        self, directory: JobDirectory, input_mark: tuple[int, int], pricer: Pricer, report: AttemptReport
    ) -> tuple[Sequence[OutputFile], Sequence[OutputFile], AttemptReport]:
        """Captures and files for the result; a result that may not be one turns the report into a failure."""
        captures: list[OutputFile] = []
        files: list[OutputFile] = []
        for capture, empty in zip(directory.streams, _NO_CAPTURES, strict=True):
            try:
                captures.append(_printed(capture, pricer))
            except BadOutputError as error:
                captures.append(empty)
                report = _spoilt(report, str(error))
        try:
            files = workspace.outputs(directory, input_mark)
        except BadOutputError as error:
            report = _spoilt(report, str(error))
        written = sum([file.size for file in captures]) + sum([file.size for file in files])
        if written > pricer.output or report.outcome is Outcome.OUTPUT_LIMIT:
            message = f"its files have {written} bytes, holes included, and its limit is {pricer.output}"
            if report.outcome in (Outcome.EXITED, Outcome.SIGNAL):
                report = _with(report, Outcome.OUTPUT_LIMIT, message)
            files = []
            captures = [replace(each, size=min(each.size, pricer.output, STDERR_TAIL)) for each in captures]
        if pricer.expect and report.outcome is Outcome.EXITED and report.exit_code == 0:
            left = [(file.name, file.size) for file in files]
            if missing := expected.missing(pricer.expect, left):
                report = _with(report, Outcome.MISSING_OUTPUT, expected.sentence(missing, left))
        if report.outcome is not Outcome.EXITED or report.exit_code != 0:
            report = _with(report, report.outcome, report.message, stderr_tail=_tail(directory, pricer))
        return captures, files, report


def _wait(running: Running) -> Ended:
    """Wait for the pricer."""
    try:
        # Leave it a zombie until its session is killed: its pid names the session and must not be used anew.
        os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
        running.end()
        _, status, usage = os.wait4(running.pid, 0)
    finally:
        running.ended = True
    return Ended(status, Usage.of_child(usage))


def _report(running: Running, ended: Ended, started_at: datetime) -> AttemptReport:
    ended_at = datetime.now(UTC)
    code = os.waitstatus_to_exitcode(ended.status)
    exit_code, number = (code, None) if code >= 0 else (None, -code)
    outcome, message = Outcome.EXITED, None
    without = "" if ended.answered else "; the warm pricer ended without an answer"
    if running.killed_for is not None:  # whatever exit code follows a kill, the work was cut short
        outcome, message = running.killed_for, running.message
    elif number is not None:
        outcome, message = Outcome.SIGNAL, f"killed by signal {number} ({_signal_name(number)}){without}"
    elif code != 0:
        message = f"the pricer exited with code {code}{without}" + (f": {ended.message}" if ended.message else "")
    elif not ended.answered:
        outcome, message = Outcome.BAD_OUTPUT, f"the warm pricer ended without an answer (exit code 0); {_ANSWERS}"
    return AttemptReport(
        running.attempt,
        outcome,
        exit_code,
        number,
        message,
        None,
        None,
        started_at=started_at,
        ended_at=ended_at,
        crowded=running.crowded,
    )


def _with(
    report: AttemptReport, outcome: Outcome, message: str | None, stderr_tail: str | None = None
) -> AttemptReport:
    return AttemptReport(
        report.attempt,
        outcome,
        report.exit_code,
        report.signal,
        message,
        stderr_tail,
        report.result,
        report.started_at,
        report.ended_at,
        report.content,
        report.crowded,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _spoilt(report: AttemptReport, why: str) -> AttemptReport:
    """A success with a result that cannot be one is a failure; what failed by itself keeps its own reason."""
    if report.outcome is Outcome.EXITED and report.exit_code == 0:
        return _with(report, Outcome.BAD_OUTPUT, why)
    return report


def _printed(capture: Capture, pricer: Pricer) -> OutputFile:
    return workspace.captured(capture, by_name=pricer.mode == "warm")  # a warm one opens them itself


def _tail(directory: JobDirectory, pricer: Pricer) -> str:
    """The end of what was printed to stderr, as text."""
    try:
        printed = _printed(directory.streams.stderr, pricer)
        if not printed.size:
            return ""
        with printed.open() as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - STDERR_TAIL))
            return file.read(STDERR_TAIL).decode(errors="replace").replace("\0", "\ufffd")
    except (OSError, BadOutputError):
        return ""
