"""Starts programs without the kernel's random choice of memory addresses, see personality(2).

Wine needs this. Its loader maps a page at the fixed address 0x7ffe0000, and ends silently with exit code 1 if its heap
lies there. Linux places that heap at random within 1 GB above the loader, so that about one job in 8,000 failed (wine
8.0 of Debian 12, Linux 6.18; in a trace of such a job, the heap began at 0x7ffd1000 and had 132 KB).
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

_ADDR_NO_RANDOMIZE = 0x0040000
_CURRENT = 0xFFFF_FFFF

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def fixed_addresses() -> Iterator[None]:
    """Programs that this thread starts within the context get the same addresses each time.

    Where the kernel refuses that, as in some containers, nothing changes.
    """
    before = _libc.personality(ctypes.c_ulong(_CURRENT))
    changed = before >= 0 and _libc.personality(ctypes.c_ulong(before | _ADDR_NO_RANDOMIZE)) >= 0
    try:
        yield
    finally:
        if changed:
            _libc.personality(ctypes.c_ulong(before))
