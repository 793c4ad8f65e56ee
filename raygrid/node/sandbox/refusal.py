"""Explains a failure under `strict`: what the sandbox probably refused, and the setting that allows it.

The kernel does not report what it refused, so this compares what the pricer printed with the sandbox's rules. Clients
read the explanation: it names only paths that the pricer printed, and does not depend on whether a file exists that the
sandbox hides. Pure, but for questions about files that the sandbox shows.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from raygrid.node.sandbox.plan import PRIVATE, SandboxPlan
from raygrid.node.sandbox.printed_errors import MissedFile, PrintedReason, missed_files, missed_network
from raygrid.node.sandbox.view import SHARED_MEMORY, is_below, is_below_one
from raygrid.settings.pricer import Pricer

MOST_PATHS = 3
"""Of each kind; a message names no more paths."""
_PLAIN_IN_YAML = re.compile(r"[\w./~+@%-]+")
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108  # compared, not used
_OR_WRITE = " (or `write`, if it writes there)"
_KERNEL = ("/proc", "/sys")


@dataclass(frozen=True, slots=True)
class VisibleFiles:
    """What an explanation asks about files that the sandbox shows, as the pricer could itself.

    Attributes:
        exists: whether there is such a file.
        may_write: whether its permissions let this user write to it.
        resolved: its path without links.
    """

    exists: Callable[[str], bool] = os.path.lexists
    may_write: Callable[[str], bool] = lambda path: os.access(path, os.W_OK)
    resolved: Callable[[str], str] = os.path.realpath


class _Need(Enum):
    """What a missed file needs."""

    READ = auto()
    WRITE = auto()
    EITHER = auto()
    LIBRARY = auto()
    EXISTENCE = auto()  # the settings allow it
    NOTHING_HELPS = auto()


def explain(
    name: str, pricer: Pricer, plan: SandboxPlan, printed: str, files: VisibleFiles | None = None
) -> str | None:
    """What the sandbox probably refused and what to add to the pricer's settings; None if nothing points to that.

    Args:
        name: the pricer's name.
        pricer: its settings.
        plan: its sandbox.
        printed: the end of what it printed, or why it could not be started.
        files: access to files that the sandbox shows; by default those of this machine.
    """
    if pricer.sandbox_mode != "strict":
        return None
    needs = _Rules(pricer, plan, files or VisibleFiles()).needs(missed_files(printed))
    return _sentences(name, needs, network=not pricer.network and missed_network(printed))


class _Rules:
    """Which files a sandbox shows, and which the pricer may read and write."""

    def __init__(self, pricer: Pricer, plan: SandboxPlan, files: VisibleFiles) -> None:
        self._files = files
        self._home = os.path.expanduser("~")
        self._named = [os.path.expanduser(path) for path in (*pricer.read, *pricer.write)]
        self._hidden: Sequence[str] = () if plan.view is None else plan.view.hidden
        self._shown: Sequence[str] = () if plan.view is None else plan.view.shown
        self._writable = None if plan.files is None else plan.files.write
        self._readable = None if plan.files is None else (*plan.files.read, *plan.files.write)

    def needs(self, missed: Iterable[MissedFile]) -> dict[_Need, list[str]]:
        """What to allow, or what else stands in the way: paths, without those for which the sandbox is not why."""
        needs: dict[_Need, list[str]] = {}
        for each in missed:
            found = self._need(each)
            if found is not None:
                need, path = found
                paths = needs.setdefault(need, [])
                if path not in paths and len(paths) < MOST_PATHS:
                    paths.append(path)
        return needs

    def _need(self, missed: MissedFile) -> tuple[_Need, str] | None:
        if not missed.path.startswith("/"):
            return _Need.LIBRARY, missed.path
        path = os.path.normpath(missed.path)
        if path == "/":
            return None  # no setting should show everything
        named = next((each for each in self._named if is_below(path, each)), None)
        if named is not None:
            return None if self._files.exists(named) else (_Need.EXISTENCE, named)
        if is_below(path, SHARED_MEMORY):
            return self._may_not_write(path)
        hider = self._hider(path)
        if hider is not None:
            return self._need_of_hidden(path, hider, missed)
        real = self._files.resolved(path)
        hider = self._hider(real)
        return self._need_of_visible(path, real, missed) if hider is None else self._need_of_hidden(path, hider, missed)

    @staticmethod
    def _to_read(path: str, missed: MissedFile) -> tuple[_Need, str]:
        return (_Need.EITHER if missed.writes is None else _Need.READ), path

    def _need_of_hidden(self, path: str, hider: str, missed: MissedFile) -> tuple[_Need, str]:
        if hider not in PRIVATE:
            return _Need.NOTHING_HELPS, path
        if missed.writes or missed.reason is PrintedReason.READ_ONLY:
            return _Need.WRITE, self._place_of(path)
        return self._to_read(path, missed)

    def _need_of_visible(self, path: str, real: str, missed: MissedFile) -> tuple[_Need, str] | None:
        """What a visible file needs: it would be denied, not missing, if the sandbox refuses it."""
        readable, writable = self._readable, self._writable
        if missed.reason is PrintedReason.MISSING or readable is None or writable is None:
            return None
        is_vague = missed.reason is PrintedReason.NONE and not missed.writes
        exists, may_be_read = self._files.exists(path), is_below_one(real, readable)
        if is_below_one(real, writable) or is_below_one(path, _KERNEL) or (is_vague and (may_be_read or not exists)):
            return None
        to_write = missed.writes or may_be_read or not exists
        return self._may_not_write(path) if to_write else self._to_read(path, missed)

    def _may_not_write(self, path: str) -> tuple[_Need, str] | None:
        """The need to write, unless the permissions of the file refuse that as well."""
        place = path if self._files.exists(path) else os.path.dirname(path)
        return (_Need.WRITE, self._place_of(path)) if self._files.may_write(place) else None

    def _hider(self, path: str) -> str | None:
        """The hidden file or directory that a path is in; None if the sandbox shows it."""
        hider = max((each for each in self._hidden if is_below(path, each)), key=len, default=None)
        shown = max((len(each) for each in self._shown if is_below(path, each)), default=-1)
        return None if hider is None or shown >= len(hider) else hider

    def _place_of(self, path: str) -> str:
        """What to allow for writing to a path: its directory, unless that holds more than one program's files."""
        directory = os.path.dirname(path)
        if is_below(path, SHARED_MEMORY):
            return SHARED_MEMORY
        if directory in _TEMPORARY:
            return directory
        is_too_much = directory in ("/", "/dev", self._home, *PRIVATE) or os.path.dirname(directory) == "/home"
        return path if is_too_much else directory


