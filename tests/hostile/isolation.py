"""Runs a command as an ordinary user in namespaces of its own: processes, mounts, network, IPC and host name.

`/home`, `/tmp`, `/var/tmp` and `/dev/shm` are empty and limited there, the network is a loopback interface, and of
directories that other users may not enter only what the interpreter and the tests need is visible. The first process
waits for the command and reaps orphans; when it ends, the kernel ends all others. Hostile programs call
`require_isolation`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TITLE = "raygrid-hostile-tests"  # the first process of the namespace has it in its command line
FIRST_UID, LAST_UID = 61_234, 61_333
LARGEST_FILE = 2 * 1024**3
HOME = Path("/home/desk")  # inside
_TOOLS = ("unshare", "setpriv", "prlimit", "timeout", "mount", "umount", "ip")
# Processes are counted for each user of the machine, so the user has no other processes.
_LIMITS = ("--nproc=3000", "--nofile=8192", "--core=0")
_SHARED = {"/tmp": "3g", "/var/tmp": "64m", "/dev/shm": "2g"}  # directories of all users, and their sizes inside

# Arguments: the user id, directories to hide, --, paths to show again, --, the command.
_SET_UP = f"""
set -e
user="$1"; shift
stash=/mnt
mount -t tmpfs -o mode=700 stash "$stash"
hidden=""
while [ "$1" != -- ]; do hidden="$hidden $1"; shift; done; shift
number=0; shown=""
while [ "$1" != -- ]; do
  number=$((number + 1)); mkdir "$stash/$number"; mount --bind "$1" "$stash/$number"; shown="$shown $1"; shift
done; shift
for place in $hidden /home; do mount -t tmpfs -o mode=755 closed "$place"; done
{"".join(f"mount -t tmpfs -o mode=1777,size={size} private {place};" for place, size in _SHARED.items())}
number=0
for place in $shown; do
  number=$((number + 1)); mkdir -p "$place"; mount --bind "$stash/$number" "$place"; umount "$stash/$number"
done
umount "$stash"
ip link set lo up
mkdir {HOME}; chown "$user:$user" {HOME}; cd {HOME}
exec setpriv --reuid "$user" --regid "$user" --clear-groups --inh-caps=-all \\
  sh -c '"$@" & wait $!' {TITLE} "$@"
"""


def free_user() -> int:
    """A user id that no process of this machine has.

    Raises:
        RuntimeError: all that are tried are in use.
    """
    taken = {user for _, user in _processes()}
    for user in range(FIRST_UID, LAST_UID + 1):
        if user not in taken:
            return user
    raise RuntimeError(f"processes run as each of the users {FIRST_UID} to {LAST_UID}")


def processes_of(user: int) -> list[int]:
    """The processes of a user on this machine, in whatever namespace."""
    return [pid for pid, owner in _processes() if owner == user]


def _processes() -> Iterator[tuple[int, int]]:
    """All processes with their users."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                yield int(entry.name), entry.stat().st_uid


def isolated(
    command: Sequence[str],
    *,
    user: int,
    timeout_s: float,
    shown: Iterable[Path] = (),
    file_size: int | None = LARGEST_FILE,
) -> list[str]:
    """The command line that runs a command in such namespaces, and ends everything there after so long.

    `shown` are further paths that the user must be able to read. .NET makes a memory file of terabytes at its start, so
    it needs `file_size` None; the sizes of the directories hold all the same.
    """
    needed = sorted({Path(sys.base_prefix), Path(sys.prefix), REPOSITORY, *(path.resolve() for path in shown)})
    closed = {way for path in needed if (way := _closed_directory(path)) is not None}
    again = [
        path for path in needed if any(path.is_relative_to(place) for place in [*map(str, closed), *_SHARED, "/home"])
    ]
    return [
        *("timeout", "--signal=KILL", str(timeout_s)),
        *("unshare", "--pid", "--mount", "--net", "--ipc", "--uts", "--fork", "--mount-proc", "--kill-child"),
        *("prlimit", *_LIMITS, *([] if file_size is None else [f"--fsize={file_size}"])),
        *("sh", "-c", _SET_UP, "sh", str(user)),
        *(str(path) for path in sorted(closed) if path != Path("/home")),
        "--",
        *(str(path) for path in again),
        "--",
        *command,
    ]


def _closed_directory(path: Path) -> Path | None:
    """The first directory on the way to a path that other users may not enter."""
    way = reversed(path.parents)
    return next((each for each in way if not each.stat().st_mode & stat.S_IXOTH), None)


def environment(**more: str) -> Mapping[str, str]:
    """The environment for a command inside: no variable of the tests' own but the path, and no bytecode is written."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    return {
        "PATH": path,
        "HOME": str(HOME),
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        **more,
    }


def why_not() -> str | None:
    """Why such namespaces cannot be made here; None where they can."""
    if os.geteuid() != 0:
        return "hostile programs run in namespaces of their own as another user, which takes root"
    for tool in _TOOLS:
        if shutil.which(tool) is None:
            return f"there is no {tool} on this machine, which isolates hostile programs"
    probe = "import os, tests.hostile.isolation as own, ray; own.require_isolation(); print(os.getppid(), os.getuid())"
    command = isolated([sys.executable, "-c", probe], user=(user := free_user()), timeout_s=60)
    found = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=90)
    if found.returncode != 0 or found.stdout.split() != ["1", str(user)]:
        return f"hostile programs cannot be isolated here: {(found.stderr or found.stdout).strip()[-300:]}"
    return None


def require_isolation() -> None:
    """Refuse to go on as root, or where the first process is not that of `isolated`; hostile programs call it first.

    Raises:
        SystemExit: with the reason.
    """
    whole_machine = Path("/proc/self/uid_map").read_text().split() == ["0", "0", str(2**32 - 1)]
    if os.geteuid() == 0 and whole_machine:
        raise SystemExit("a hostile program does not run as root")
    if TITLE.encode() not in Path("/proc/1/cmdline").read_bytes().split(b"\0"):
        raise SystemExit("a hostile program runs only in a PID namespace of the hostile tests")
