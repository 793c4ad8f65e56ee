"""Programs that try to exceed the limits of their pricer, run by an agent one after another beside a harmless job.

`python -m tests.hostile.limits_run SANDBOX` runs them as the isolated user, and prints as JSON what became of each.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from raygrid.system.proc import command_line_of, process_table
from raygrid.system.shared_segments import SegmentTable
from tests.hostile.inside import pricer
from tests.hostile.isolation import HOME, require_isolation
from tests.support.agent_process import AgentProcess

LIMITS = {"memory": "200MB", "processes": 60}
TAG = "limited-program"  # in the command lines of what the programs start
DAEMON = """
import os, sys, time
def daemon(mark=None):
    if os.fork():
        time.sleep(600)
    os.setsid()
    if os.fork():
        os._exit(0)
    if mark is not None:
        os.execve(sys.executable, [sys.executable, "-S", __file__, "again"], {"RAYGRID_ATTEMPT": mark} if mark else {})
"""
SEGMENTS = """
import ctypes
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
def segments(number):
    for _ in range(number):
        place = libc.shmat(libc.shmget(0, 10 << 20, 0o1600), None, 0)
        ctypes.memset(place, 1, 10 << 20)
        libc.shmdt(ctypes.c_void_p(place))
"""
PROGRAMS = {
    "memory of a daemon without its mark": (
        "if len(sys.argv) < 2: daemon('')\ntime.sleep(0.3)\nkept = b'x' * (400 << 20)\ntime.sleep(600)"
    ),
    "memory of a daemon": "daemon()\nkept = b'x' * (400 << 20)\ntime.sleep(600)",
    "many processes": "for _ in range(400):\n    if not os.fork(): time.sleep(600)\ntime.sleep(600)",
    "many sessions": (
        "for _ in range(400):\n    if not os.fork():\n        os.setsid()\n        time.sleep(600)\ntime.sleep(600)"
    ),
    "many threads": (
        "import threading\nfor _ in range(400):\n    threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "time.sleep(600)"
    ),
    "memory file": (
        "import os, time\nfile = os.memfd_create('kept')\nfor _ in range(300): os.write(file, bytes(1 << 20))\n"
        "time.sleep(600)"
    ),
    "deleted memory": (
        "import os, tempfile, time\nfile = tempfile.TemporaryFile(dir='/dev/shm')\n"
        "for _ in range(300): os.write(file.fileno(), bytes(1 << 20))\ntime.sleep(600)"
    ),
    "memory in System V segments": f"{SEGMENTS}\nsegments(30)\ntime.sleep(6)",
    "memory in segments of a process that has ended": (
        f"{SEGMENTS}\nif not os.fork():\n    segments(30)\n    time.sleep(1.5)\n    os._exit(0)\n"
        "os.wait()\ntime.sleep(6)"
    ),
    "memory in semaphores": (
        "import ctypes\nfor _ in range(150): ctypes.CDLL(None).semget(0, 32000, 0o1600)\ntime.sleep(3)\nos._exit(7)"
    ),
    "segments that it leaves": f"{SEGMENTS}\nsegments(3)\nos._exit(7)",
    "shared pages": (
        "kept = b'x' * (100 << 20)\nfor _ in range(5):\n    if not os.fork(): break\ntime.sleep(2)\nos._exit(7)"
    ),
    "uncertain origin": (
        "if len(sys.argv) < 2:\n"
        "    if os.fork():\n        time.sleep(5)\n        os._exit(7)\n"
        "    os.setsid()\n"
        "    if os.fork():\n        os._exit(0)\n"
        "    os.execve(sys.executable, [sys.executable, '-S', __file__, 'again'], {})\n"
        "time.sleep(0.3)\nkept = b'x' * (400 << 20)\ntime.sleep(600)"
    ),
    "unreadable origin": (
        "import ctypes\n"
        "if os.fork():\n    time.sleep(5)\n    os._exit(7)\n"
        "os.setsid()\n"
        "if os.fork():\n    os._exit(0)\n"
        "ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\n"
        "time.sleep(0.3)\nkept = b'x' * (400 << 20)\ntime.sleep(600)"
    ),
    "a bomb": "for _ in range(9):\n    os.fork()\ntime.sleep(600)",
    "a daemon that forks for ever": (
        "daemon()\nuntil = time.monotonic() + 20\nchildren = 0\n"
        "while time.monotonic() < until:\n"
        "    if os.fork():\n        os._exit(0)\n"
        "    children += 1\n"
        "    if children % 4 == 0: os.setsid()\n"
        "    if children == 200: kept = b'x' * (400 << 20)\n"
        "    time.sleep(0.0005)"
    ),
}

ALONE = {"memory of a daemon without its mark"}  # without a sandbox, it might be of any attempt that ran just now


def left() -> list[str]:
    """The command lines of what the programs started and still runs."""
    found = (command_line_of(process.pid) for process in process_table() if not process.is_zombie)
    return [each.decode(errors="replace") for each in found if TAG.encode() in each]


def run(agent: AgentProcess, directory: Path, number: int, name: str, segments: SegmentTable) -> dict[str, Any]:
    """Run a program beside a harmless job: how both ended, and what was left 2 seconds later."""
    path = directory / f"{TAG}-{number}.py"
    path.write_text(f"{DAEMON}\n{PROGRAMS[name]}\n")
    if name not in ALONE:
        agent.run(f"good-{number}", "sleep 1; echo good")
    [report] = agent.done(agent.run(name, f"exec {sys.executable} -S {path}"))
    until = time.monotonic() + 2
    while (left() or segments.now()) and time.monotonic() < until:
        time.sleep(0.02)
    remaining, remaining_segments = left(), len(segments.now())
    if name in ALONE:
        agent.run(f"good-{number}", "echo good")
    [good] = agent.done(f"good-{number}")
    return {**report, "left": remaining, "segments": remaining_segments, "good": good["files"].get("stdout.txt")}


def main(sandbox: str) -> None:
    """Run all of them."""
    require_isolation()
    directory = HOME / "programs"
    directory.mkdir()
    pricers = {"shell": pricer(["sh", "{input}"], sandbox, **LIMITS)}
    with AgentProcess(HOME / "agent", pricers, slots=2) as agent:
        segments = SegmentTable()
        ended = {name: run(agent, directory, number, name, segments) for number, name in enumerate(PROGRAMS)}
        segments.close()
        agent.close()
    print(json.dumps(ended))


if __name__ == "__main__":
    main(sys.argv[1])
