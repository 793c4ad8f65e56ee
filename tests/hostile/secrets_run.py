"""Looks for the secrets of a grid wherever a process of its user can read, outside of sandboxes and in one.

`python -m tests.hostile.secrets_run` starts a grid with Ray, and prints as JSON where which secret was found.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from raygrid.system.proc import command_line_of
from tests.hostile.inside import KEY, SANDBOXES, IsolatedGrid, pricer, titles
from tests.hostile.isolation import require_isolation

VARIABLE_KEY = "key-of-a-variable-0123456789"
CREDENTIAL = "credential-of-the-object-store"
TIERS = {"NodeAgentActor": "agent", "LeaderActor": "leader", "ServeReplica": "parent", "local.supervisor": "supervisor"}


def main() -> None:
    """Start the grid, look, and print."""
    require_isolation()
    os.environ |= {
        "AWS_SECRET_ACCESS_KEY": CREDENTIAL,
        "RAYGRID_API_KEY": VARIABLE_KEY,
    }
    python = [sys.executable, "-m", "tests.hostile.look", "{input}"]
    with IsolatedGrid({name: pricer(python, name) for name in SANDBOXES}, slots=2) as grid:
        token = grid.file.ray_token
        assert token is not None
        secrets = {"token": token, "key": KEY, "variable": VARIABLE_KEY, "credential": CREDENTIAL}
        found: dict[str, object] = {"outside": _of_processes(secrets), "tiers": _readable_tiers()}
        for name in SANDBOXES:
            job = grid.client.submit(json.dumps(secrets).encode(), pricer=name, job_id=f"look-{name}")
            found[name] = json.loads(job.result(timeout=120).stdout)
    print(json.dumps(found))


def _of_processes(secrets: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Which secret is in the environment or the command line of which process, as its user reads it."""
    found = []
    for pid, title in titles().items():
        if pid == os.getpid():
            continue
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            environment = b""
        for name, secret in secrets.items():
            for place, data in (("environment", environment), ("command line", command_line_of(pid))):
                if secret.encode() in data:
                    found.append((name, place, title[:60]))
    return found


def _readable_tiers() -> dict[str, bool]:
    """Whether the memory or the environment of each tier can be opened by a process of its user."""
    found = {}
    for pid, title in titles().items():
        for word, tier in TIERS.items():
            if word in title:
                found[tier] = any(_opens(f"/proc/{pid}/{name}") for name in ("environ", "mem", "fd/0"))
    return found


def _opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
