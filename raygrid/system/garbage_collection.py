"""Tunes Python's garbage collector for long-lived processes with many loaded modules.

By its first job a process has loaded some 500,000 objects (Ray, libraries, raygrid) that stay until its end. With
Python's defaults, each full collection examines all of them.
"""

from __future__ import annotations

import gc

_YOUNG = 10_000  # new objects between two collections of the youngest generation; the default is 700


def spare_what_is_loaded() -> None:
    """Exclude all present objects from later collections. Call it once, before the first job."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
