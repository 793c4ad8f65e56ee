"""Finds out from a program's file why it cannot be started; the operating system gives only an error number.

`execve` fails with "No such file or directory" for a script whose interpreter is missing, and with "Exec format error"
for a Windows program. Used by the node when a spawn failed, and before a local grid starts. Nothing is run here.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
from collections.abc import Mapping
from pathlib import Path

from raygrid.system.proc import binary_formats, executable_of

_HEAD = 4096
_MOST_LOADER = 4096
_PT_INTERP = 3
_MACHINES = {
    3: "32-bit x86",
    8: "MIPS",
    20: "PowerPC",
    21: "64-bit PowerPC",
    22: "IBM Z (s390x)",
    40: "32-bit ARM",
    62: "x86-64",
    183: "64-bit ARM (aarch64)",
    243: "RISC-V",
    258: "LoongArch",
}
_COMPATIBLE = {62: {3}, 183: {40}, 21: {20}}  # by architecture: others that its kernels usually run, too
_MACH_O = (b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe")
_TEXT_MARKS = {b"\xef\xbb\xbf": "UTF-8", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def why_not(program: str, search_path: str) -> str | None:
    """A sentence that states why a program cannot be started here, and what to do; None if its file shows no reason.

    `program` is the first word of a command; it is searched in `search_path` (a PATH) if it has no slash.
    """
    if "/" not in program:
        found = shutil.which(program, path=search_path)
        if found is None:
            return f"there is no program {program!r} in the PATH {search_path}"
        return _why_not_file(Path(found))
    if not program.startswith("/"):
        return f"its path {program!r} is relative, but it runs in the job's directory; use an absolute path"
    return _why_not_file(Path(program))


def _why_not_file(path: Path) -> str | None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return f"there is no file {path}"
    except OSError as error:
        return f"{path} cannot be reached: {error.strerror}"
    if not stat.S_ISREG(mode):
        return f"{path} is not a file"
    if not os.access(path, os.X_OK):
        return f"{path} is not executable; make it so with: chmod +x {path}"
    head = _head(path)
    return None if head is None else _why_not_content(path, head)


def _head(path: Path) -> bytes | None:
    """The beginning of a file; None if it cannot be read, which a program need not be."""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError:
        return None


def _why_not_content(path: Path, head: bytes) -> str | None:
    if any(_matches(fields, head, path) for fields in binary_formats()):
        return None
    if head.startswith(b"\x7fELF"):
        return _why_not_elf(path, head)
    if head.startswith(b"#!"):
        return _why_not_script(path, head)
    return _why_not_other(path, head)


def _why_not_other(path: Path, head: bytes) -> str:
    """Describes a file that is neither a Linux program nor a script."""
    if not head:
        return f"{path} is empty"
    if head.startswith(b"MZ"):
        return f"{path} is a Windows program; use `wine {path} {{input}}`" + _install("wine")
    if head.startswith(_MACH_O):
        return f"{path} is a macOS program; build it for Linux"
    if head.startswith(b"PK\x03\x04") and path.suffix == ".jar":
        return f"{path} is a Java archive; use `java -jar {path} {{input}}`" + _install("java")
    for mark, encoding in _TEXT_MARKS.items():
        if head.startswith(mark):
            return f"{path} begins with a byte order mark ({encoding}); save it as UTF-8 without one"
    what = "a script" if b"\0" not in head else "no program of Linux"
    return f"{path} is {what} without a first line that names its interpreter, such as #!/bin/sh"


def _install(program: str) -> str:
    return "" if shutil.which(program) else f" ({program} is not installed on this machine)"


def wrong_line_ends(path: Path) -> str | None:
    """A sentence if a script's first line ends in CRLF: its interpreter is not found, or gets a wrong argument."""
    line, ends, _ = (_head(path) or b"").partition(b"\n")
    if not (line.startswith(b"#!") and ends and line.endswith(b"\r")):
        return None
    asked = line[2:].strip(b" \t").decode(errors="replace")
    return (
        f"{path} has Windows line ends (CRLF), so that its first line asks for {asked!r}; "
        f"convert it with: sed -i 's/\\r$//' {path}"
    )


def _why_not_script(path: Path, head: bytes) -> str | None:
    if why := wrong_line_ends(path):
        return why
    words = head.partition(b"\n")[0][2:].split()
    if not words:
        return f"{path} names no interpreter in its first line; write for instance #!/bin/sh"
    interpreter = Path(os.fsdecode(words[0]))
    if not interpreter.exists():
        return f"{path} asks for the interpreter {interpreter} in its first line, which is not on this machine"
    if not interpreter.is_file() or not os.access(interpreter, os.X_OK):
        return f"{path} asks for the interpreter {interpreter} in its first line, which is not executable"
    return None


def _why_not_elf(path: Path, head: bytes) -> str | None:
    machine, own = _machine(head), _own_machine()
    if machine is not None and own is not None and machine != own and machine not in _COMPATIBLE.get(own, ()):
        built, needed = (_MACHINES.get(each, f"machine type {each}") for each in (machine, own))
        return f"{path} is built for {built}, and this machine is {needed}; build it for this machine"
    loader = _loader(path, head)
    if loader is not None and not Path(loader).exists():
        return (
            f"{path} needs the loader {loader}, which is not on this machine: it was built for another C library or "
            "word size; install that one, or build the program here or statically"
        )
    return None


def _machine(head: bytes) -> int | None:
    if len(head) < 20 or head[5] not in (1, 2):
        return None
    return int(struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)[0])


def _own_machine() -> int | None:
    return _machine(_head(Path(executable_of(os.getpid()))) or b"")


def _loader(path: Path, head: bytes) -> str | None:
    """The loader that the header of an ELF program names; None for a static program."""
    order = "<" if head[5] == 1 else ">"
    wide = head[4] == 2
    try:
        offset = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)[0]
        size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
        with path.open("rb") as file:
            for number in range(count):
                file.seek(offset + number * size)
                header = file.read(size)
                if struct.unpack_from(order + "I", header)[0] != _PT_INTERP:
                    continue
                at, length = (
                    struct.unpack_from(order + ("QQQQ" if wide else "IIII"), header, 8 if wide else 4)[index]
                    for index in (0, 3)
                )
                file.seek(at)
                return os.fsdecode(file.read(min(length, _MOST_LOADER)).rstrip(b"\0"))
    except (OSError, struct.error, OverflowError, ValueError):
        return None  # a damaged header: the system's own message is all there is
    return None


def _matches(fields: Mapping[str, str], head: bytes, path: Path) -> bool:
    """Whether the kernel runs a file by this binary format, with wine or qemu for instance."""
    if "extension" in fields:
        return path.suffix == fields["extension"]
    try:
        magic = bytes.fromhex(fields["magic"])
        mask = bytes.fromhex(fields["mask"]) if "mask" in fields else b"\xff" * len(magic)
        offset = int(fields.get("offset", "0"))
    except (KeyError, ValueError):
        return False
    there = head[offset : offset + len(magic)]
    return len(there) == len(magic) and all((a & m) == (b & m) for a, b, m in zip(there, magic, mask, strict=True))
