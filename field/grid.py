"""A grid of a case: started and stopped by the command `raygrid`, used over HTTP, by the command, or from Python."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from field import http

UP_S = 100.0
Ran = subprocess.CompletedProcess[bytes]


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path,
    timeout_s: float = 60.0,
    stdin: bytes = b"",
) -> Ran:
    """Run a command to its end; after `timeout_s` everything in its session is killed."""
    process = subprocess.Popen(
        [str(word) for word in command],
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(stdin, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        err += f"\n(killed: it took more than {timeout_s:g} s)".encode()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@dataclass
class Grid:
    """One grid: its name, port and directories, and the environment that its commands run in.

    `before` are words put before the command that starts it, such as `taskset -c 0`; `neighbours` is what lay beside
    its directory when it was made.
    """

    name: str
    port: int
    scratch: Path
    env: dict[str, str]
    settings: dict[str, Any]
    before: tuple[str, ...] = ()
    state_dir: Path = field(init=False)
    neighbours: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.state_dir = self.scratch / "state"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.neighbours = frozenset(entry.name for entry in self.scratch.parent.iterdir()) - {self.scratch.name}

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its commands."""
        return {**self.env, "RAYGRID_STATE_DIR": str(self.state_dir), "RAYGRID_URL": self.url}

    @property
    def config(self) -> Path:
        """Its settings file, as last written."""
        return self.scratch / "grid.yaml"

    def write_settings(self) -> None:
        """Write the settings; JSON is YAML."""
        self.config.write_text(json.dumps({"name": self.name, "http": {"port": self.port}, **self.settings}))

    def up(self, timeout_s: float = UP_S) -> Ran:
        """`raygrid up` with these settings."""
        self.write_settings()
        return self.command("up", "--config", self.config, before=self.before, timeout_s=timeout_s)

    def down(self) -> Ran:
        """`raygrid down`."""
        return self.command("down", "--name", self.name, timeout_s=90)

    def command(
        self,
        *words: str | Path,
        before: Sequence[str] = (),
        timeout_s: float = 60.0,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> Ran:
        """Run the command `raygrid` with these words."""
        raygrid = Path(sys.executable).with_name("raygrid")
        return run(
            [*before, raygrid, *words],
            env={**self.environment, **(env or {})},
            cwd=self.scratch,
            timeout_s=timeout_s,
            stdin=stdin,
        )

    def processes(self) -> dict[int, str]:
        """All descendants of the grid's supervisor, with their titles."""
        try:
            supervisor = int(json.loads((self.state_dir / self.name / "grid.json").read_text())["pid"])
        except (OSError, ValueError, KeyError):
            return {}
        parents, titles = {}, {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                pid = int(entry.name)
                titles[pid] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                parents[pid] = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
        return {pid: title for pid, title in titles.items() if _is_below(pid, supervisor, parents)}

    def python(self, script: str, *arguments: str, timeout_s: float = 60.0) -> Ran:
        """Run a Python script that uses the client; its first argument is the grid's URL."""
        command = [sys.executable, "-c", script, self.url, *arguments]
        return run(command, env=self.environment, cwd=self.scratch, timeout_s=timeout_s)

    def request(self, method: str, path: str, *arguments: Any, **options: Any) -> http.Answer:
        """One HTTP request, as `http.request`."""
        return http.request(self.port, method, path, *arguments, **options)

    def submit(
        self,
        data: bytes | str,
        pricer: str = "shell",
        *,
        name: str = "job.sh",
        job_id: str | None = None,
        prefer: str | None = None,
        **fields: str,
    ) -> http.Answer:
        """Submit one input as a form and wait for the answer."""
        parts = [http.field(key, value) for key, value in {"pricer": pricer, **fields}.items()]
        body, headers = http.form(*parts, http.part(f'name="file"; filename="{name}"', data))
        if prefer is not None:
            headers["Prefer"] = prefer
        return self.request("POST", f"/submit/{job_id or uuid.uuid4()}", body, headers)


def _is_below(pid: int, ancestor: int, parents: Mapping[int, int]) -> bool:
    while pid in parents and pid != ancestor:
        pid = parents[pid]
    return pid == ancestor
