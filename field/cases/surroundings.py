"""Unusual environments in which a grid is started: proxies, odd names, few processors, `uv run`, an ASCII locale.

One grid is started in all of them at once. Only if that fails, each is tried separately.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from field.account import Account
from field.case import Lane, case
from field.desk import Desk
from field.grid import Grid
from field.tools import TASKSET, TWO_CPUS, UV

UP_S = 180.0
STATE = 620_000_000
NARROW = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
DEAD_END = "http://127.0.0.1:9"
PROXIES = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), DEAD_END)

Check = Callable[[Grid], tuple[object, bool]]


def _comes_up(grid: Grid) -> tuple[object, bool]:
    answer = grid.submit("printf up")
    return answer.short, answer.files.get("stdout.txt") == b"up"


@dataclass(frozen=True, slots=True)
class Surrounding:
    """One environment: what differs from an ordinary start, and the check that the grid works."""

    what: str
    env: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    folder: str = ""
    prepare: Callable[[Grid], None] = lambda grid: None
    check: Check = _comes_up


def _named_env(grid: Grid) -> tuple[object, bool]:
    answer = grid.submit("x", "env")
    return answer.short, answer.status == 200


def _one_slot(grid: Grid) -> tuple[object, bool]:
    slots = grid.request("GET", "/capacity").json.get("slots")
    return f"{slots} slots", slots == 1


def _kanji(grid: Grid) -> tuple[object, bool]:
    answer = grid.submit("printf x > 価格.csv", name="取引.sh")
    return answer.short, answer.files.get("価格.csv") == b"x"


def _all_inside(grid: Grid) -> tuple[object, bool]:
    """All files of the grid are in its state directory, which only the user can read."""
    beside = sorted(entry.name for entry in grid.scratch.parent.iterdir() if entry.name not in grid.neighbours)
    mode = stat.S_IMODE((grid.state_dir / grid.name).stat().st_mode)
    store = (grid.state_dir / grid.name / "jobs.db").is_file()
    right = store and mode == 0o700 and beside == [grid.scratch.name]
    return f"job store inside: {store}, mode {mode:o}, beside it {beside}", right


def _large_state(grid: Grid) -> None:
    """A state directory with many random bytes, as from results of many jobs."""
    place = grid.state_dir / grid.name / "old"
    place.mkdir(parents=True)
    with (place / "results").open("wb") as file:
        for _ in range(STATE // 10_000_000):
            file.write(os.urandom(10_000_000))


def _all(desk: Desk) -> list[Surrounding]:
    found = [
        Surrounding("http_proxy and ALL_PROXY are set", env=PROXIES),
        Surrounding("a pricer is named env", settings={"env": {"command": ["env"]}}, check=_named_env),
        Surrounding("the state directory has % and ? in its name", folder="50% of #1?a=b", check=_all_inside),
        Surrounding("LC_ALL=C, and names in kanji", env=NARROW, check=_kanji),
    ]
    if TASKSET.found() and TWO_CPUS.found():
        found.append(Surrounding("taskset -c 0: slots", before=("taskset", "-c", _first_cpu()), check=_one_slot))
    if UV.found():
        uv = (str(desk.uv), "run", "--no-project", "--python", desk.python, "--")
        found.insert(0, Surrounding("uv run raygrid up, 620 MB of state", before=uv, prepare=_large_state))
    return found


def _first_cpu() -> str:
    return str(min(os.sched_getaffinity(0)))


@case("surroundings", "proxies, names of directories and pricers, taskset, uv run, a narrow locale", lane=Lane.OWN)
def surroundings(desk: Desk, account: Account) -> None:
    """The grid starts and works in each of them."""
    chosen = _all(desk)
    rows = _try(desk, chosen)
    if not all(right for _, _, right in rows):
        rows = [row for each in chosen for row in _try(desk, [each])]
    for row in rows:
        account.check(*row)
    for tool in (TASKSET, TWO_CPUS, UV):
        if not tool.found():
            account.skip(tool.name, tool.missing)


def _try(desk: Desk, chosen: list[Surrounding]) -> list[tuple[str, object, bool]]:
    """Start one grid in all chosen environments; returns what was tried, the outcome, and whether it was right."""
    pricers = {"shell": {"command": ["sh", "{input}"]}}
    for each in chosen:
        pricers |= each.settings
    folder = next((each.folder for each in chosen if each.folder), "")
    grid = desk.new_grid(
        {"pricers": pricers, "default_pricer": "shell"},
        folder=f"around{desk.count}/{folder or 'plain'}",
        before=tuple(word for each in chosen for word in each.before),
    )
    for each in chosen:
        grid.env |= each.env
        each.prepare(grid)
    try:
        up = grid.up(timeout_s=UP_S)
        if up.returncode != 0:
            said = up.stderr.decode(errors="replace").strip().splitlines()
            return [(each.what, said[-1] if said else "no message", False) for each in chosen]
        return [(each.what, *each.check(grid)) for each in chosen]
    finally:
        grid.down()
        shutil.rmtree(grid.state_dir, ignore_errors=True)
