"""A failure under `strict` is explained: the path that the sandbox refused, and the setting that allows it."""

from __future__ import annotations

import pytest

from raygrid.core.sandbox_state import SandboxState
from raygrid.node.sandbox.plan import PRIVATE, SYSTEM, FileRules, SandboxPlan
from raygrid.node.sandbox.printed_errors import MissedFile, PrintedReason, missed_files, missed_network
from raygrid.node.sandbox.refusal import VisibleFiles, explain
from raygrid.node.sandbox.view import View
from raygrid.settings.pricer import Pricer

MISSING, DENIED, READ_ONLY, NONE = (
    PrintedReason.MISSING,
    PrintedReason.DENIED,
    PrintedReason.READ_ONLY,
    PrintedReason.NONE,
)
OWN = "/home/grid/.raygrid/main/node/box/1"
PRINTED = [
    # shells and the usual programs of Linux
    ("cat: /srv/a.csv: No such file or directory", "/srv/a.csv", MISSING, None),
    ("cat: '/srv/a b.csv': No such file or directory", "/srv/a b.csv", MISSING, None),
    ("sh: 1: cannot create /data/out.csv: Permission denied", "/data/out.csv", DENIED, True),
    ("sh: 1: cannot open /data/in.csv: No such file", "/data/in.csv", MISSING, None),
    ("/x/run.sh: line 3: /data/log.txt: Permission denied", "/data/log.txt", DENIED, None),
    ("sh: 2: /home/u/tool: not found", "/home/u/tool", MISSING, None),
    (
        "mkdir: cannot create directory \u2018/home/u/.cache\u2019: Read-only file system",
        "/home/u/.cache",
        READ_ONLY,
        True,
    ),
    ("touch: cannot touch '/data/x': Permission denied", "/data/x", DENIED, True),
    ("ls: cannot open directory '/data': Permission denied", "/data", DENIED, None),
    # C, C++, Fortran, Rust, Go
    ("/opt/p/price: cannot open /data/curves.csv: Permission denied", "/data/curves.csv", DENIED, None),
    ("error: could not open file /data/curves.csv", "/data/curves.csv", NONE, None),
    ("Cannot open file '/data/c.csv' for writing", "/data/c.csv", NONE, True),
    ("filesystem error: cannot create directories: Permission denied [/data/out]", "/data/out", DENIED, True),
    ("open /srv/a.csv: no such file or directory", "/srv/a.csv", MISSING, None),
    ("Error: opening /srv/a.csv: No such file or directory (os error 2)", "/srv/a.csv", MISSING, None),
    (
        "price: error while loading shared libraries: libquant.so.2: cannot open shared object file: No such file or "
        "directory",
        "libquant.so.2",
        MISSING,
        False,
    ),
    (
        "price: error while loading shared libraries: /data/lib/libq.so: cannot open shared object file: Permission "
        "denied",
        "/data/lib/libq.so",
        DENIED,
        None,
    ),
    # Python
    ("FileNotFoundError: [Errno 2] No such file or directory: '/srv/a.csv'", "/srv/a.csv", MISSING, None),
    ("PermissionError: [Errno 13] Permission denied: '/data/curves'", "/data/curves", DENIED, None),
    ("OSError: [Errno 30] Read-only file system: '/home/u/x'", "/home/u/x", READ_ONLY, True),
    ("python3: can't open file '/home/u/p.py': [Errno 2] No such file or directory", "/home/u/p.py", MISSING, None),
    # Java and .NET
    ("java.io.FileNotFoundException: /data/x.csv (Permission denied)", "/data/x.csv", DENIED, None),
    ('Exception in thread "main" java.nio.file.NoSuchFileException: /srv/x.csv', "/srv/x.csv", MISSING, None),
    ("Caused by: java.nio.file.AccessDeniedException: /data/x.csv", "/data/x.csv", DENIED, None),
    ("java.nio.file.FileSystemException: /home/u/o.csv: Read-only file system", "/home/u/o.csv", READ_ONLY, True),
    ("Error: Unable to access jarfile /srv/app.jar", "/srv/app.jar", MISSING, None),
    ("System.UnauthorizedAccessException: Access to the path '/data/x' is denied.", "/data/x", DENIED, None),
    ("System.IO.FileNotFoundException: Could not find file '/srv/x.csv'.", "/srv/x.csv", MISSING, None),
    ("DirectoryNotFoundException: Could not find a part of the path '/srv/m/x.csv'.", "/srv/m/x.csv", MISSING, None),
    # others
    ("Error: ENOENT: no such file or directory, open '/srv/x.json'", "/srv/x.json", MISSING, None),
    (r"cannot open Z:\srv\market\eur.csv: No such file or directory", "/srv/market/eur.csv", MISSING, None),
    (r"Could not find file 'Z:\srv\eur.csv'.", "/srv/eur.csv", MISSING, None),
]


