"""Jobs that try to harm the job after them in the same sandbox, and jobs that claim to be another.

`python -m tests.hostile.later_run` runs an agent as in a grid as the isolated user, and prints as JSON what became of
each innocent job: its outcome, what it printed, and the files of its result.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.hostile.inside import pricer
from tests.hostile.isolation import HOME, require_isolation
from tests.support.agent_process import AgentProcess

LOOK = 'ls .. "$TMPDIR" "$TMPDIR/.." | grep planted; touch "$TMPDIR/own" own && echo well'
# What the first of two jobs does; both have a slot and a sandbox to themselves.
BEFORE = {
    "files-beside": 'echo x > ../planted; echo x > "$TMPDIR/../planted"; mkdir -p "$TMPDIR/planted"',
    "later-directory": "mkdir ../after-later-directory.1 && echo x > ../after-later-directory.1/planted",
    "later-link": "ln -s /etc ../after-later-link.1",
    "later-file": "echo planted > ../after-later-file.1",
    "no-permissions": 'chmod 000 "$TMPDIR" "$TMPDIR/.." ..',
    "all-removed": "rm -rf ../* ../.[!.]*",
    "moved": 'cd ..; mv "$PWD" "$PWD.planted" 2> /dev/null; mv tmp planted 2> /dev/null',
    "shared-memory": "head -c 1000000 /dev/zero > /dev/shm/planted; chmod 000 /dev/shm",
}
# Takes 300 MB in a daemon with the mark of another job, whose limit is 100 MB.
FRAME = """
import os, sys, time
mark = os.environ["RAYGRID_ATTEMPT"].split("|")
mark[-2:] = ["framed", "framed.1"]
take = "kept = bytearray(300 << 20)\\nfor at in range(0, len(kept), 4096): kept[at] = 1\\nimport time; time.sleep(20)"
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-c", take], {"RAYGRID_ATTEMPT": "|".join(mark)})
    os._exit(0)
time.sleep(3)
"""


def main() -> None:
    """Run them."""
    require_isolation()
    directory = HOME / ".raygrid" / "nodes"
    directory.mkdir(parents=True)
    pricers = {
        "shell": pricer(["sh", "{input}"], "protect"),
        "framed": pricer(["sh", "{input}"], "protect", memory="100MB"),
        "python": pricer([sys.executable, "{input}"], "protect"),
    }
    found = {}
    with AgentProcess(directory, pricers, slots=1) as agent:
        for name, script in BEFORE.items():
            agent.done(agent.run(f"before-{name}", script, "shell"))
            found[name] = _end(agent, agent.run(f"after-{name}", LOOK, "shell"))
        agent.close()
    with AgentProcess(directory, pricers, slots=2) as agent:
        framed = agent.run("framed", "sleep 5; echo well", "framed")
        agent.run("framer", FRAME, "python")
        found["forged-mark"] = _end(agent, framed)
        agent.close()
    print(json.dumps(found))


def _end(agent: AgentProcess, job: str) -> list[Any]:
    [ended] = agent.done(job)
    files = set(ended["files"]) - {"stdout.txt", "stderr.txt", "manifest.json"}
    return [ended["outcome"], ended["files"].get("stdout.txt"), sorted(files)]


if __name__ == "__main__":
    main()
