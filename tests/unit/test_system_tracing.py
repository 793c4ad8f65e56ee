"""Processes that hold secrets cannot be read or traced by other processes of the same user."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from raygrid.system.ray_environment import without_settings

pytestmark = pytest.mark.processes
# For root nothing is unreadable, so that the processes of these tests become another user after their imports. That
# changes whether they can be traced, as exec does.
ORDINARY = """
import ctypes, os, subprocess, sys, tempfile, time
from raygrid.system import proc
from raygrid.system.logs import write_line
from raygrid.system.processes import forbid_tracing
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
"""
VICTIM = """
if sys.argv[1] == "forbid":
    forbid_tracing()
print("ready", flush=True)
sys.stdin.readline()
"""
SIBLING = """
pid = int(sys.argv[1])
def tries(what, attempt):
    try:
        attempt()
        print(what)
    except OSError:
        pass
libc = ctypes.CDLL(None, use_errno=True)
def traced():
    if libc.ptrace(16, pid, None, None) != 0:  # PTRACE_ATTACH
        raise OSError
    libc.ptrace(17, pid, None, None)
tries("environ", lambda: open(f"/proc/{pid}/environ").read())
tries("memory", lambda: open(f"/proc/{pid}/mem", "rb"))
tries("maps", lambda: open(f"/proc/{pid}/maps").read())
tries("descriptors", lambda: os.listdir(f"/proc/{pid}/fd"))
tries("directory", lambda: os.readlink(f"/proc/{pid}/cwd"))
tries("root", lambda: os.listdir(f"/proc/{pid}/root"))
tries("tracing", traced)
"""
# What tiers do with their own files in /proc, and with programs that they start.
OWN_WORK = """
forbid_tracing()
directory = os.open(tempfile.gettempdir(), os.O_RDONLY)
assert os.path.isdir(proc.descriptor_path(directory))
assert os.listdir("/proc/self/fd")
assert os.readlink(proc.descriptor_path(directory)) == tempfile.gettempdir()
with tempfile.NamedTemporaryFile() as file:
    with open(proc.descriptor_path(file.fileno()), "rb") as again:
        again.read()
    assert list(proc.open_file_statuses(os.getpid()))
assert proc.life_of(os.getpid()) and proc.own_oom_score() is not None and proc.own_cgroup_lines()
assert proc.boot_and_pid_namespace()
assert subprocess.check_output(["pwd"], cwd=proc.descriptor_path(directory), text=True).strip() == tempfile.gettempdir()
child = subprocess.Popen(["sleep", "60"], env={"A": "b"})
try:
    until = time.monotonic() + 10
    while not proc.environment_of(child.pid) and time.monotonic() < until:  # none for a moment during its exec
        time.sleep(0.001)
    assert proc.environment_of(child.pid) == b"A=b\\0", proc.environment_of(child.pid)
    proc.set_oom_score(child.pid, 900)
    assert open(f"/proc/{child.pid}/oom_score_adj").read() == "900\\n"
    assert child.pid in proc.children_of(os.getpid())
finally:
    child.kill()
    child.wait()
write_line("test", "works")
"""


@contextmanager
def victim(how: str) -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-c", ORDINARY + VICTIM, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process.pid
        finally:
            process.kill()


def reached(pid: int) -> set[str]:
    """What a process of the same user reaches of another one."""
    return set(subprocess.check_output([sys.executable, "-c", ORDINARY + SIBLING, str(pid)], text=True).split())


def test_a_process_of_the_same_user_reaches_nothing_of_a_tier() -> None:
    """Without the call it reads environment and memory; with it, nothing."""
    with victim("allow") as pid:
        assert {"environ", "maps", "descriptors", "directory"} <= reached(pid)
    with victim("forbid") as pid:
        assert reached(pid) == set()


def test_own_work_goes_on() -> None:
    """A process that cannot be traced opens its descriptors by path, starts programs, and reads about them."""
    ended = subprocess.run(
        [sys.executable, "-c", ORDINARY + OWN_WORK], cwd="/", capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "works" in ended.stdout


def test_supervisors_get_no_settings_as_variables() -> None:
    """The settings come by a pipe; variables would be passed on to every process of Ray."""
    given = {"RAYGRID__HTTP__API_KEYS": "x", "raygrid__storage__database": "x", "RAYGRID_API_KEY": "x"}
    kept = {"RAYGRID_STATE_DIR": "/s", "PATH": "/bin", "AWS_ACCESS_KEY_ID": "x"}
    assert without_settings(given | kept) == kept
