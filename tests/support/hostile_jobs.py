"""Programs that try to exceed the limits of their pricer, run by an agent inside a PID namespace of their own.

Run as `python -m tests.support.hostile_jobs DIRECTORY NAME…` it must be the first process of a PID namespace; it runs
these programs one after another beside a harmless job, and prints what became of them, as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from raygrid.system.proc import command_line_of, process_table
from tests.support.agent_process import AgentProcess

MB = 1024**2
LIMITED = {"memory": "200MB", "processes": 60}
# An interpreter that every user may run: in a sandbox, the right to read all files is gone.
PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
TAG = "limited-program"  # in the command lines of what the programs start
DAEMON = """
import ctypes, os, time
def daemon(mark=None):
    if os.fork():
        time.sleep(600)
    os.setsid()
    if os.fork():
        os._exit(0)
    if mark is not None:
        os.execve(sys.executable, [sys.executable, "-S", __file__, "again"], {"RAYGRID_ATTEMPT": mark} if mark else {})
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


def script(directory: Path, name: str) -> str:
    """A shell script that becomes one of the programs."""
    path = directory / f"{TAG}-{name.replace(' ', '-')}.py"
    path.write_text(f"import sys\n{DAEMON}\n{PROGRAMS[name]}\n")
    return f"exec {PYTHON} -S {path}"


def left() -> list[str]:
    """The command lines of what the programs started and still runs."""
    found = (command_line_of(process.pid) for process in process_table() if not process.is_zombie)
    return [each.decode(errors="replace") for each in found if f"{TAG}-".encode() in each]


def run(directory: Path, names: list[str]) -> dict[str, Any]:
    """Run the programs; by name, how each ended, after how many seconds, and what was left 2 seconds later."""
    ended = {}
    pricers: dict[str, dict[str, Any]] = {
        "shell": {"command": ["sh", "{input}"]},
        "limited": {"command": ["sh", "{input}"], **LIMITED},
    }
    with AgentProcess(directory, pricers, slots=2) as agent:
        for number, name in enumerate(names):
            if name not in ALONE:
                agent.run(f"good-{number}", "sleep 1; echo good", "limited")
            began = time.monotonic()
            agent.run(name, script(directory, name), "limited")
            [report] = agent.done(name)
            took_s = time.monotonic() - began
            until = time.monotonic() + 2
            while left() and time.monotonic() < until:
                time.sleep(0.02)
            if name in ALONE:
                agent.run(f"good-{number}", "echo good", "limited")
            [good] = agent.done(f"good-{number}")
            ended[name] = {**report, "took_s": took_s, "left": left(), "good": good["files"].get("stdout.txt")}
        agent.close()
    return ended


def main(directory: Path, names: list[str]) -> None:
    """Run the programs, safely."""
    assert os.getpid() == 1, "only as the first process of a PID namespace"
    assert os.getuid() != 0, "only as an ordinary user"
    print(json.dumps(run(directory, names)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
