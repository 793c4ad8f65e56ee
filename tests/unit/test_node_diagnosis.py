"""Why a program cannot be started, as its file shows; `up` refuses it and a node explains it."""

from __future__ import annotations

import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from raygrid.errors import SettingsError
from raygrid.local.executables import require_executables
from raygrid.models import AttemptId, Outcome
from raygrid.node.attempt.diagnosis import why_not
from raygrid.settings.model import load_settings
from raygrid.settings.pricer import Pricer
from raygrid.system import proc
from tests.support.lone_agent import lone_agent, order, reports_of

MZ = b"MZ\x90\x00" + b"\0" * 60


def program(directory: Path, content: bytes, name: str = "pricer.exe", mode: int = 0o755) -> Path:
    path = directory / name
    path.write_bytes(content)
    path.chmod(mode)
    return path


def elf(machine: int, *, loader: bytes = b"", kind: bytes = b"\x02\x01\x01") -> bytes:
    """The first bytes of a 64-bit ELF program that names a loader."""
    header = b"\x7fELF" + kind + b"\0" * 9 + struct.pack("<HHI", 2, machine, 1)
    header += struct.pack("<QQQIHHHHHH", 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 3 if loader else 1, 4, 120, 0, 0, len(loader) + 1, 0, 1)
    return header + segment + loader + b"\0"


