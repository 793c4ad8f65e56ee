"""The supervisor of a machine, with a stand-in for `ray start`: real processes, real signals, no Ray."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from raygrid.cluster import HostSpec, adopt_environment, shutdown_notice, start_host, stop_host
from raygrid.cluster import supervisor as module
from raygrid.cluster.shutdown_notice import HeadWatch, announce_shutdown
from raygrid.cluster.start import is_supervised
from raygrid.cluster.supervisor import HostSupervisor
from raygrid.errors import RaygridError, SettingsError
from raygrid.system.lock import only_one
from raygrid.system.proc import process_table

pytestmark = pytest.mark.processes

PROJECT = Path(__file__).parents[2]
# A stand-in for `ray start --block`, as its supervisor sees it: it starts processes that die with it and watches
# them. An end by SIGTERM is normal; at any other end it fails. On SIGTERM it ends them.
RAY = """
import ctypes, os, signal, sys, time

prctl = ctypes.CDLL(None).prctl
words = sys.argv

def child(name, *, stubborn=False):
    pid = os.fork()
    if pid == 0:
        if not stubborn:
            prctl(1, signal.SIGKILL)
        prctl(15, name.encode())
        signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else signal.SIG_DFL)
        while True:
            signal.pause()
    return pid

if "--fail" in words:
    sys.exit("no head there")
children = [child("raylet")]
if "--gone" in words:
    os.kill(children[0], signal.SIGTERM)
    os.waitid(os.P_PID, children[0], os.WEXITED | os.WNOWAIT)
if "--books" in words:
    children.append(child("gcs_server"))
if "--stubborn" in words:
    children.append(child("stubborn", stubborn=True))
if "--orphan" in words and os.fork() == 0:
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent:
            time.sleep(0.01)
        with open("orphan", "w") as note:
            note.write(f"{os.getpid()} {os.getppid()}\\n")
    os._exit(0)
if "--late" in words and os.fork() == 0:
    def leave(*_):
        child("late", stubborn=True)
        os._exit(0)
    signal.signal(signal.SIGTERM, leave)
    while True:
        signal.pause()

def stop(*_):
    for pid in children:
        os.kill(pid, signal.SIGTERM)
    sys.exit(1)

signal.signal(signal.SIGTERM, stop)
if "--never-up" not in words:
    print("Ray runtime started.", flush=True)
while True:
    time.sleep(0.05)
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        continue
    if pid in children and os.waitstatus_to_exitcode(status) not in (0, -signal.SIGTERM):
        if "--slow-to-end" in words:
            print("Some Ray subprocesses exited unexpectedly:", flush=True)
            time.sleep(1000)
        os._exit(1)
"""


class Machine:
    """A machine with a supervisor of its own."""

    def __init__(self, directory: Path, head_port: int) -> None:
        self.directory = directory
        self.address = f"127.0.0.1:{head_port}"

    def spec(self, *words: str) -> HostSpec:
        return HostSpec(self.directory, address=self.address, rack="rack-a", ray_args=words)

    def start(self, *words: str, timeout_s: float = 20) -> bool:
        return start_host(self.spec(*words), timeout_s)

    @property
    def noted(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "host.json").read_text())
        return found

    @property
    def log(self) -> str:
        return (self.directory / "logs" / "supervisor.log").read_text()

    def processes(self, name: str | None = None) -> list[int]:
        """What was started from this machine's directory and lives; or those of a name."""
        found = []
        for process in process_table():
            try:
                here = os.readlink(f"/proc/{process.pid}/cwd") == str(self.directory)
                comm = Path(f"/proc/{process.pid}/comm").read_text().strip()
            except OSError:
                continue
            if here and not process.is_zombie and name in (None, comm):
                found.append(process.pid)
        return found

    def left(self) -> list[int]:
        """What lives besides the supervisor, which may just be ending."""
        return [pid for pid in self.processes() if pid != self.noted["pid"]]

    @property
    def raylet(self) -> int:
        (pid,) = self.processes("raylet")
        return pid


