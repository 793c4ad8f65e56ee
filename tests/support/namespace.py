"""Runs a command as an ordinary user in a PID namespace of its own, for programs that signal whatever they can reach.

The command is the namespace's first process: signals to all processes pass it by, and its end is that of all others.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

NOBODY = 65534
# Only to read: an interpreter may lie in root's home. It allows no signal, write or trace beyond what the user may do.
_READ = ["--inh-caps", "-all,+dac_read_search", "--ambient-caps", "+dac_read_search"]
_LIMITS = ["prlimit", "--nproc=4000", "--nofile=8192", "--core=0"]


def inside(command: Sequence[str], timeout_s: float) -> list[str]:
    """The command line that runs a command inside, and ends everything there after so long."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    drop = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    if not _everybody_reaches(Path(sys.executable).resolve()):
        drop += _READ
    if os.geteuid() != 0:
        unshare, drop = [*unshare, "--user", "--map-current-user"], []
    return ["timeout", "--signal=KILL", str(timeout_s), *unshare, *drop, *_LIMITS, *command]


def why_not() -> str | None:
    """Why such a namespace cannot be made here; None where it can."""
    for tool in ("unshare", "setpriv", "prlimit", "timeout"):
        if shutil.which(tool) is None:
            return f"there is no {tool} on this machine"
    probe = "echo $$; id -u; ls -d /proc/[0-9]* | wc -l"
    found = subprocess.run(inside(["sh", "-c", probe], 10), capture_output=True, text=True, check=False, timeout=30)
    reported = found.stdout.split()
    if found.returncode != 0 or len(reported) != 3:
        return f"no PID namespace can be made here: {found.stderr.strip() or found.returncode}"
    pid, user, processes = map(int, reported)
    if pid != 1 or user == 0 or processes > 5:
        return f"a PID namespace here is none: pid {pid}, user {user}, {processes} processes"
    return None


def _everybody_reaches(path: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in (path, *path.parents))
