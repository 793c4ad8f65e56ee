"""Attempts that earlier lives of a node's agent left unfinished, which are reported until a leader has committed that.

After a regular end, or the death of the agent alone, no job directory is left, because the agent or its reaper has
removed it. A directory that is left belongs to an attempt that ended together with agent and reaper: the machine lost
power, or a pricer killed every process that it could reach. The directory is named after the attempt.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter

from raygrid.models import AttemptId, AttemptReport, Outcome
from raygrid.node.attempt.workspace import SANDBOXES, short
from raygrid.system.killing import kill_lineage

logger = logging.getLogger(__name__)

FILE_NAME = "unfinished"
KILL_S = 10.0
MOST_LIVES = 64  # lives that are recorded: more end in a row only if no leader ever runs
MOST_ATTEMPTS = 4_096


def kill_earlier_lives(root: Path, mark_prefix: str) -> None:
    """Kill the processes that earlier lives of a node's agent left; their marks begin with `root`, its directory."""
    earlier = f"{root}|"
    kill_lineage((), lambda mark: mark.startswith(earlier) and not mark.startswith(mark_prefix), KILL_S)


@dataclass(frozen=True)
class _Life:
    """The attempts, by job and number, that one life left unfinished when it ended."""

    life: str
    ended_at: datetime
    attempts: list[tuple[str, int]]


_LIVES = TypeAdapter(list[_Life])


class Leftovers:
    """What earlier lives left, recorded in a file before their directories are removed, until `settle`.

    The leader may end before it has committed the reports, for instance killed by the next job that it starts.
    """

    def __init__(self, root: Path, node_id: str) -> None:
        self._path = root / FILE_NAME
        self._node_id = node_id
        self._last = 0  # the number of the last report; 0 if there is none, or once all are committed

    def find(self, *places: Path) -> list[AttemptReport]:
        """Find attempts of earlier lives, before their directories are removed.

        `places` are the directories of this life's job directories and sandboxes; their parents have those of earlier
        lives. There is a report for each attempt, in the order of lives; attempts of one life have the same `ended_at`.
        """
        lives = self._recorded()
        known = {short(each.life) for each in lives}
        found: dict[str, list[Path]] = {}
        for place in places:
            with contextlib.suppress(FileNotFoundError):
                for earlier in place.parent.iterdir():
                    if earlier != place and short(earlier.name) not in known:
                        found.setdefault(short(earlier.name), []).append(earlier)
        for directories in sorted(found.values(), key=_changed_at):
            if attempts := [attempt for each in directories for attempt in _attempts_in(each)]:
                ended_at = datetime.fromtimestamp(_changed_at(directories), UTC)
                lives.append(_Life(directories[0].name, ended_at, attempts))
        if not lives:
            return []
        self._record(lives[-MOST_LIVES:])
        reports = [report for life in lives[-MOST_LIVES:] for report in self._reports(life)][-MOST_ATTEMPTS:]
        what = "node %s: earlier lives of its agent left %d attempts unfinished; reporting them as lost"
        logger.warning(what, self._node_id, len(reports))
        return reports

    def reported(self, last: int) -> None:
        """Note that the reports are in the log; `last` is the number of the last one."""
        self._last = last

    def settle(self, number: int) -> None:
        """Remove the file if a leader has committed all reports up to a number, and that includes all of these."""
        if 0 < self._last <= number:
            self._last = 0
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _reports(self, life: _Life) -> Iterator[AttemptReport]:
        message = (
            f"node {self._node_id}: all processes of the grid on its machine ended at once while the attempt ran, "
            "by a power cut or because they were killed"
        )
        for job_id, number in life.attempts:
            yield AttemptReport(AttemptId(job_id, number), Outcome.LOST, message=message, ended_at=life.ended_at)

    def _recorded(self) -> list[_Life]:
        try:
            return _LIVES.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            logger.warning("node %s: %s cannot be read: %s; ignoring it", self._node_id, self._path, error)
        return []

    def _record(self, lives: list[_Life]) -> None:
        new = self._path.with_suffix(".new")
        try:
            with open(new, "wb", opener=_private) as file:
                file.write(_LIVES.dump_json(lives))
            new.replace(self._path)
        except OSError as error:
            what = "node %s: %s cannot be written: %s; unfinished attempts are reported only until the agent ends"
            logger.warning(what, self._node_id, self._path, error)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _changed_at(directories: list[Path]) -> float:
    """When the last attempt began or ended in a life's directories, about, in seconds since the epoch."""
    times = [0.0]
    for each in directories:
        with contextlib.suppress(OSError):
            times.append(each.stat(follow_symlinks=False).st_mtime)
            sandboxes = each.iterdir() if each.parent.name == SANDBOXES else ()
            times += [sandbox.stat(follow_symlinks=False).st_mtime for sandbox in sandboxes]
    return max(times)


def _attempts_in(directory: Path) -> Iterator[tuple[str, int]]:
    """The attempts that job directories are named after; other directories are ignored."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.isdigit() and directory.parent.name == SANDBOXES:
                yield from _attempts_in(Path(entry.path))
                continue
            job_id, _, number = entry.name.rpartition(".")
            if job_id and "@" not in job_id and number.isascii() and number.isdigit():
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        yield job_id, int(number)
