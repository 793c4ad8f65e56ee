"""The tools that cases need beyond Python: whether this machine has them, and the reason to print if not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DOTNET_DIR = Path(sys.prefix) / "dotnet"
"""Where `.ci/run` installs the .NET runtime; `DOTNET_ROOT` may name another directory."""


@dataclass(frozen=True, slots=True)
class Tool:
    """Something that a case needs; `found` returns whether this machine has it."""

    name: str
    missing: str
    found: Callable[[], bool]


def _command(name: str, package: str) -> Tool:
    return Tool(name, f"no {name} on this machine (Debian: {package})", lambda: shutil.which(name) is not None)


def dotnet() -> Path | None:
    """The program `dotnet`; None if there is none."""
    roots = [Path(root) for root in (os.environ.get("DOTNET_ROOT"),) if root]
    for root in [*roots, DOTNET_DIR / "dnv" / "net" / "runtime" / ".net"]:
        if (root / "dotnet").is_file():
            return root / "dotnet"
    on_path = shutil.which("dotnet")
    return Path(on_path) if on_path else None


def _can_isolate() -> bool:
    """Whether a program can run as another user in a new PID namespace."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return False
    trial = subprocess.run([*OWN_NAMESPACE, "true"], check=False, capture_output=True, timeout=20)
    return trial.returncode == 0


NOBODY = 65534
OWN_NAMESPACE = ("unshare", "--pid", "--fork", "--mount", "--mount-proc", "--ipc", "--kill-child")
"""Runs a command as the first process of a PID namespace, which ends with it."""

# Arguments: pairs of a directory that others may not enter and a path below it, then -- and a command. In this
# namespace only, each directory is replaced by an empty one that contains just the path.
REVEAL = """
kept=$(mktemp -d) && mount -t tmpfs none "$kept" || exit 1
while [ "$1" != -- ]; do
  place="$kept/$#"; mkdir "$place" && mount --bind "$2" "$place" || exit 1
  if [ ! -e "$1/.revealed" ]; then
    mount -t tmpfs -o mode=755 none "$1" && : > "$1/.revealed" || exit 1
  fi
  mkdir -p "$2" && mount --bind "$place" "$2" || exit 1
  shift 2
done
shift
exec "$@"
"""

CURL = _command("curl", "curl")
CC = _command("cc", "gcc")
WINE = _command("wine", "wine")
MINGW = _command("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64")
JAVA = _command("java", "default-jre-headless")
MCS = _command("mcs", "mono-mcs")
TASKSET = _command("taskset", "util-linux")
UV = Tool("uv", "no uv beside this Python", lambda: (Path(sys.executable).with_name("uv")).exists())
DOTNET = Tool("dotnet", f"no .NET runtime in DOTNET_ROOT, {DOTNET_DIR} or the path", lambda: dotnet() is not None)
PID_NAMESPACE = Tool(
    "unshare",
    "needs root, unshare and setpriv: the program may only run as another user in a PID namespace of its own",
    _can_isolate,
)
TWO_CPUS = Tool("two CPUs", "needs two CPUs", lambda: len(os.sched_getaffinity(0)) > 1)
