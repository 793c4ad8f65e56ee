"""A small process beside each agent that cleans up when the agent dies, even by `kill -9`, and kills a frozen one.

It waits for the end of its standard input, which the agent holds open and beats into (`guard.py`), then kills every
process that carries the agent's mark and removes the job directories. Run as a script:
`python reaper.py <mark prefix> <pid of the agent> <silence of the agent that is a freeze> <directories to remove>`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from raygrid.guard import watch
from raygrid.node.beneath import remove_tree
from raygrid.node.processes import kill_marked
from raygrid.pulse import Pulse, start_guard

# A pricer that was being spawned when the agent died carries its mark a moment later.
AGAIN_S = 0.2


def start(mark_prefix: str, directories: Sequence[Path], frozen_s: float) -> Pulse:
    """Start the reaper of the agent in this process; closing what is returned lets it do its work and end.

    Args:
        mark_prefix: what the marks of the agent's pricers begin with.
        directories: what to remove: where the agent's job directories are.
        frozen_s: a freeze of this process for so long ends it.
    """
    words = [mark_prefix, str(os.getpid()), str(frozen_s), *map(str, directories)]
    return Pulse(start_guard([sys.executable, "-m", "raygrid.node.reaper", *words]))


def main(mark_prefix: str, agent: str, frozen_s: str, *directories: str) -> None:
    """Wait for the agent's end, then clean up after it."""
    with contextlib.suppress(KeyboardInterrupt):
        watch(int(agent), float(frozen_s))
    kill_marked(lambda mark: mark.startswith(mark_prefix))
    time.sleep(AGAIN_S)
    kill_marked(lambda mark: mark.startswith(mark_prefix))
    for directory in directories:
        with contextlib.suppress(OSError):
            remove_tree(Path(directory))


if __name__ == "__main__":
    main(*sys.argv[1:])