def _sentences(name: str, needs: dict[_Need, list[str]], *, network: bool) -> str | None:
    read, write, either = (needs.get(each, []) for each in (_Need.READ, _Need.WRITE, _Need.EITHER))
    refused = [*read, *either, *write, *(["the network"] if network else [])]
    settings = {
        f"`read: {_listed([*read, *either])}`{_OR_WRITE if either else ''}": bool(read or either),
        f"`write: {_listed(write)}`": bool(write),
        "`network: true`": network,
    }
    found = []
    if refused:
        wanted = " and ".join(setting for setting, is_wanted in settings.items() if is_wanted)
        found.append(
            f"The sandbox (strict) gives pricer {name!r} no access to {_joined(refused)}; if it needs that, add "
            f"{wanted} to its settings"
        )
        if any(place in _TEMPORARY for place in write):
            found.append("Temporary files need no setting in the directory that the variable TMPDIR names")
    if libraries := needs.get(_Need.LIBRARY):
        found.append(
            f"The program does not find {_joined(libraries)}; if the node has it, add its directory to the settings of "
            f"pricer {name!r} as `read`"
        )
    if absent := needs.get(_Need.EXISTENCE):
        found.append(f"The settings of pricer {name!r} name {_joined(absent)}, which does not exist on this node")
    if hopeless := needs.get(_Need.NOTHING_HELPS):
        found.append(
            f"{_joined(hopeless)} lies where the grid or its secrets are, which no setting of a sandbox shows; keep "
            "what the pricer needs elsewhere"
        )
    return ". ".join(found) or None


def _joined(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _listed(paths: Sequence[str]) -> str:
    """A list in the form of YAML."""
    return f"[{', '.join(each if _PLAIN_IN_YAML.fullmatch(each) else _quoted(each) for each in paths)}]"


def _quoted(path: str) -> str:
    return json.dumps(path, ensure_ascii=False)
