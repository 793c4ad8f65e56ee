"""Prints what an isolated user sees of the machine, as JSON; `python -m tests.hostile.surroundings`."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.hostile.isolation import HOME, require_isolation


def main() -> None:
    """Look around."""
    require_isolation()
    status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    seen = {
        "user": os.getuid(),
        "processes": sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()),
        "own": [os.getpid()],
        "interfaces": [line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]],
        "shared": [str(path) for place in ("/tmp", "/dev/shm", "/var/tmp", HOME) for path in Path(place).iterdir()],
        "capabilities": status["CapEff"],
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