@pytest.mark.parametrize(("line", "path", "reason", "writes"), PRINTED, ids=[each[0][:40] for each in PRINTED])
def test_usual_forms_are_read(line: str, path: str, reason: PrintedReason, writes: bool | None) -> None:
    """The path, the reason, and whether the program wanted to write, if the line states it."""
    assert missed_files(f"start\n{line}\n") == (MissedFile(path, reason, writes),)


@pytest.mark.parametrize(
    "line",
    [
        "priced 17 instruments from /srv/a.csv",
        "cat: input.csv: No such file or directory",
        "ValueError: could not convert string to float: '/srv/x'",
        "FileNotFoundError: [Errno 2] No such file or directory: 'curves.csv'",
        r"cannot open C:\windows\x.dll: file not found",
        "PermissionError: [Errno 13] Permission denied: '/srv/\x1b[31mred'",
    ],
)
def test_other_lines_name_no_path(line: str) -> None:
    """Nothing is made of a relative path, wine's own drive, or control characters."""
    assert missed_files(line) == ()


def test_a_traceback_shows_that_a_file_was_to_be_written() -> None:
    """The failing line of Python stands before the error."""
    text = (
        'Traceback (most recent call last):\n  File "/opt/p.py", line 3, in <module>\n'
        "    with open(path, 'w') as file:\nPermissionError: [Errno 13] Permission denied: '/data/x.csv'\n"
    )
    assert missed_files(text) == (MissedFile("/data/x.csv", DENIED, writes=True),)


def test_shared_memory_is_recognised_without_a_path() -> None:
    """Python's locks and shared memory report no path, or one that is no file's."""
    text = (
        'Traceback (most recent call last):\n  File "/usr/lib/python3.11/multiprocessing/synchronize.py", line 57\n'
        "    sl = self._semlock = _multiprocessing.SemLock(\nPermissionError: [Errno 13] Permission denied\n"
    )
    assert missed_files(text) == (MissedFile("/dev/shm", DENIED, writes=True),)
    named = "PermissionError: [Errno 13] Permission denied: '/psm_1a2b'"
    assert missed_files(named) == (MissedFile("/dev/shm", DENIED, writes=True),)


@pytest.mark.parametrize(
    "line",
    [
        "connect: Network is unreachable",
        "socket.gaierror: [Errno -3] Temporary failure in name resolution",
        "curl: (6) Could not resolve host: licence.bank",
        "java.net.UnknownHostException: licence.bank",
        "ConnectionRefusedError: [Errno 111] Connection refused",
    ],
)
def test_a_missed_network_is_recognised(line: str) -> None:
    """Names that cannot be resolved, and addresses that cannot be reached."""
    assert missed_network(line)
    assert not missed_network("the network of branches was priced")


def test_only_the_end_is_read() -> None:
    """A warning long before the end is not why it failed."""
    assert missed_files("cat: /srv/a: No such file or directory\n" + "line\n" * 100) == ()


def strict(**settings: object) -> tuple[Pricer, SandboxPlan]:
    """A pricer, and the sandbox of a machine with all mechanisms."""
    pricer = Pricer.model_validate({"command": ["/opt/desk/price", "{input}"], "sandbox": "strict", **settings})
    shown = (OWN, *pricer.write, *pricer.read)
    view = View(("/home/grid/.raygrid", *PRIVATE), shown)
    rules = FileRules((*SYSTEM, *pricer.read), (OWN, *pricer.write, "/dev/null"))
    return pricer, SandboxPlan(view, rules, pricer.network, True, True, True, True, SandboxState("strict", (), ()))


def files(*existing: str, may_write: bool = True) -> VisibleFiles:
    return VisibleFiles(lambda path: path in existing, lambda _: may_write, lambda path: path)


def said(printed: str, *existing: str, may_write: bool = True, **settings: object) -> str:
    pricer, plan = strict(**settings)
    return explain("desk", pricer, plan, printed, files(*existing, may_write=may_write)) or ""


