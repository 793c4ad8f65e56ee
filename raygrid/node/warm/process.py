"""One process of a warm pricer: how it is started, given a job, and ended.

The pool (`pool.py`) owns it; one slot thread at a time uses it. What it prints to its own stderr goes to a file, and is
added to the stderr of the current job.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Mapping
from functools import partial

from raygrid.models import AttemptId
from raygrid.node.attempt.directory import JobDirectory
from raygrid.node.attempt.safe_paths import BadOutputError, open_file, remove
from raygrid.node.attempt.spawn import no_blocked_signals
from raygrid.node.attempt.stages import PreparedAttempt
from raygrid.node.attempt.temporary_files import VARIABLES
from raygrid.node.attempt.usage import ProcessEnd, Usage
from raygrid.node.limits.allocated import allocated
from raygrid.node.limits.running import Running
from raygrid.node.limits.watchdog import Watchdog
from raygrid.node.sandbox.no_sandbox import NoSandbox
from raygrid.node.warm.conversation import Conversation
from raygrid.node.warm.protocol import request
from raygrid.node.warm.record import WarmProcessRecord
from raygrid.settings.pricer import Pricer
from raygrid.system import resource_limits
from raygrid.system.address_layout import fixed_addresses
from raygrid.system.proc import CpuAndMemory, below, cpu_and_memory, process_table
from raygrid.system.processes import MARK, has_exited, signal_group

WARM = "RAYGRID_WARM"
STEP_S = 0.01
_CHUNK = 64 * 1024


class WarmProcess:
    """A pricer's process that runs one job after another; OSError if it cannot be started.

    `serial` is its number among the agent's warm processes, `definition` the digest of what it runs, `attempt` the
    attempt that it is started for, `box` the sandbox in which it runs. `environment` has its variables besides those of
    the pricer.

    Attributes:
        jobs: how many jobs it was given.
        gone: whether it was reaped.
        idle_since: when its last job ended, on the monotonic clock.
    """

    def __init__(
        self,
        serial: int,
        name: str,
        definition: str,
        pricer: Pricer,
        mark_prefix: str,
        environment: Mapping[str, str],
        watchdog: Watchdog,
        attempt: AttemptId,
        box: NoSandbox,
    ) -> None:
        self.name = name
        self.definition = definition
        self.pricer = pricer
        self.idle_since = 0.0
        self.jobs = 0
        self.gone = False
        self._answered = False
        self._left = 0  # bytes on disk that earlier jobs left in its own directory
        self._watchdog = watchdog
        self._used = CpuAndMemory(0.0, 0.0, 0, 0)  # at the end of its last job
        self._log = -1
        self._record = WarmProcessRecord(f"@warm.{serial}", name, attempt=attempt)
        self.box = box
        self._home = box.directory.make(self._record.mark)  # no job directory has this name: a job id contains no '@'
        self._log_name = f"{self._home.name}@stderr"
        watchdog.add_warm(self._record)
        # While it is loaded, it uses helpers as an attempt does: without wine's server it would die.
        watchdog.helpers.gate.begin(name, pricer, waits=False)
        try:
            temporary = dict.fromkeys(VARIABLES, self._home.path)
            is_wine = watchdog.helpers.gate.runs_under_wine(pricer)
            if is_wine:  # wine's server is found through TMPDIR
                temporary = box.directory.temporaries.variables(()) if box.state.mode == "strict" else {}
            own = {WARM: "1", MARK: f"{mark_prefix}{name}|{self._record.mark}"}
            variables = {**environment, **box.variables, **temporary, **pricer.env, **own}
            self._open_log()
            self._process = box.run(partial(self._spawn, variables, is_wine=is_wine))
        except BaseException:
            self._forget()
            self._clear()
            raise
        self.pid = self._record.pid = self._process.pid
        resource_limits.apply(self.pid)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._conversation = Conversation(self._process.stdin.fileno(), self._process.stdout.fileno(), self.has_exited)
        self._kill_at = float("inf")

    def _open_log(self) -> None:
        # It is truncated between jobs, hence O_APPEND, and kept open, so that a pricer cannot replace it.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._log = os.open(self._log_name, flags, 0o600, dir_fd=self._home.dir_fd)
        os.fchmod(self._log, 0o666)  # its user may be another one and open it, as for captures # nosec B103

    def _spawn(self, environment: dict[str, str], *, is_wine: bool) -> subprocess.Popen[bytes]:
        with no_blocked_signals(), fixed_addresses() if is_wine else contextlib.nullcontext():
            return subprocess.Popen(
                [word.format() for word in self.pricer.command],  # doubled braces become single, as for cold pricers
                cwd=self._home.path,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                bufsize=0,
                start_new_session=True,
            )

    # --- a job ------------------------------------------------------------------------------------------------------

    def begin(self, attempt: AttemptId | None) -> bool:
        """Note the attempt that it is about to run, None after it; False if it must not run a further job."""
        return self._record.begin(attempt)

    def run(self, running: Running, prepared: PreparedAttempt) -> ProcessEnd | None:
        """Give it a job and wait for the end; None if it died before it began the job, which must run again.

        If a process dies before its first answer, it has ended the job, as a cold pricer would.
        """
        if self._answered and not self._conversation.drop_stale():
            return None
        self.jobs += 1
        running.foreign_bytes += self._left
        running.paths = (*running.paths, self._home.path, f"{self._home.path}@stderr")
        os.ftruncate(self._log, 0)
        running.spawned(self.pid)
        line = request(self.jobs, prepared)
        answer, written = self._conversation.ask(self.jobs, line, running, self._loaded)
        if answer is None:
            if self._answered and self._conversation.unread() >= written and running.never_began():
                running.foreign_bytes -= self._left
                return None
            running.end()
            self._add_stderr(prepared.directory)
            status, usage = self.reap()
            used = CpuAndMemory(usage.ru_utime, usage.ru_stime, 0, Usage.of_child(usage).max_rss_bytes or 0)
            return ProcessEnd(status, Usage.of_warm_job(self._used, used, self.jobs), answered=False)
        self._answered = True
        self._left = allocated([self._home.path]).written
        stopped = running.detach()
        if stopped:  # at the last moment; no process may write while the result is collected
            self.kill()
        self._add_stderr(prepared.directory)
        before, self._used = self._used, cpu_and_memory(self.pid)
        if stopped:
            self.reap()
        return ProcessEnd(answer.wait_status, Usage.of_warm_job(before, self._used, self.jobs), answer.message)

    def _loaded(self) -> None:
        self._record.loaded(below([self.pid], list(process_table()))[self.pid])

    @property
    def is_spent(self) -> bool:
        """Whether it has run all its jobs, has grown too large, or has children or files that a job left."""
        pricer = self.pricer
        return (
            self._record.has_stray
            or (pricer.recycle_after is not None and self.jobs >= pricer.recycle_after)
            or (pricer.recycle_memory is not None and self._used.rss_bytes > pricer.recycle_memory)
            or self._left > pricer.output // 2
        )

    def has_exited(self) -> bool:
        """Whether it has ended by itself; does not reap it."""
        return self.gone or has_exited(self.pid)

    def _add_stderr(self, directory: JobDirectory) -> None:
        """Append what it printed to its own stderr, such as a C library's last message, to the stderr of the job."""
        printed = min(os.fstat(self._log).st_size, self.pricer.output + 1)  # one byte more shows that it was too much
        if not printed:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        try:
            stderr = open_file(directory.captures.stderr.name, directory.captures.stderr.dir_fd, flags)
        except BadOutputError:  # reported when the captures of the job are read
            return
        try:
            if os.fstat(stderr).st_nlink != 1:  # a hard link to another file; reported likewise
                return
            done = 0
            while done < printed and (piece := os.pread(self._log, min(_CHUNK, printed - done), done)):
                done += os.write(stderr, piece)
        finally:
            os.close(stderr)

    # --- its end ----------------------------------------------------------------------------------------------------

    def dismiss(self, grace_s: float) -> None:
        """Close its stdin, so that it ends; `await_end` kills it after the grace."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._kill_at = time.monotonic() + grace_s

    def hurry(self) -> None:
        """End its grace."""
        self._kill_at = 0.0

    def await_end(self) -> None:
        """Wait until it has ended or its grace is over, then remove everything of it."""
        while not self.has_exited() and time.monotonic() < self._kill_at:
            time.sleep(STEP_S)
        self.kill()
        self.reap()

    def kill(self) -> None:
        """Kill its whole session."""
        if not self.gone:
            signal_group(self.pid, signal.SIGKILL)

    def reap(self) -> tuple[int, resource.struct_rusage]:
        """Reap it after it has ended or was killed, and remove its files; return its wait status and what it used."""
        # While it is a zombie, its pid still names the session; after that, the pid may be reused.
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        signal_group(self.pid, signal.SIGKILL)
        self._record.reaped()
        self.gone = True
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._forget()
        self._clear()
        return status, usage

    def _forget(self) -> None:
        self._watchdog.remove_warm(self._record)
        self._watchdog.helpers.gate.end(self.name, self.pricer)

    def _clear(self) -> None:
        self._home.remove()
        if self._log >= 0:
            os.close(self._log)
            self._log = -1
            with contextlib.suppress(OSError):
                remove(self._log_name, self._home.dir_fd)
