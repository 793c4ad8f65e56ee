"""A pricer that looks for secrets: `python -m tests.hostile.look INPUT`, secrets by name as JSON in its input.

It reads every file that it may read in the places of its user, and what /proc shows of other processes. It prints as
JSON where it found which secret.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.isolation import require_isolation

PLACES = (os.path.expanduser("~"), "/tmp", "/var/tmp", "/dev/shm", "/run")
MOST_BYTES = 4_000_000


def files() -> Iterator[str]:
    """All regular files in the user's places, and two of each other process."""
    for top in PLACES:
        for directory, _, names in os.walk(top):
            for path in (os.path.join(directory, name) for name in names):
                if os.path.isfile(path) and not os.path.islink(path):
                    yield path
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) != os.getpid():
            yield from (f"/proc/{pid}/environ", f"/proc/{pid}/cmdline")


def main(given: str) -> None:
    """Look, and print."""
    require_isolation()
    secrets = json.loads(Path(given).read_text())
    found = []
    for path in files():
        try:
            with open(path, "rb") as file:
                data = file.read(MOST_BYTES)
                own = os.path.samestat(os.fstat(file.fileno()), os.stat(given))
        except OSError:
            continue
        if not own:
            found += [(name, path) for name, secret in secrets.items() if secret.encode() in data]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
