"""Python's search for garbage cycles, as it suits a process that lives long and works in bursts.

What a process has loaded by the time it begins to work is there for good: Ray, its libraries, our own code, half a
million objects. Left as it is, Python looks through all of them again and again while jobs make new objects.
"""

from __future__ import annotations

import gc

_YOUNG = 10_000  # new objects between two looks through the young; Python's own 700 are few for batches of jobs


def spare_what_is_loaded() -> None:
    """Leave everything that is there now out of every later search. Called once, before the first job."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