def until(condition: Callable[[], object], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def head_port() -> int:
    """Where the head would listen; no process listens there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def machine(tmp_path: Path, head_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    package = tmp_path / "python" / "ray" / "scripts"
    package.mkdir(parents=True)
    for file in (package.parent / "__init__.py", package / "__init__.py"):
        file.touch()
    (package / "scripts.py").write_text(RAY)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'python'}:{PROJECT}")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the token")
    monkeypatch.setenv("RAY_SERVE_KV_TIMEOUT_S", "7")
    made = Machine(tmp_path / "host", head_port)
    try:
        yield made
    finally:
        for pid in made.processes():
            os.kill(pid, signal.SIGKILL)


def test_a_machine_that_runs_otherwise_is_not_taken_for_the_one_that_was_asked_for(machine: Machine) -> None:
    machine.start()

    with pytest.raises(SettingsError, match="rack: it runs with 'rack-a', you asked for 'rack-z'"):
        start_host(dataclasses.replace(machine.spec(), rack="rack-z"), 20)

    assert len(machine.processes("raylet")) == 1


def test_ray_starts_once_and_ends_on_request(machine: Machine) -> None:
    assert machine.start() is True
    assert machine.noted["state"] == "up"
    assert len(machine.processes("raylet")) == 1
    assert is_supervised(machine.directory)

    assert machine.start() is False  # it runs already
    assert len(machine.processes("raylet")) == 1

    assert stop_host(machine.directory) is True
    assert machine.left() == []
    assert machine.noted["state"] == "stopped"
    assert stop_host(machine.directory) is False  # nothing runs


def test_two_starts_at_once_start_one_ray(machine: Machine) -> None:
    with ThreadPoolExecutor(4) as pool:
        fresh = list(pool.map(lambda _: machine.start(), range(4)))

    assert sorted(fresh) == [False, False, False, True]
    assert len(machine.processes("raylet")) == 1
    assert machine.noted["state"] == "up"
    assert machine.log.count("starting Ray") == 1
    assert "another supervisor" not in machine.log
    assert stop_host(machine.directory)


def test_a_look_for_a_supervisor_is_not_taken_for_one_and_does_not_prevent_its_start(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    with (tmp_path / "lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert not is_supervised(tmp_path)

        threading.Timer(0.1, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        with only_one(tmp_path, module.POLL_S):  # it waits for the moment that a check takes
            assert is_supervised(tmp_path)


def test_a_crash_starts_ray_again_after_a_pause_that_grows(machine: Machine) -> None:
    machine.start()
    died = machine.raylet
    os.kill(died, signal.SIGKILL)

    until(lambda: "Ray ended unexpectedly; starting it again in 1 s" in machine.log)
    assert "Ray ended with exit code 1; see " in machine.log
    until(lambda: machine.noted["state"] == "restarting")
    until(lambda: machine.noted["state"] == "up")
    assert machine.raylet != died
    assert machine.log.count("Ray is up") == 2
    os.kill(machine.raylet, signal.SIGKILL)
    until(lambda: "starting it again in 2 s" in machine.log)
    assert stop_host(machine.directory)


def test_ray_stop_on_the_machine_ends_the_supervisor_too(machine: Machine) -> None:
    """`ray stop` ends the raylet with SIGTERM and leaves `ray start --block` waiting."""
    machine.start()

    os.kill(machine.raylet, signal.SIGTERM)

    until(lambda: not is_supervised(machine.directory))
    assert "Ray was stopped on this machine" in machine.log
    assert machine.left() == []
    assert machine.noted["state"] == "stopped"


@pytest.mark.parametrize("words", [("--books",), ("--never-up",)], ids=["the books are kept", "it was not up yet"])
def test_a_raylet_that_goes_without_a_stop_of_ray_starts_everything_anew(
    machine: Machine, words: tuple[str, ...]
) -> None:
    """The cluster gets no notice of an end, and everything is started anew."""
    with contextlib.suppress(RaygridError):
        machine.start(*words, timeout_s=2)
    until(lambda: machine.processes("raylet"))
    went = machine.raylet
    until(lambda: f"raylet is process {went}" in machine.log)  # until then, a Ray that is not up may be without one

    os.kill(went, signal.SIGTERM)

    until(lambda: "raylet has ended, but `ray start` goes on" in machine.log, within_s=30)
    until(lambda: machine.processes("raylet") not in ([], [went]), within_s=30)
    assert "Ray was stopped on this machine" not in machine.log
    assert stop_host(machine.directory)


def test_a_raylet_that_goes_before_it_was_seen_is_noticed(machine: Machine) -> None:
    """Ray reports that it is up, and its raylet has gone already: only the supervisor can notice."""
    assert machine.start("--books", "--gone")

    until(lambda: "raylet has ended, but `ray start` goes on" in machine.log, within_s=30)
    until(lambda: "starting it again" in machine.log)
    assert "Ray was stopped on this machine" not in machine.log
    assert stop_host(machine.directory)


def test_a_ray_start_that_takes_long_to_end_after_a_crash_counts_as_crashed(machine: Machine) -> None:
    """It has written what failed: Ray is started again, however long the rest takes to end."""
    machine.start("--slow-to-end")

    os.kill(machine.raylet, signal.SIGKILL)

    until(lambda: "starting it again" in machine.log)
    assert "Ray was stopped on this machine" not in machine.log
    assert stop_host(machine.directory)


def test_a_ray_start_that_had_no_time_to_look_does_not_count_yet(machine: Machine) -> None:
    """On a busy machine `ray start` may not have noticed a crash yet; its state counts once it has looked."""
    machine.start()
    raylet = machine.raylet
    (ray_start,) = {process.parent for process in process_table() if process.pid == raylet}
    os.kill(ray_start, signal.SIGSTOP)
    died_at = time.monotonic()

    os.kill(raylet, signal.SIGKILL)
    until(lambda: time.monotonic() - died_at > module.STOPPED_AFTER_S + 1)

    os.kill(ray_start, signal.SIGCONT)
    until(lambda: "starting it again" in machine.log)
    assert "Ray was stopped on this machine" not in machine.log
    assert stop_host(machine.directory)


def test_nothing_that_ignores_sigterm_or_starts_late_outlives_the_supervisor(machine: Machine) -> None:
    machine.start("--stubborn", "--late")
    assert machine.processes("stubborn")

    assert stop_host(machine.directory)

    assert machine.left() == []


def test_a_worker_ends_when_its_head_announces_its_shutdown(machine: Machine, head_port: int) -> None:
    machine.start()

    assert announce_shutdown(head_port, b"the token", 1.5) == 1

    until(lambda: not is_supervised(machine.directory))
    assert machine.left() == []
    assert machine.noted["state"] == "stopped"


def test_a_supervisor_that_is_killed_takes_ray_along_and_another_can_be_started(machine: Machine) -> None:
    machine.start()
    first = machine.noted["pid"]

    os.kill(first, signal.SIGKILL)

    until(lambda: machine.processes() == [])
    until(lambda: not is_supervised(machine.directory))  # the kernel releases its lock last of all
    assert stop_host(machine.directory) is False
    assert machine.noted["state"] == "up"  # what it left is not taken for the next one's
    assert machine.start() is True
    assert machine.noted["pid"] != first
    assert len(machine.processes("raylet")) == 1
    assert stop_host(machine.directory)


def test_an_orphan_of_ray_comes_to_the_supervisor_and_is_buried(machine: Machine) -> None:
    machine.start("--orphan")
    note = machine.directory / "orphan"
    until(lambda: note.exists() and note.read_text().endswith("\n"))
    orphan, its_parent = map(int, note.read_text().split())

    assert its_parent == machine.noted["pid"]
    until(lambda: not Path(f"/proc/{orphan}").exists())
    assert stop_host(machine.directory)


def test_errors_are_reported_and_a_stop_works_before_ray_is_up(machine: Machine) -> None:
    with pytest.raises(RaygridError, match=r"Ray did not come up on this machine; the end of .*supervisor\.log:\n"):
        machine.start("--fail", timeout_s=1)

    until(lambda: "Ray ended with exit code 1; see " in machine.log)
    until(lambda: "no head there" in (machine.directory / "logs" / "ray.log").read_text())
    assert is_supervised(machine.directory)  # it goes on retrying
    assert stop_host(machine.directory) is True


def test_a_ray_that_hangs_while_it_starts_can_be_stopped(machine: Machine) -> None:
    with pytest.raises(RaygridError, match="Ray did not come up"):
        machine.start("--never-up", timeout_s=1)
    assert machine.noted["state"] == "starting"

    assert stop_host(machine.directory) is True
    assert machine.left() == []


def test_a_second_start_waits_until_ray_is_up_again(machine: Machine) -> None:
    machine.start()
    os.kill(machine.raylet, signal.SIGKILL)
    until(lambda: machine.noted["state"] == "restarting")

    assert machine.start() is False

    assert machine.noted["state"] == "up"
    assert stop_host(machine.directory)


def test_a_directory_that_cannot_be_written_does_not_end_the_supervisor(machine: Machine) -> None:
    """For example on a full disk: Ray is started again once there is room."""
    machine.start()
    (machine.directory / "logs" / "ray.log").unlink()
    (machine.directory / "logs" / "ray.log").mkdir()
    (machine.directory / "host.new").mkdir()
    os.kill(machine.raylet, signal.SIGKILL)

    until(lambda: "Ray could not be started: " in machine.log and "cannot write " in machine.log)
    (machine.directory / "logs" / "ray.log").rmdir()
    (machine.directory / "host.new").rmdir()

    until(lambda: machine.log.count("Ray is up") == 2)
    assert stop_host(machine.directory)


def test_programs_beside_ray_find_the_settings_of_ray(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.start()
    for name in [*machine.noted["ray"], "RAY_AUTH_TOKEN"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "mine")

    adopt_environment(machine.directory)

    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ["RAY_SERVE_KV_TIMEOUT_S"] == "7"  # set where Ray was started
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "mine"
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert stop_host(machine.directory)


def test_no_settings_are_found_where_no_supervisor_ever_ran(tmp_path: Path) -> None:
    before = dict(os.environ)

    adopt_environment(tmp_path / "nowhere")
    assert stop_host(tmp_path / "nowhere") is False

    assert dict(os.environ) == before


def test_a_second_supervisor_on_the_same_directory_gives_up(machine: Machine) -> None:
    machine.start()

    second = subprocess.run(
        [sys.executable, "-m", "raygrid.cluster.supervisor"],
        input=machine.spec().to_json(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert (second.returncode, len(machine.processes("raylet"))) == (3, 1)
    assert "another supervisor runs already" in second.stdout
    assert stop_host(machine.directory)


def test_a_head_that_stopped_deletes_its_books_and_notifies_its_workers(
    tmp_path: Path, head_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the token")
    monkeypatch.setattr(module, "ANNOUNCE_S", 1.0)
    monkeypatch.setattr(shutdown_notice, "ASK_AGAIN_S", 0.1)
    spec = HostSpec(tmp_path, head=True, port=head_port)
    spec.gcs_directory.mkdir()
    (spec.gcs_directory / "CURRENT").write_text("x")
    watch = HeadWatch(("127.0.0.1", head_port), b"the token")
    watch.start()
    try:
        HostSupervisor(spec)._announce_shutdown()
        assert watch.head_stopped.wait(5)
    finally:
        watch.close()

    assert not spec.gcs_directory.exists()
