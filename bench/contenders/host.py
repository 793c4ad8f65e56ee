"""The process of a contender: `python -m bench.contenders.host NAME AT_ONCE COMMAND...`.

It prints the version, or why the contender is absent, and then runs as many jobs as each line of its input requests. So
contenders do not share packages or threads, and all processes of one can be ended at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys

from bench.contenders import AbsentError, load

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve one contender until the input ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    name, at_once, *command = sys.argv[1:]
    # What libraries print must not get between the answers.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)

        def answer(**members: object) -> None:
            answers.write(json.dumps(members) + "\n")
            answers.flush()

        try:
            contender = load(name)
            version = contender.version()
            with contender.opened(command, int(at_once)) as run:
                answer(version=version)
                for line in sys.stdin:
                    asked = json.loads(line)
                    answer(seconds=run(asked["jobs"], b"x" * asked["size"]))
        except AbsentError as error:
            with contextlib.suppress(OSError):
                answer(absent=str(error))


if __name__ == "__main__":
    main()
