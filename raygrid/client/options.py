"""The options of a submit, and the ids of jobs and batches."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import uuid_utils

from raygrid.errors import InvalidRequestError

_ID = re.compile(r"(?!\.+\Z)[A-Za-z0-9._-]{1,128}")


class SubmitKeywords(TypedDict, total=False):
    """Keyword arguments of every submit; see `JobOptions`."""

    pricer: str | None
    args: Sequence[str]
    priority: int
    affinity: str | None
    site: str | None
    timeout_s: float | None
    data: Sequence[str]


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How jobs are to run.

    Attributes:
        pricer: name of the pricer; None for the grid's default.
        args: further arguments for a pricer that takes them.
        priority: higher runs first.
        affinity: jobs of one affinity go to the same group if possible.
        site: run at this site while it has free slots, else at the nearest that has.
        timeout_s: wall-time limit of one attempt, seconds; None for the pricer's limit.
        data: names of shared data that the jobs read.
    """

    pricer: str | None = None
    args: Sequence[str] = ()
    priority: int = 0
    affinity: str | None = None
    site: str | None = None
    timeout_s: float | None = None
    data: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, value in (("args", self.args), ("data", self.data)):
            if isinstance(value, str):
                raise TypeError(f"{name} is a list of strings; write {name}=[{value!r}]")

    def fields(self) -> list[tuple[str, str]]:
        """Form fields of the options that differ from the defaults."""
        once = {
            "pricer": self.pricer,
            "priority": self.priority or None,
            "affinity": self.affinity,
            "site": self.site,
            "timeout_s": self.timeout_s,
        }
        fields = [(name, str(value)) for name, value in once.items() if value is not None]
        fields += [("args", str(arg)) for arg in self.args]
        return fields + [("data", name) for name in self.data]


def new_id() -> str:
    """Make an id for a job or a batch: a UUIDv7, so that ids sort by time."""
    return str(uuid_utils.uuid7())


def checked_id(value: str, what: str = "job id") -> str:
    """Refuse an id that the grid would refuse.

    Raises:
        InvalidRequestError: the message describes a valid id.
    """
    if _ID.fullmatch(value) is None:
        raise InvalidRequestError(
            f"{value!r} is not a {what}; use up to 128 letters, digits, '.', '_' or '-', and not only dots"
        )
    return value
