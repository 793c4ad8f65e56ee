"""A grid of the isolated user: its commands, its processes and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from raygrid.client import Client
from raygrid.settings.pricer import Pricer
from raygrid.system.grid_file import GridFile, running_grid
from tests.hostile.isolation import HOME, REPOSITORY
from tests.support.waiting import pauses

PORT = 8123  # the network is the namespace's own
KEY = "hostile-tests-key-0123456789"
NAME = "hostile"
STATE = HOME / ".raygrid"
SANDBOXES = ("off", "protect", "strict")
# What an interpreter outside of the system's directories needs to be read under `strict`.
READ = sorted({sys.base_prefix, sys.prefix, str(REPOSITORY)})


def known_sandboxes() -> tuple[str, ...]:
    """The sandboxes that this release knows."""
    return SANDBOXES if "sandbox" in Pricer.model_fields else ("off",)


def pricer(command: list[str], sandbox: str, **more: Any) -> dict[str, Any]:
    """Settings of a pricer in a sandbox; programs of these tests can be imported."""
    settings: dict[str, Any] = {"command": command, "env": {"PYTHONPATH": str(REPOSITORY), "HOME": str(HOME)}, **more}
    if known_sandboxes() != ("off",):
        settings["sandbox"] = sandbox
        if sandbox == "strict":
            settings["read"] = READ
    return settings


def make_startup_files() -> None:
    """Make what pricers must not change, where it is missing."""
    (HOME / ".bashrc").touch()
    (HOME / ".config" / "systemd" / "user").mkdir(parents=True, exist_ok=True)


class IsolatedGrid:
    """A grid with these pricers, one node, and a key; use as a context manager."""

    def __init__(self, pricers: Mapping[str, Mapping[str, Any]], *, slots: int, **settings: Any) -> None:
        make_startup_files()
        self.config = HOME / "grid.yaml"
        http = {"port": PORT, "api_keys": [{"name": "desk", "key": KEY}]}
        given = {"name": NAME, "http": http, "pricers": pricers, "node": {"slots": slots}, **settings}
        self.config.write_text(json.dumps(given))  # JSON is YAML
        self.config.chmod(0o600)
        self.client = Client(f"http://127.0.0.1:{PORT}", api_key=KEY, timeout=60)

    def __enter__(self) -> Self:
        self.command("up", "--config", str(self.config))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for log in sorted((STATE / NAME / "logs").glob("*.log")):
                print(f"--- {log.name}", log.read_text()[-2500:], sep="\n", file=sys.stderr)
        self.command("down", "--config", str(self.config))

    @property
    def file(self) -> GridFile:
        """Its file."""
        found = running_grid(NAME, STATE)
        assert found is not None, "the grid does not run any more"
        return found

    def command(self, *words: str) -> str:
        """Run a command of raygrid; gives what it printed."""
        done = subprocess.run(
            [sys.executable, "-c", "from raygrid.cli import app; app()", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
            env={**os.environ, "RAYGRID_STATE_DIR": str(STATE)},
        )
        assert done.returncode == 0, f"raygrid {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout


def until(condition: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
    """Wait for a condition; fail if it does not come."""
    deadline = time.monotonic() + within_s
    for pause_s in pauses():
        if condition():
            return
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(pause_s)


def titles() -> dict[int, str]:
    """All living processes of the namespace with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if words:  # a zombie has none
                    found[int(entry.name)] = words
    return found
