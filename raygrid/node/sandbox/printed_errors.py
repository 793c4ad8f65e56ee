"""Reads in what programs print which files and connections they did without: the usual forms of common languages.

It knows the forms of shells, C and C++, Python, Java, .NET, Go, Node.js and Windows programs under wine, in English.
Pure. What a program prints is no proof: `refusal.py` compares it with what its sandbox refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

MOST_LINES = 60
"""Only so many lines at the end are read: what a program prints earlier seldom is why it failed."""
_LONGEST = 1024
_LINES_BEFORE = 4  # of a Python traceback, in which the failing call stands


class PrintedReason(Enum):
    """What a program gives as the reason."""

    MISSING = auto()
    DENIED = auto()
    READ_ONLY = auto()
    NONE = auto()


@dataclass(frozen=True, slots=True)
class MissedFile:
    """A file that a program could not use.

    Attributes:
        path: an absolute path; for a shared library, also its name alone.
        reason: why.
        writes: whether it wanted to write; None if that is not known.
    """

    path: str
    reason: PrintedReason
    writes: bool | None = None


_REASONS = (
    (PrintedReason.READ_ONLY, r"read-only file system|ReadOnlyFileSystemException|\bEROFS\b"),
    (
        PrintedReason.DENIED,
        r"permission denied|access is denied|access denied|AccessDeniedException|\bEACCES\b|PermissionError"
        r"|UnauthorizedAccessException|is denied",
    ),
    (
        PrintedReason.MISSING,
        r"no such file(?: or directory)?|NoSuchFileException|FileNotFound|DirectoryNotFoundException|\bENOENT\b"
        r"|could not find (?:file|a part of the path)|cannot find the (?:file|path)|path not found|file not found"
        r"|unable to access jarfile|there is no file|which is not on this machine|: not found",
    ),
    (
        PrintedReason.NONE,
        r"(?:can(?:no|')?t|cannot|could ?n[o']t|unable to|failed to|failure to|error) "
        r"(?:be )?(?:open|read|load|find|access|locate|create|writ|mak|import|stat)",
    ),
)
_WRITES = re.compile(
    r"cannot (?:create|touch|make|remove|move|overwrite)|(?:can't|could not|failed to|unable to) create"
    r"|error (?:creating|writing)|\bmkdir\b|makedirs|\btouch\b|\bwrit(?:e|ing|able)\b|write_text|write_bytes"
    r"|createDirector|CreateDirectory|FileOutputStream|FileWriter|Files\.write|File\.Write|to_csv|to_parquet|to_excel"
    r"|open\([^)]*,\s*(?:mode=)?['\"][wax]|read-only file system|ReadOnlyFileSystem|\bEROFS\b",
    re.IGNORECASE,
)
_OPENS = "'\"\u2018\u201c`"
_CLOSES = "'\"\u2019\u201d"
_QUOTED = re.compile(rf"[{_OPENS}](/[^{_CLOSES}]*|[A-Za-z]:\\[^{_CLOSES}]*)[{_CLOSES}]")
_END = r"(?: \((?:permission|no such|read-only|access)|: |:?$|, |\]|\)| \(os error| in its first| is denied|;)"
_PLAIN = re.compile(rf"(?:^|[\s(\[=])(/[^\s:;,()\[\]'\"][^:;'\"\[\]]*?|[A-Za-z]:\\[^:'\"]*?)(?={_END})", re.IGNORECASE)
_FIRST_WORD = re.compile(r"(?:^|[\s(\[=])(/[^\s:;,()\[\]'\"]+)")
_LIBRARY = re.compile(
    r"(?:shared libraries: |^|\s)([^\s:/]+\.so[.\d]*): cannot open shared object file: No such", re.ASCII
)
_SHARED_MEMORY = re.compile(r"\bSemLock\b|\bsem_open\b|\bshm_open\b|'/psm_\w+'")
_NETWORK = re.compile(
    r"network is (?:unreachable|down)|network unreachable|\bENETUNREACH\b|\bEAI_AGAIN\b|failure in name resolution"
    r"|could not resolve (?:host|proxy)|name or service not known|nodename nor servname|UnknownHostException"
    r"|no such host|getaddrinfo|unable to resolve host|host is unreachable|no route to host|connection refused"
    r"|address family not supported|unable to connect|could not connect"
    r"|can(?:no|')t connect to|failed to connect"
    # Where the filter of system calls refuses sockets, because there is no network namespace:
    r"|\b_socket\.socket\.__init__|socket(?:exception)?: (?:permission denied|operation not permitted)"
    r"|couldn't connect to server|immediate connect fail",
    re.IGNORECASE,
)
_SHARED_MEMORY_PATH = "/dev/shm"  # noqa: S108  # compared, not used


def missed_files(text: str) -> tuple[MissedFile, ...]:
    """The files that a program could not use, in the order of its lines, each once."""
    found: dict[tuple[str, bool | None], MissedFile] = {}
    lines = text.splitlines()[-MOST_LINES:]
    for number, line in enumerate(lines):
        before = "\n".join(lines[max(0, number - _LINES_BEFORE) : number])
        for missed in _in_line(line[:_LONGEST], before):
            found.setdefault((missed.path, missed.writes), missed)
    return tuple(found.values())


def missed_network(text: str) -> bool:
    """Whether a program could not use the network."""
    return any(_NETWORK.search(line[:_LONGEST]) for line in text.splitlines()[-MOST_LINES:])


def _in_line(line: str, before: str) -> Iterator[MissedFile]:
    reason = next((reason for reason, form in _REASONS if re.search(form, line, re.IGNORECASE)), None)
    if reason is None:
        return
    if library := _LIBRARY.search(line):
        yield MissedFile(library[1], PrintedReason.MISSING, writes=False)
        return
    context = f"{before}\n{line}" if _is_of_traceback(before) else line
    if reason is not PrintedReason.NONE and _SHARED_MEMORY.search(context):
        yield MissedFile(_SHARED_MEMORY_PATH, reason, writes=True)
        return
    writes = True if _WRITES.search(context) else None
    for path in _paths(line):
        yield MissedFile(path, reason, writes)


def _is_of_traceback(before: str) -> bool:
    return '  File "' in before


def _paths(line: str) -> Iterator[str]:
    """The paths that a line is about: quoted ones, else the last that ends where a reason begins."""
    found = _QUOTED.findall(line) or _PLAIN.findall(line)[-1:] or _FIRST_WORD.findall(line)[-1:]
    for each in found:
        path = _of_linux(each.strip().rstrip(".,"))
        if path is not None and path.isprintable():
            yield path


def _of_linux(path: str) -> str | None:
    """A path as Linux has it; wine's drive Z: is the whole machine, and other drives lie in wine's own directory."""
    if path.startswith("/"):
        return path
    return path[2:].replace("\\\\", "\\").replace("\\", "/") if path[:2].lower() == "z:" else None
