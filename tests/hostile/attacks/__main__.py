"""Tries all attacks on what a file describes, each in a process of its own, and prints a line of JSON for each.

A line has `attack`, `succeeded` (true, false, or null if it was not tried), `detail`, and `wrote`: the path and text
of a file that was written, for the reader to see whether it is there outside of the sandbox.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.hostile.attacks import files, kernel, processes, sockets
from tests.hostile.attacks.attack import ATTACKS, Attack, NotTriedError, RefusedError, Wrote
from tests.hostile.isolation import require_isolation
from tests.hostile.targets import Targets

MODULES = (files, processes, sockets, kernel)
LONGEST_S = 40.0


def tried(attack: Attack, targets: Targets) -> dict[str, object]:
    """Try an attack in this process."""
    result: dict[str, object] = {"attack": attack.name, "succeeded": False, "wrote": None}
    try:
        reached = attack.run(targets)
    except NotTriedError as error:
        return {**result, "succeeded": None, "detail": str(error)}
    except RefusedError as error:
        return {**result, "detail": str(error)}
    except OSError as error:
        return {**result, "detail": f"{type(error).__name__}: {error.strerror or error}"}
    if isinstance(reached, Wrote):
        return {**result, "succeeded": True, "detail": f"wrote {reached.path}", "wrote": [reached.path, reached.text]}
    return {**result, "succeeded": True, "detail": reached}


def apart(attack: Attack, targets: Targets) -> dict[str, object]:
    """Try an attack in a child process: what it changes ends with it, and its death is a refusal."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            files.set_own_pipe(writing)
            os.write(writing, json.dumps(tried(attack, targets)).encode())
        except BaseException as error:
            os.write(writing, json.dumps(_line(attack, None, f"{type(error).__name__}: {error}")).encode())
        finally:
            os._exit(0)
    os.close(writing)
    content = b""
    while select.select([reading], [], [], LONGEST_S)[0] and (part := os.read(reading, 65536)):
        content += part
    os.close(reading)
    if not content:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if content:
        return dict(json.loads(content))
    died = f"killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"ended with {status}"
    return _line(attack, False, f"its process was {died}")


def _line(attack: Attack, succeeded: bool | None, detail: str) -> dict[str, object]:
    return {"attack": attack.name, "succeeded": succeeded, "detail": detail, "wrote": None}


def main(words: Sequence[str]) -> None:
    """Try all attacks, or those named after the file."""
    require_isolation()
    targets = Targets.from_json(Path(words[0]).read_text(encoding="utf-8"))
    for attack in [ATTACKS[name] for name in words[1:]] or list(ATTACKS.values()):
        print(json.dumps(apart(attack, targets)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