CASES = {
    "windows": (MZ, "is a Windows program; use `wine {path} {{input}}`"),
    "crlf": (
        b"#!/bin/sh\r\necho\r\n",
        "has Windows line ends (CRLF), so that its first line asks for '/bin/sh\\r'; convert it with: sed -i",
    ),
    "crlf-env": (b"#!/usr/bin/env sh\r\necho\r\n", "asks for '/usr/bin/env sh\\r'; convert it"),
    "interpreter": (b"#!/opt/none/python -u\n", "asks for the interpreter /opt/none/python in its first line"),
    "no-interpreter": (b"#!\n", "names no interpreter in its first line"),
    "interpreter-is-data": (b"#!/etc/passwd\n", "interpreter /etc/passwd in its first line, which is not executable"),
    "loader": (elf(62, loader=b"/lib/ld-none.so.9"), "needs the loader /lib/ld-none.so.9, which is not on this"),
    "architecture": (elf(22), "is built for IBM Z (s390x), and this machine is"),
    "macos": (b"\xcf\xfa\xed\xfe" + b"\0" * 30, "is a macOS program; build it for Linux"),
    "empty": (b"", "is empty"),
    "bom": (b"\xef\xbb\xbf#!/bin/sh\n", "begins with a byte order mark (UTF-8)"),
    "no-first-line": (b"echo hello\n", "is a script without a first line that names its interpreter"),
    "data": (b"\x01\x02\0\0data", "is no program of Linux without a first line"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_cannot_be_started_is_explained_with_the_remedy(tmp_path: Path, case: str) -> None:
    """The sentence names the file, what is wrong with its content and the remedy; `up` refuses it with that."""
    if case == "loader" and os.uname().machine != "x86_64":
        pytest.skip("the file of this case is built for x86-64")
    content, fragment = CASES[case]
    path = program(tmp_path, content)
    text = why_not(str(path), "/bin")
    assert text is not None
    assert text.startswith(str(path))
    assert fragment.format(path=path) in text
    with pytest.raises(SettingsError, match="cannot be started: ") as refused:
        require_executables(load_settings(pricers={"p": {"command": [str(path), "{input}"]}}))
    assert text in str(refused.value)


def test_a_path_that_leads_to_no_program_is_explained(tmp_path: Path) -> None:
    """Missing, a directory, not executable, relative, not in the PATH: each has its own sentence."""
    plain = program(tmp_path, b"#!/bin/sh\n", mode=0o644)
    assert why_not(str(tmp_path / "none"), "/bin") == f"there is no file {tmp_path / 'none'}"
    assert why_not(str(plain / "none"), "/bin") == f"there is no file {plain / 'none'}"
    assert why_not(str(tmp_path), "/bin") == f"{tmp_path} is not a file"
    assert why_not(str(plain), "/bin") == f"{plain} is not executable; make it so with: chmod +x {plain}"
    assert "is relative, but it runs in the job's directory" in str(why_not("./pricer", "/bin"))
    assert why_not("price-o-matic", "/bin") == "there is no program 'price-o-matic' in the PATH /bin"


def test_a_program_that_can_be_started_gets_no_error(tmp_path: Path) -> None:
    """A script, a program of this machine found by path or PATH, and a script with CRLF below its first line only."""
    assert why_not(str(program(tmp_path, b"#!/bin/sh\necho a\r\n")), "/bin") is None
    assert why_not("sh", "/bin:/usr/bin") is None
    assert why_not(os.path.realpath("/proc/self/exe"), "") is None


@pytest.mark.parametrize(
    ("entry", "handled"),
    [
        ("enabled\ninterpreter /usr/bin/wine\nflags: \noffset 0\nmagic 4d5a\n", True),
        ("enabled\ninterpreter /usr/bin/wine\nextension .exe\n", True),
        ("disabled\ninterpreter /usr/bin/wine\nflags: \noffset 0\nmagic 4d5a\n", False),
        ("enabled\ninterpreter /usr/bin/qemu\nflags: OCF\noffset 0\nmagic 7f454c46\nmask ffffffff\n", False),
    ],
)
def test_a_handler_of_the_kernel_makes_a_windows_program_startable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, *, handled: bool
) -> None:
    """With binfmt_misc set up for wine, `./pricer.exe {input}` needs no change."""
    (tmp_path / "binfmt").mkdir()
    (tmp_path / "binfmt" / "handler").write_text(entry)
    (tmp_path / "binfmt" / "status").write_text("enabled\n")
    monkeypatch.setattr(proc, "BINARY_FORMATS", str(tmp_path / "binfmt"))
    assert (why_not(str(program(tmp_path, MZ)), "/bin") is None) == handled


def test_up_trusts_the_kernel_rather_than_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler may be set up though this container does not show it; the program is not run to test it."""
    ran = tmp_path / "ran"
    path = program(tmp_path, f"#!/bin/sh\ntouch {ran}\n".encode())
    monkeypatch.setattr("raygrid.local.executables.why_not", lambda program, search_path: "it looks wrong")
    require_executables(load_settings(pricers={"p": {"command": [str(path), "{input}"]}}))
    assert not ran.exists()


@pytest.mark.parametrize(
    ("content", "fragment"),
    [(MZ, "is a Windows program; use `wine"), (b"#!/bin/sh\r\n", "has Windows line ends"), (None, "there is no file")],
)
async def test_a_node_explains_why_it_cannot_start_a_pricer(
    tmp_path: Path, content: bytes | None, fragment: str
) -> None:
    """The report of the attempt names pricer, node, the system's error, and the reason found in the file."""
    path = tmp_path / "pricer.exe"
    if content is not None:
        program(tmp_path, content)
    if content == MZ and shutil.which("wine") and any(Path(proc.BINARY_FORMATS).glob("*wine*")):
        pytest.skip("this machine starts Windows programs by itself (binfmt_misc)")
    agent = lone_agent(tmp_path)
    agent.configure(1, {"price": Pricer(command=(str(path), "{input}"))}, agent._settings, 1.0)
    agent.open()
    try:
        given = order("job", "x")
        agent.start(1, [replace(given, spec=replace(given.spec, pricer="price"))])
        report = (await reports_of(agent, 1))[AttemptId("job", 1)]
    finally:
        agent.close()
    assert report.outcome is Outcome.CANNOT_START
    assert report.message is not None
    assert report.message.startswith("cannot start pricer 'price' on node node-1: ")
    assert f"{path} " in report.message or report.message.endswith(str(path))
    assert fragment in report.message
