"""Runs all attacks in a job of each sandbox, beside a job that is their victim; `python -m tests.hostile.attack_run`.

It runs as the isolated user and prints JSON: for each sandbox the lines of the attacks, and whether the victim was well
to its end.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from raygrid.node.sandbox.sandboxes import LOOK_S
from tests.hostile import discovery, victim
from tests.hostile.inside import NAME, STATE, IsolatedGrid, known_sandboxes, make_startup_files, pricer, until
from tests.hostile.isolation import require_isolation

MINUTE_S = 60.0


def main() -> None:
    """Run them all."""
    require_isolation()
    pricers = {"shell": pricer(["sh", "{input}"], "protect")}
    for sandbox in known_sandboxes():
        for name in ("attacks", "victim"):
            command = [sys.executable, "-m", f"tests.hostile.{name}", "{input}"]
            pricers[f"{name}-{sandbox}"] = pricer(command, sandbox, timeout_s=300)
    with IsolatedGrid(pricers, slots=4) as grid:
        report = {sandbox: _attacked(grid, sandbox) for sandbox in known_sandboxes()}
    print(json.dumps(report))


def _attacked(grid: IsolatedGrid, sandbox: str) -> dict[str, Any]:
    make_startup_files()  # attacks under another sandbox may have removed them
    time.sleep(2 * LOOK_S)  # the agent looks for replaced files once in this time
    finished = f"finished {secrets.token_hex(8)}"
    grid.client.submit(f"echo {finished}".encode(), pricer="shell").result(MINUTE_S)
    given: dict[str, str | int] = {
        "text": f"text of the victim {secrets.token_hex(8)}",
        "abstract": f"victim-{secrets.token_hex(4)}",
        "segment": secrets.randbelow(2**31),
    }
    attacked = grid.client.submit(json.dumps(given).encode(), filename="victim.json.in", pricer=f"victim-{sandbox}")
    nodes = STATE / NAME / "nodes"
    until(lambda: any(nodes.rglob(victim.KNOWN)), f"the victim writes {victim.KNOWN}")
    targets = discovery.targets_of(grid, given, finished)
    attacker = grid.client.submit(targets.to_json().encode(), pricer=f"attacks-{sandbox}")
    lines = [json.loads(line) for line in attacker.result(300).stdout.splitlines()]
    for line in lines:
        if line["wrote"]:
            path, text = line["wrote"]
            _confirm(line, Path(path), text)
    # The directory of the victim, not its process: its end must be its own.
    next(nodes.rglob(victim.KNOWN)).with_name("stop").touch()
    ended = attacked.result(MINUTE_S)
    well = ended.text(victim.IN_JOB) == given["text"]
    return {"attacks": lines, "victim": well}


def _confirm(line: dict[str, Any], path: Path, text: str) -> None:
    """A file counts only if it is there outside of the sandbox, too."""
    if path.is_file() and path.read_text(errors="replace") == text:
        path.unlink()
    else:
        line.update(succeeded=False, detail=f"{path} is in a directory of the sandbox only")


if __name__ == "__main__":
    main()
