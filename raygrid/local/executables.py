"""Checks, before a grid is started, that this machine can start the commands of the pricers, in their sandboxes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from raygrid.errors import SettingsError
from raygrid.node.attempt.diagnosis import why_not, wrong_line_ends
from raygrid.node.sandbox.hidden import conflicts, hidden_paths
from raygrid.node.sandbox.users import may_not_enter
from raygrid.settings.model import GridSettings
from raygrid.settings.pricer import Pricer
from raygrid.system.accounts import account
from raygrid.system.permissions import closed_to

PROBE_S = 10.0
# The kernel stops a traced process after a successful exec, before the program's first instruction, so it never runs.
_PROBE = """
import ctypes, os, sys
pid = os.fork()
if pid == 0:
    traced = ctypes.CDLL(None).ptrace(0, 0, None, None) == 0
    try:
        if traced:
            os.execv(sys.argv[1], sys.argv[1:])
    except OSError:
        os._exit(1)
    os._exit(2)
_, status = os.waitpid(pid, os.WUNTRACED)
if os.WIFSTOPPED(status):
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    sys.exit(0)
sys.exit(1)
"""


def require_executables(settings: GridSettings) -> None:
    """Refuse pricers whose program is missing or cannot be run.

    Raises:
        SettingsError: the message names the pricer, the program and what to do.
    """
    for name, pricer in settings.pricers.items():
        if why := _why_not(pricer):
            raise SettingsError(f"pricer {name!r} cannot be started: {why}")


def require_sandboxes(settings: GridSettings) -> None:
    """Refuse pricers that need a path which their sandboxes hide from them, or a user that this one cannot become.

    Raises:
        SettingsError: the message names each pricer, the path or the user, and what to do.
    """
    for name, pricer in settings.pricers.items():
        if pricer.sandbox_user is not None and pricer.sandbox_mode != "off":
            _require_user(name, pricer.sandbox_user, settings.grid_dir.parent.parent)
    home = Path(os.path.expanduser("~"))  # / for a user without one
    hidden = hidden_paths(settings, os.environ, home, uid=os.getuid())
    if found := conflicts(settings, os.environ, home, hidden):
        raise SettingsError("\n  - ".join(("pricers cannot run in their sandboxes:", *map(str, found))))


def _require_user(pricer: str, user: str, around_state: Path) -> None:
    """Refuse a user that pricers cannot be on this machine, or who cannot reach the directory around the state's."""
    if os.geteuid() != 0:
        raise SettingsError(
            f"pricer {pricer!r} is to run as user {user!r} (sandbox_user), which only root can arrange; run the grid "
            "as root, or remove sandbox_user"
        )
    try:
        found = account(user)
    except LookupError as error:
        raise SettingsError(f"sandbox_user of pricer {pricer!r}: {error.args[0]}") from None
    if (closed := closed_to(found, around_state)) is not None:
        raise SettingsError(f"sandbox_user of pricer {pricer!r}: {may_not_enter(user, closed)}")


def _why_not(pricer: Pricer) -> str | None:
    program = pricer.command[0]
    if "{" in program:
        return None  # known only with the job
    why = why_not(program, pricer.env.get("PATH") or os.environ.get("PATH") or os.defpath)
    if why is None or not program.startswith("/"):
        return why
    # A container may hide the kernel's handlers (binfmt_misc), such as those of wine or an emulator.
    return None if wrong_line_ends(Path(program)) is None and _kernel_runs(program) else why


def _kernel_runs(program: str) -> bool:
    """Whether the kernel can start a program, tested without running it; False if that cannot be tested."""
    try:
        probe = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROBE, program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PROBE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return probe.returncode == 0
