"""The supervisor of Ray on one machine of a cluster: `python -m raygrid.cluster.supervisor`, its spec on stdin.

It runs `ray start --block` and starts it again when it dies. It ends after `raygrid host stop`, SIGTERM, `ray stop` on
this machine (which `ray down` runs on the head), or a shutdown notice of the head. All processes that Ray started end
with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from raygrid.cluster.shutdown_notice import HeadWatch, announce_shutdown, cluster_token
from raygrid.cluster.spec import STOP, HostSpec
from raygrid.system import logs, ray_directory, tmp_cleaners, user_namespace
from raygrid.system.orphans import REAPER, Strays
from raygrid.system.proc import command_line_of, name_of, process_of, process_table, voluntary_switches
from raygrid.system.relatives import descendants
from raygrid.system.supervisor import run_alone, start_child, stop_on_signals, write_log

POLL_S = 0.25
# `ray start --block` checks its processes every second. After a crash of one it ends; after `ray stop` it goes on.
# On an overloaded machine its checks come late, so a number of them must have passed, too.
STOPPED_AFTER_S = 4.0
CHECKS = 3
# `ray start` writes this when a process of Ray failed, before it ends the others, which may take many seconds. After
# `ray stop` it writes nothing.
FAILURE = b"exited unexpectedly"
GIVE_UP_S = 10.0  # a Ray without its raylet that neither ends nor was stopped is restarted
ANNOUNCE_S = 20.0
RAYLET_END_S = 6.0
END_S = 4.0
MAX_PAUSE_S = 10.0
STARTED = b"Ray runtime started."
TAKEN = 3
"""Exit code of a supervisor if another one runs for the same directory."""


@dataclass(frozen=True)
class _Gone:
    """When the raylet was first seen to be gone, and the voluntary switches of `ray start` by then.

    Each check of `ray start` is a sleep, which is a voluntary switch.
    """

    at: float
    switches: int

    def is_known_to(self, ray_start: int) -> bool:
        """Whether `ray start` must have noticed it by now."""
        checks = voluntary_switches(ray_start) - self.switches
        return time.monotonic() - self.at > STOPPED_AFTER_S and checks >= CHECKS


class HostSupervisor:
    """Keeps Ray running on this machine until it is stopped."""

    def __init__(self, spec: HostSpec) -> None:
        self._spec = spec
        self._stop = threading.Event()
        self._for_good = False  # whether Ray was stopped on purpose, so that the cluster ends with its head
        self._locked: int | None = None
        self._token = cluster_token(spec.environment())
        self._watch = None if spec.head else HeadWatch(spec.head_address, self._token)

    def run(self) -> None:
        """Run Ray, and restart it when it ends, until the supervisor is stopped."""
        stop_on_signals(self._stop)
        self._strays = Strays(runs_jobs=not self._spec.head)
        self._write("starting")
        if self._watch is not None:
            self._watch.start()
        pause_s = 0.5
        try:
            while not self._should_stop():
                began = time.monotonic()
                try:
                    if self._run_ray():
                        break
                except OSError as error:
                    write_log(f"Ray could not be started: {error}")
                pause_s = 0.5 if time.monotonic() - began > 60 else min(2 * pause_s, MAX_PAUSE_S)
                write_log(f"Ray ended unexpectedly; starting it again in {pause_s:g} s")
                self._write("restarting")
                self._stop.wait(pause_s)
        finally:
            if self._watch is not None:
                self._watch.close()
            self._write("stopped")
        # A head that ends by a signal, as when its machine restarts, keeps Ray's state, and its workers wait.
        if self._spec.head and (self._for_good or (self._spec.directory / STOP).exists()):
            self._announce_shutdown()

    def _should_stop(self) -> bool:
        return self._stop.is_set() or (self._watch is not None and self._watch.head_stopped.is_set())

    def _write(self, state: str) -> None:
        path = self._spec.directory / "host.json"
        environment = self._spec.environment()
        ray = {name: environment[name] for name in self._spec.public_environment}
        try:
            path.with_suffix(".new").write_text(
                json.dumps({"pid": os.getpid(), "state": state, "ray": ray, "asked": self._spec.public})
            )
            path.with_suffix(".new").replace(path)
        except OSError as error:
            write_log(f"cannot write {path}: {error}")

    def _run_ray(self) -> bool:
        """Run Ray once; gives whether it was stopped on purpose."""
        log_path = self._spec.directory / logs.DIRECTORY / "ray.log"
        write_log(" ".join(["starting Ray:", *self._spec.command()[2:]]))
        environment = {**self._spec.environment(), **self._strays.variables}
        process = start_child(self._spec.command(), log_path, environment=environment, fresh_log=True)
        self._strays.spare(process.pid)
        is_up = False
        raylet: int | None = None
        gone: _Gone | None = None
        try:
            while process.poll() is None:
                if self._should_stop():
                    write_log(f"stopping Ray {'on request' if self._stop.is_set() else 'after the notice of the head'}")
                    return True
                if raylet is None:
                    raylet = next(filter(_is_raylet, descendants(process.pid)), None)
                    if raylet is not None:
                        write_log(f"Ray's raylet is process {raylet}")
                if gone is None:
                    # A Ray that is up has had a raylet, which may have ended before the first check here.
                    if is_up if raylet is None else not _is_raylet(raylet):
                        gone = _Gone(time.monotonic(), voluntary_switches(process.pid))
                elif is_up and _is_empty(process.pid) and FAILURE not in log_path.read_bytes():
                    if gone.is_known_to(process.pid):
                        write_log("Ray was stopped on this machine (`ray stop` or `ray down`); ending")
                        self._for_good = True
                        return True
                elif time.monotonic() - gone.at > GIVE_UP_S:
                    write_log("Ray's raylet has ended, but `ray start` goes on; ending it")
                    return False
                if not is_up and STARTED in log_path.read_bytes():
                    is_up = True
                    write_log("Ray is up")
                    self._lock_ray_directory()
                    self._write("up")
                self._strays.look()
                self._stop.wait(POLL_S)
            write_log(f"Ray ended with exit code {process.returncode}; see {log_path}")
            return False
        finally:
            self._end(process)

    def _lock_ray_directory(self) -> None:
        if self._locked is None:
            self._locked = tmp_cleaners.lock(ray_directory.of_cluster(self._spec.environment()))

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """End Ray in order: first its raylet, which ends agents and leaders, then the other processes."""
        _signal_until_gone({pid for pid in _living() if _is_raylet(pid)}, RAYLET_END_S)
        reapers = {pid for pid in _living() if REAPER in command_line_of(pid)}
        _signal_until_gone(_living() - reapers, END_S)
        # Reapers end by themselves after they have cleaned up after their agents.
        _wait_until_gone(reapers, END_S)
        until = time.monotonic() + END_S
        while (late := _living()) and time.monotonic() < until:  # started while the others were ending
            _signal_until_gone(late, 0)
        process.wait()
        self._strays.end_all(0.0, END_S)
        _reap_zombies()

    def _announce_shutdown(self) -> None:
        # With its old state, the next head would restart the actors of the stopped cluster.
        shutil.rmtree(self._spec.gcs_directory, ignore_errors=True)
        write_log(f"the head was stopped on purpose; announcing this to the workers for {ANNOUNCE_S:g} s")
        informed = announce_shutdown(self._spec.port, self._token, ANNOUNCE_S)
        write_log(f"{informed} workers received the announcement and stop")


def _reap_zombies() -> None:
    """Collect the exit codes of the zombies that this process has as children."""
    for process in process_table():
        if process.parent == os.getpid() and process.is_zombie:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


def _living() -> set[int]:
    """The living descendants of this process."""
    return set(descendants(os.getpid()))


def _signal_until_gone(pids: set[int], patience_s: float) -> None:
    """Send SIGTERM, and after `patience_s` SIGKILL to the processes that still run."""
    until = time.monotonic() + patience_s
    number = signal.SIGTERM
    while True:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        pids = _wait_until_gone(pids, until - time.monotonic())
        if not pids:
            return
        number, until = signal.SIGKILL, time.monotonic() + 1.0


def _wait_until_gone(pids: set[int], patience_s: float) -> set[int]:
    """Wait for the end of processes; gives those that still run after `patience_s`."""
    until = time.monotonic() + patience_s
    while left := pids & _living():
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    return left


def _is_empty(ray_start: int) -> bool:
    """Whether Ray's GCS server has ended, too, as after `ray stop`; a raylet may also end alone."""
    return not any(name_of(pid) == "gcs_server" for pid in descendants(ray_start))


def _is_raylet(pid: int) -> bool:
    process = process_of(pid)
    return process is not None and not process.is_zombie and name_of(pid) == "raylet"


def main() -> int:
    """Run the supervisor until it is stopped."""
    spec = HostSpec.from_json(sys.stdin.readline())
    # No pricers run on the head, whose autoscaler runs ssh, which refuses files of root in a user namespace.
    if not spec.head and (why_not := user_namespace.enter(spec.directory)) is not None:
        write_log(why_not)
    return run_alone(spec.directory, lambda: HostSupervisor(spec).run(), taken=TAKEN, patience_s=POLL_S)


if __name__ == "__main__":
    sys.exit(main())
