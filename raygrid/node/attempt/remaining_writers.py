"""Which processes may still write into an attempt's files once its pricer has answered: it decides what is reused."""

from __future__ import annotations

from enum import Enum


class RemainingWriters(Enum):
    """The processes that may still write into the files of an attempt that has ended."""

    NONE = "none"
    WARM_PROCESS = "a warm process, which runs further jobs"
    UNKNOWN = "unknown"
