"""Spawning a pricer: what it gets and does not get, and how a failed start is reported, in both ways of doing it."""

from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path

import pytest

from raygrid.node.attempt import spawn as module
from raygrid.node.attempt.spawn import Environment, spawn, when_written

PATH = "/usr/bin:/bin"


@pytest.fixture(params=["posix_spawn", "subprocess"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "subprocess":
        monkeypatch.setattr(module, "_LIBRARY", None)
    elif module._LIBRARY is None:
        pytest.skip("this C library cannot change the directory or close files in a spawn; `subprocess` is used here")


def run(directory: Path, *command: str, **variables: str) -> tuple[int, str]:
    """Spawn a command and wait; gives its exit code and what it printed."""
    environment = Environment({"PATH": PATH, **variables})
    nothing, out = os.open(os.devnull, os.O_RDONLY), os.open(directory / "out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        pid = spawn(command, environment, {"JOB": "j1"}, str(directory), (nothing, out, out))
        status = os.waitpid(pid, 0)[1]
    finally:
        os.close(nothing)
        os.close(out)
    return os.waitstatus_to_exitcode(status), (directory / "out").read_text()


def test_a_pricer_gets_its_words_its_variables_and_its_directory(tmp_path: Path) -> None:
    """Words are unchanged, the environment is the given one only, and the directory is the job's."""
    code, printed = run(tmp_path, "sh", "-c", 'printf "%s|" "$@" "$PWD"; env; exit 7', "sh", "a b", "ü*", CURVE="eur")
    words, _, variables = printed.rpartition("|")
    assert (code, words) == (7, f"a b|ü*|{tmp_path}")
    assert {"JOB=j1", "CURVE=eur", f"PATH={PATH}"} <= set(variables.splitlines())
    assert {line.partition("=")[0] for line in variables.splitlines()} <= {"JOB", "CURVE", "PATH", "PWD", "_", "SHLVL"}


def test_a_pricer_leads_a_session_and_has_no_file_of_the_agent(tmp_path: Path) -> None:
    """Even a file that the agent has opened to be inherited is not open in the pricer."""
    leak = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        code, printed = run(
            tmp_path,
            "sh",
            "-c",
            'ls /proc/$$/fd; read -r line < /proc/$$/stat; echo "$$ $line"; readlink /proc/$$/fd/0',
        )
    finally:
        os.close(leak)
    *files, session, stdin = printed.splitlines()
    assert (code, files, stdin) == (0, ["0", "1", "2"], "/dev/null")
    fields = session.split()
    assert fields[0] == fields[1] == fields[6], "its session has its own number"


def test_a_pricer_dies_of_signals_that_python_ignores(tmp_path: Path) -> None:
    """A broken pipe or a too large file ends a pricer, as it ends any program."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        assert run(tmp_path, "sh", "-c", f"kill -{number.value} $$; exit 0")[0] == -number


def test_a_pricer_blocks_no_signal(tmp_path: Path) -> None:
    """Ray blocks SIGINT in its workers; a pricer that interrupts a program of its own must not wait for ever."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where a shell runs this in background
    try:
        assert run(tmp_path, "sh", "-c", "kill -INT $$; exit 0")[0] == -signal.SIGINT
        assert run(tmp_path, "grep", "SigBlk", "/proc/self/status") == (0, f"SigBlk:\t{0:016x}\n")
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()), "the agent's own mask is as it was"
    finally:
        signal.signal(signal.SIGINT, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def test_a_program_is_looked_for_in_its_own_path(tmp_path: Path) -> None:
    """The PATH of the pricer's settings counts; a file that cannot be run does not hide a later one that can."""
    for place, mode in (("first", 0o644), ("second", 0o755)):
        (tmp_path / place).mkdir()
        (tmp_path / place / "pricer.exe").write_text(f"#!/bin/sh\necho {place}\n")
        (tmp_path / place / "pricer.exe").chmod(mode)
    path = f"{tmp_path}/none:{tmp_path}/first:second:{PATH}"
    assert run(tmp_path, "pricer.exe", PATH=path) == (0, "second\n")
    with pytest.raises(PermissionError):
        run(tmp_path, "pricer.exe", PATH=f"{tmp_path}/first:{tmp_path}/none")
    with pytest.raises(FileNotFoundError):
        run(tmp_path, "pricer.exe", PATH=f"{tmp_path}/none")


def test_a_program_that_is_just_being_written_is_waited_for(tmp_path: Path) -> None:
    """Linux starts no program that is open for writing, for example while a new version is copied onto it."""
    program = tmp_path / "pricer.exe"
    program.write_bytes(Path("/bin/echo").read_bytes())
    program.chmod(0o755)
    with program.open("r+b") as being_written:
        with pytest.raises(OSError, match="Text file busy"):
            when_written(lambda: run(tmp_path, str(program)), patience_s=0.1)
        threading.Timer(0.3, being_written.close).start()
        assert when_written(lambda: run(tmp_path, str(program), "new")) == (0, "new\n")
    with pytest.raises(FileNotFoundError):  # is not waited for
        when_written(lambda: run(tmp_path, "/nowhere/pricer.exe"), patience_s=1e9)


def test_a_program_that_cannot_be_started_is_reported_with_its_reason(tmp_path: Path) -> None:
    """A missing file, one that is no program, and too many arguments come back as the system's own errors."""
    (tmp_path / "text").write_bytes(b"\0\1")
    (tmp_path / "text").chmod(0o755)
    for command, code in (
        (["/nowhere/pricer.exe"], errno.ENOENT),
        (["/dev/null/pricer.exe"], errno.ENOTDIR),
        (["./text"], errno.ENOEXEC),
        (["/etc/passwd"], errno.EACCES),
        (["sh", *(["x" * 100_000] * 100)], errno.E2BIG),
    ):
        with pytest.raises(OSError, match=r"\[Errno") as caught:
            run(tmp_path, *command)
        assert caught.value.errno == code
    with pytest.raises(ValueError, match="null byte"):
        run(tmp_path, "sh", "a\0b")
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "gone", "true")
