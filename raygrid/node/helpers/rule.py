"""Decides which processes that jobs left behind must end now. Pure; time is an argument.

A helper is a process that outlived the job that started it and that later jobs of the pricer may use: wine's server, an
ssh master, a licence daemon. `watch.py` finds these processes, calls this rule, and carries out what it decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

Programs = tuple[str, ...] | None
"""A pricer's setting `helpers`: None allows any program, an empty tuple none."""

MOST_HELPERS = 64
"""The number of processes that the jobs of one pricer may leave behind before all of them are ended."""

WINE = "wine"
_WINE_PROGRAM = re.compile(r"wine(32|64|console)?(-(stable|staging|development|devel))?")  # Debian's and WineHQ's names
_COMM = 15  # bytes of a process's name that the kernel keeps


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """A process that outlived its parent.

    Attributes:
        started: its start time in clock ticks since boot; with the pid it identifies one process.
        age_s: seconds since it started.
        pricers: the pricers whose jobs may have started it or may use it; empty if none can.
        allowed: whether the settings of one of these pricers allow it.
        in_job: whether an attempt that may have started it still runs.
    """

    pid: int
    started: int
    age_s: float
    pricers: frozenset[str]
    allowed: bool
    in_job: bool


@dataclass(frozen=True, slots=True)
class HelperActions:
    """What must be done.

    Attributes:
        kill: processes that no job may use; they are killed at once.
        clear: groups of pricers that have been idle for the linger time: all their helpers are ended, while none of
            their attempts can start.
        renew: groups with a helper that is too old, or with too many: the same, once the running attempts have ended.
    """

    kill: tuple[LeftBehind, ...] = ()
    clear: tuple[frozenset[str], ...] = ()
    renew: tuple[frozenset[str], ...] = ()


def decide(
    left: Sequence[LeftBehind],
    idle_s: Mapping[str, float],
    *,
    linger_s: float,
    age_s: float,
    most: int = MOST_HELPERS,
) -> HelperActions:
    """Decide on all processes that were left behind on a node.

    `idle_s` has, for each pricer that ever ran, the seconds since its last attempt ended, and 0 while one runs. Helpers
    outlive the last attempt by `linger_s`, reach an age of `age_s`, and a pricer has at most `most`.
    """
    kill = tuple(each for each in left if not each.in_job and not (each.allowed and each.pricers))
    helpers = [each for each in left if each.allowed and each.pricers]
    idle = {name for each in helpers for name in each.pricers if idle_s.get(name, linger_s) >= linger_s}
    clear = [each.pricers for each in helpers if each.pricers <= idle]
    counts = Counter(each.pricers for each in helpers)
    renew = [
        each.pricers
        for each in helpers
        if (each.age_s >= age_s or counts[each.pricers] > most) and not each.pricers <= idle
    ]
    return HelperActions(kill, _merged(clear), _merged(renew))


def _merged(sets: Iterable[frozenset[str]]) -> tuple[frozenset[str], ...]:
    """Merge the sets that have an element in common."""
    merged: list[frozenset[str]] = []
    for each in set(sets):
        apart = [other for other in merged if other.isdisjoint(each)]
        merged = [*apart, each.union(*(other for other in merged if other not in apart))]
    return tuple(merged)


def is_allowed(programs: Programs, executable: str, name: str) -> bool:
    """Whether a pricer's setting allows a program as a helper.

    A program is recognised by its executable (a path, empty if it cannot be read), because a process can change its
    name. `wineserver64` (or `wineserver`, `wine`) means all of wine, whose loader runs its services. `services.exe`
    means a Windows program of that name, which wine's loader runs.
    """
    if programs is None:
        return True
    if not executable:
        return False
    base = PurePosixPath(executable).name
    by_wine = _is_wine(base)
    return any(
        entry in (executable, base)
        or (by_wine and (_is_wine(entry) or (entry.lower().endswith(".exe") and entry[:_COMM] == name)))
        for entry in programs
    )


def _is_wine(program: str) -> bool:
    base = PurePosixPath(program).name
    is_server = base.startswith(("wineserver", "wine-preloader", "wine64-preloader"))
    return is_server or _WINE_PROGRAM.fullmatch(base) is not None


def shared_through(command: Iterable[str], programs: Programs, *, is_windows: bool = False) -> frozenset[str]:
    """The keys of the helpers that a pricer shares: pricers with a common key use the same helpers.

    The keys are the helpers in its settings (`programs`), and wine, whose server serves all Windows programs of a user;
    for a Windows program, the kernel starts wine even if the command does not name it.
    """
    through = {WINE if _is_wine(entry) else PurePosixPath(entry).name for entry in programs or ()}
    if is_windows or any(_is_wine(word) for word in command):
        through.add(WINE)
    return frozenset(through)


def sharing_with(name: str, through: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """A pricer and those that share helpers with it, directly or through others; `through` has the keys by pricer."""
    group = {name}
    keys = set(through.get(name, ()))
    while more := {each for each, its in through.items() if each not in group and its & keys}:
        group |= more
        keys.update(*(through[each] for each in more))
    return frozenset(group)
