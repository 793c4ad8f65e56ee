"""The type of an attack, and the list of all, in which each module of this package registers its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.hostile.targets import Targets


class RefusedError(Exception):
    """An attack did not reach what it aimed at, though no system call failed."""


class NotTriedError(Exception):
    """An attack cannot be tried here; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Wrote:
    """A file that was written: the attack has succeeded if the file is there outside of the sandbox, too."""

    path: str
    text: str


Run = Callable[[Targets], "str | Wrote"]


@dataclass(frozen=True, slots=True)
class Attack:
    """One thing that a pricer should not be able to do.

    Attributes:
        name: such as `signal:agent`; what follows the colon is the process that it aims at.
        run: tries it; gives what was reached, or raises OSError, `RefusedError` or `NotTriedError`.
    """

    name: str
    run: Run


ATTACKS: dict[str, Attack] = {}
ROLES = ("agent", "raylet", "gcs", "parent", "leader", "supervisor", "victim")


def attack(name: str) -> Callable[[Run], Run]:
    """Register a function as an attack."""

    def register(run: Run) -> Run:
        ATTACKS[name] = Attack(name, run)
        return run

    return register


def attack_on_processes(name: str) -> Callable[[Callable[[Targets, int], str]], Callable[[Targets, int], str]]:
    """Register a function as an attack on each process of the grid and on the other job; it gets the pid."""

    def register(run: Callable[[Targets, int], str]) -> Callable[[Targets, int], str]:
        for role in ROLES:

            def run_on(targets: Targets, role: str = role) -> str:
                if role not in targets.processes:
                    raise NotTriedError(f"no process is known as {role}")
                return run(targets, targets.processes[role])

            ATTACKS[f"{name}:{role}"] = Attack(f"{name}:{role}", run_on)
        return run

    return register
