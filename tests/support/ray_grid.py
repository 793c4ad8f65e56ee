"""A grid on real Ray for tests, and ways to look at and hurt its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from raygrid.local import free_port
from raygrid.settings.model import GridSettings, load_settings
from raygrid.system.proc import start_time
from tests.support.waiting import pauses

RAYS_OWN = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
EXAMPLES = Path(__file__).parents[2] / "examples"


def settings_for(directory: Path) -> GridSettings:
    """Settings of a test grid: the example pricers, and a shell."""
    return load_settings(
        name="test",
        pricers={
            "shell": {"command": ["sh", "{input}"]},
            "true": {"command": "true"},
            "drill": {"command": ["sh", "-c", 'sleep 0.2; cat "$0"', "{input}"], "result": "stdout"},
            "quantlib": {"command": [sys.executable, str(EXAMPLES / "quantlib" / "price.py"), "{input}"]},
            "ore": {"command": [sys.executable, str(EXAMPLES / "ore" / "run_ore.py"), "{input}"]},
        },
        http={"port": free_port()},
        storage={"state_dir": directory},
        node={"slots": 2},
    )


def _parent(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return int(fields[1])


def descendants(ancestor: int) -> dict[int, str]:
    """All processes below one, with their titles."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        pid: int | None = int(entry.name)
        while pid and pid != ancestor:
            pid = _parent(pid)
        if pid == ancestor and int(entry.name) != ancestor:
            try:
                title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            found[int(entry.name)] = title
    return found


def pids_of(supervisor: int, title: str) -> list[int]:
    """The grid's processes whose title begins so, such as `ray::NodeAgentActor`."""
    return sorted(pid for pid, name in descendants(supervisor).items() if name.startswith(title))


def alive(pids: Iterable[int]) -> dict[int, str]:
    """Those of these processes that still live (a zombie does not), with what they are."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):  # gone between two looks
            if start_time(pid) is not None:
                found[pid] = Path(f"/proc/{pid}/cmdline").read_text()
    # Two of Ray's own helpers notice the death of their raylet only after most of a minute.
    return {pid: title for pid, title in found.items() if not title.startswith(RAYS_OWN)}


def kill_hard(pid: int) -> None:
    """`kill -9`."""
    os.kill(pid, signal.SIGKILL)


def marked(text: str) -> list[int]:
    """Processes whose environment carries a text, such as a workspace's path in a pricer's mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if any(part.startswith(b"RAYGRID_ATTEMPT=") and text.encode() in part for part in environment.split(b"\0")):
                found.append(int(entry.name))
    return found


def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Wait for a condition; fail if it does not come."""
    deadline = time.monotonic() + within_s
    for pause_s in pauses():
        if condition():
            return
        assert time.monotonic() < deadline, f"the condition did not come within {within_s} s"
        time.sleep(pause_s)
