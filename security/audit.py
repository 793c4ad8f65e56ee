"""Runs pip-audit on the locked packages, where a service with advisories can be reached."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from security.row import Row

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock",)
MOST_S = 300
# What pip-audit prints if it cannot ask; it then knows nothing about the packages.
_AWAY = (
    "ConnectionError",
    "Could not connect",
    "Max retries exceeded",
    "ServiceError",
    "Temporary failure",
    "HTTPError",
)


def audit() -> list[Row]:
    """Ask for advisories about each lock file's packages; skipped with a reason if nothing answers."""
    return [_audit(lock) for lock in LOCKS]


def _audit(lock: str) -> Row:
    began = time.monotonic()
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--no-deps", "-r", lock]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=MOST_S, check=False)
        code, printed = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        code, printed = 1, "ConnectionError: no answer in time"
    took_s = time.monotonic() - began
    test, extent = f"advisories for {lock}", f"{_packages(ROOT / lock)} packages"
    if code == 0:
        return Row(test, extent, took_s, "no advisory", passed=True)
    if any(word in printed for word in _AWAY):
        return Row(test, extent, took_s, "skipped: no service with advisories can be reached", passed=True)
    print(printed)
    return Row(test, extent, took_s, "advisories or an error, see above", passed=False)


def _packages(lock: Path) -> int:
    return sum("==" in line for line in lock.read_text(encoding="utf-8").splitlines())