@pytest.mark.parametrize(
    ("printed", "setting"),
    [
        ("cat: /srv/a.csv: No such file or directory", "`read: [/srv/a.csv]`"),
        ("cat: /srv/a.csv: No such file or directory\ncat: /srv/b.csv: No such file or directory", "/srv/b.csv]`"),
        ("cat: '/srv/a b.csv': No such file or directory", '`read: ["/srv/a b.csv"]`'),
        ("PermissionError: [Errno 13] Permission denied: '/data/eur.csv'", "`read: [/data/eur.csv]`"),
        ("could not open /data/eur.csv", "`read: [/data/eur.csv]`"),
        ("sh: 1: cannot create /data/new.csv: Permission denied", "`write: [/data]`"),
        ("sh: 1: cannot create /opt/desk/log.txt: Permission denied", "`write: [/opt/desk]`"),
        ("mkdir: cannot create directory '/home/u/.cache': Read-only file system", "`write: [/home/u/.cache]`"),
        ("mkdir: cannot create directory '/tmp/x': Read-only file system", "`write: [/tmp]`"),
        ("NVIDIA: could not open /dev/nvidia0: Permission denied", "`write: [/dev/nvidia0]`"),
        ("OSError: [Errno 13] Permission denied: '/dev/shm/q'", "`write: [/dev/shm]`"),
        ("curl: (6) Could not resolve host: licence.bank", "`network: true`"),
    ],
)
def test_the_exact_setting_is_named(printed: str, setting: str) -> None:
    """One line of a program, and what to add to the settings of the pricer."""
    answer = said(printed, "/data/eur.csv", "/opt/desk", "/dev/nvidia0")
    assert setting in answer
    assert "pricer 'desk'" in answer


def test_the_whole_explanation_reads_well() -> None:
    """What was refused, what to add, and what else it may be."""
    assert said("cat: /srv/a.csv: No such file or directory\nconnect: Network is unreachable") == (
        "The sandbox (strict) gives pricer 'desk' no access to /srv/a.csv and the network; if it needs that, add "
        "`read: [/srv/a.csv]` (or `write`, if it writes there) and `network: true` to its settings"
    )


@pytest.mark.parametrize(
    "printed",
    [
        "cat: /opt/desk/none.csv: No such file or directory",  # shown, and truly missing
        "cat: /data/none.csv: No such file or directory",  # not hidden: it would be denied, not missing
        f"cat: {OWN}/job/none.csv: No such file or directory",
        "could not open /opt/desk/none.csv",
        "could not open /data/none.csv",
        "/proc/self/oom_score_adj: Permission denied",
        "ls: cannot open directory '/': Permission denied",  # no setting should show everything
        "ZeroDivisionError: division by zero",
    ],
)
def test_other_failures_are_not_blamed_on_the_sandbox(printed: str) -> None:
    """A file is missing, or the program has a defect."""
    assert said(printed) == ""


def test_permissions_are_not_blamed_on_the_sandbox() -> None:
    """The user of the grid may not write the file either."""
    printed = "sh: 1: cannot create /etc/motd: Permission denied"
    assert said(printed, "/etc/motd", may_write=False) == ""
    assert "`write: [/etc]`" in said(printed, "/etc/motd")


def test_what_the_settings_allow_is_not_named_again() -> None:
    """Unless it does not exist on the node, where it must be made first."""
    printed = "mkdir: cannot create directory '/home/u/.wine': Read-only file system"
    assert said(printed, "/home/u/.wine", write=["/home/u/.wine"]) == ""
    assert said(printed, write=["/home/u/.wine"]) == (
        "The settings of pricer 'desk' name /home/u/.wine, which does not exist on this node"
    )
    assert said("connect: Network is unreachable", network=True) == ""


def test_files_of_the_grid_get_no_setting() -> None:
    """They stay hidden whatever the settings are."""
    answer = said("cat: /home/grid/.raygrid/main/grid.json: No such file or directory")
    assert "which no setting of a sandbox shows" in answer
    assert "`" not in answer


def test_whether_a_hidden_file_exists_is_not_disclosed() -> None:
    """A client can let a pricer print any path; the answer is the same for each that the sandbox hides."""

    def refuse(path: str) -> bool:
        raise AssertionError(f"asked for {path}")

    pricer, plan = strict()
    never = VisibleFiles(refuse, refuse, lambda path: str(refuse(path)))
    assert explain("desk", pricer, plan, "cat: /home/u/.ssh/id: No such file or directory", never)


def test_a_missing_library_is_named() -> None:
    """Its directory is not known."""
    printed = "p: error while loading shared libraries: libq.so.2: cannot open shared object file: No such file or d"
    assert said(printed).startswith("The program does not find libq.so.2; if the node has it")


def test_outside_of_strict_there_is_no_explanation() -> None:
    """Other sandboxes refuse no file that a setting could allow."""
    _, plan = strict()
    pricer = Pricer(command=("x",), sandbox="protect")
    assert explain("desk", pricer, plan, "cat: /srv/a.csv: No such file or directory", files()) is None


def test_few_paths_are_named() -> None:
    """A program that complains about everything does not make an endless message."""
    answer = said("\n".join(f"cat: /srv/{number}: No such file or directory" for number in range(20)))
    assert "`read: [/srv/0, /srv/1, /srv/2]`" in answer
