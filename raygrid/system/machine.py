"""Identifies a machine, for files in a directory that several machines may share."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def machine_id() -> str:
    """A short name of this machine since its last boot; processes that cannot see each other get different ones."""
    seen = [str(os.getuid())]
    with contextlib.suppress(OSError):
        seen += [_BOOT.read_text(), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256("\0".join(seen).encode()).hexdigest()[:12]
