"""The environment of a job: its temporary directory, its slot number, its output limit, and cancellation."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from field.account import Account
from field.case import case
from field.desk import SLOTS, Desk
from field.http import Answer
from field.tools import CC

TMPDIR = (
    'f="${TMPDIR:-/tmp}/rg-field-fixed-$1"; echo "$$" > "$f"; sleep 0.6; '
    'read -r seen < "$f"; echo "$TMPDIR"; [ "$seen" = "$$" ]'
)
SLOT = 'date +%s.%N; echo "${RAYGRID_SLOT-none}"; sleep 0.15; date +%s.%N'


def at_once(calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """Make all calls concurrently."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(lambda call: call(), calls))


@case("tmpdir", "a fixed name in the temporary directory")
def tmpdir(desk: Desk, account: Account) -> None:
    """Four concurrent jobs use one name: each reads its own file, and the directory is removed with the job."""
    mark = uuid.uuid4().hex
    script = TMPDIR.replace("$1", mark)
    answers = at_once([lambda: desk.grid.submit(script)] * SLOTS)
    own = [answer.status == 200 for answer in answers]
    account.check("own file under TMPDIR, four jobs", f"{sum(own)} of {len(own)} read their own", all(own))
    directories = {answer.files.get("stdout.txt", b"").decode().strip() for answer in answers}
    directories.discard("")
    left = desk.run("find", *directories, "-name", f"*{mark}*").stdout
    told = left or f"nothing left in {len(directories)} directories"
    account.check("removed with the job", told, bool(directories) and not left)


@case("slot", "RAYGRID_SLOT")
def slot(desk: Desk, account: Account) -> None:
    """A number below the node's slots, which no other job has at the same time."""
    answers = at_once([lambda: desk.grid.submit(SLOT)] * (4 * SLOTS))
    taken: dict[str, list[tuple[float, float]]] = {}
    for answer in answers:
        begin, number, end = answer.files.get("stdout.txt", b"0\nnone\n0").decode().split()
        taken.setdefault(number, []).append((float(begin), float(end)))
    known = set(taken) <= {str(number) for number in range(SLOTS)}
    overlaps = sum(later[0] < earlier[1] for spans in map(sorted, taken.values()) for earlier, later in pairwise(spans))
    seen = ", ".join(f"slot {number}: {len(spans)} jobs" for number, spans in sorted(taken.items()))
    account.check(f"{4 * SLOTS} jobs on {SLOTS} slots", f"{seen}; {overlaps} overlaps", known and not overlaps)


@case("output limit", "what counts as output", CC)
def output_limit(desk: Desk, account: Account) -> None:
    """Blocks on the disk count; holes in files and memory files do not."""
    grid = desk.grid
    program = desk.build("cc", "hole.c", "hole")
    answer = grid.submit(f"exec {program}", "little")
    account.check(
        "limit 2 MB: holes of 4 GB and 1 TB, 7 bytes kept", answer.short, answer.files.get("prices.csv") == b"priced\n"
    )
    for what, script in {
        "one file of 8 MB": "head -c 8000000 /dev/zero > big; sleep 3",
        "800 files of 10 kB": "i=0; while [ $i -lt 800 ]; do head -c 10000 /dev/zero > f$i; i=$((i+1)); done; sleep 3",
        "8 MB on stdout": "head -c 8000000 /dev/zero; sleep 3",
    }.items():
        job = f"limit-{uuid.uuid4()}"
        answer = grid.submit(script, "little", job_id=job)
        reason = grid.request("GET", f"/status/{job}").json.get("reason")
        account.check(f"limit 2 MB: {what}", f"{answer.status} {reason}", reason == "output_limit")


@case("ending", "cancelling a running job")
def ending(desk: Desk, account: Account) -> None:
    """A running job is cancelled, its process is gone, and its state is `cancelled`."""
    job = f"cancel-{uuid.uuid4()}"
    begun = threading.Thread(target=lambda: desk.grid.submit("sleep 60", job_id=job))
    begun.start()
    while desk.grid.request("GET", f"/status/{job}").json.get("state") != "running":
        begun.join(0.05)
    desk.grid.command("cancel", job)
    begun.join(20)
    status = desk.grid.request("GET", f"/status/{job}").json
    account.check("raygrid cancel of a running job", json.dumps(status)[:100], status.get("state") == "cancelled")
