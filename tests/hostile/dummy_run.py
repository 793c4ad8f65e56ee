"""Runs all attacks without any sandbox on dummies: a victim that stands for all processes, and a few files.

`python -m tests.hostile.dummy_run` runs as the isolated user and prints the lines of the attacks as JSON. What fails
here is refused to every user by the kernel, and shows nothing of a sandbox.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.hostile import victim
from tests.hostile.attacks.attack import ROLES
from tests.hostile.attacks.files import SECRETS
from tests.hostile.inside import until
from tests.hostile.isolation import HOME, require_isolation
from tests.hostile.targets import Targets

TEXT = "text of a dummy"


class _Page(BaseHTTPRequestHandler):
    """Answers everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"here")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not printed."""


def main() -> None:
    """Start the dummies and attack them."""
    require_isolation()
    jobs = HOME / "state" / "jobs"
    own, other = jobs / "own", jobs / "other"
    for directory in (own, other):
        directory.mkdir(parents=True)
    (HOME / ".bashrc").touch()
    (HOME / ".config" / "systemd" / "user").mkdir(parents=True, exist_ok=True)
    for name in SECRETS:
        (HOME / "state" / name).write_text(TEXT)
    given = {"text": TEXT, "abstract": "dummy-victim", "segment": 1234}
    (other / "input").write_text(json.dumps(given))
    pages = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(HOME / "state" / "socket"))
        listener.listen()
        with subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.victim", "input"],
            cwd=other,
            env={**os.environ, "TMPDIR": str(other)},
            start_new_session=True,
        ) as process:
            until((other / victim.KNOWN).exists, "the victim runs")
            targets = _targets(process.pid, other, json.loads((other / victim.KNOWN).read_text()), pages.server_port)
            (own / "input").write_text(targets.to_json())
            command = [sys.executable, "-m", "tests.hostile.attacks", "input"]
            done = subprocess.run(
                command, cwd=own, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
            )
            (other / "stop").touch()
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    print(json.dumps(lines))


def _targets(pid: int, other: Path, known: dict[str, int], http_port: int) -> Targets:
    state = HOME / "state"
    return Targets(
        processes=dict.fromkeys(ROLES, pid),
        secrets={name: (str(state / name), TEXT) for name in SECRETS},
        state_dir=str(state),
        session_dir=str(state),
        sockets=(str(state / "socket"),),
        abstract=("dummy-victim",),
        ports=(("127.0.0.1", http_port), ("127.0.0.1", known["port"])),
        gcs_port=http_port,
        http_port=http_port,
        victim_files={
            "job-directory": str(other / victim.IN_JOB),
            "tmp": str(other / victim.IN_TMP),
            "shm": "/dev/shm/dummy-victim",
        },
        victim_socket=str(other / victim.SOCKET),
        victim_abstract="dummy-victim",
        victim_port=known["port"],
        victim_udp_port=known["udp_port"],
        victim_segment=1234,
        victim_text=TEXT,
    )


if __name__ == "__main__":
    main()
