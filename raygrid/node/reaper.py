"""A small process beside each agent that cleans up when the agent dies, even by `kill -9`.

It waits for the end of its standard input, which the agent holds open, then kills every process that carries the
agent's mark and removes the job directories. Run as a script: `python reaper.py <mark prefix> <jobs directory>`.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

from raygrid.node.processes import kill_marked
from raygrid.node.workspace import remove_tree

# A pricer that was being spawned when the agent died carries its mark a moment later.
AGAIN_S = 0.2


def start(mark_prefix: str, jobs: Path) -> subprocess.Popen[bytes]:
    """Start the reaper of an agent; closing the returned process's `stdin` lets it do its work and end."""
    return subprocess.Popen(
        [sys.executable, "-m", "raygrid.node.reaper", mark_prefix, str(jobs)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # whoever kills the agent's process group does not hit its reaper
        cwd="/",
    )


def main(mark_prefix: str, jobs: str) -> None:
    """Wait for the agent's end, then clean up after it."""
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.buffer.read()
    kill_marked(lambda mark: mark.startswith(mark_prefix))
    time.sleep(AGAIN_S)
    kill_marked(lambda mark: mark.startswith(mark_prefix))
    with contextlib.suppress(OSError):
        remove_tree(Path(jobs))


if __name__ == "__main__":
    main(*sys.argv[1:3])
