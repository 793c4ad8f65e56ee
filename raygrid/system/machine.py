"""Identifies a machine, for files in a directory that several machines may share."""

from __future__ import annotations

import hashlib
import os

from raygrid.system.proc import boot_and_pid_namespace


def machine_id() -> str:
    """A short name of this machine since its last boot; each PID namespace on it, such as a container, has its own."""
    return hashlib.sha256("\0".join([str(os.getuid()), *boot_and_pid_namespace()]).encode()).hexdigest()[:12]
