"""Runs pip-audit on the locked packages, where a service with advisories can be reached."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from security.row import Row

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock",)
MOST_S = 300


def audit() -> list[Row]:
    """Ask for advisories about each lock file's packages; skipped with a reason if nothing answers."""
    return [_audit(lock) for lock in LOCKS]


def _audit(lock: str) -> Row:
    test, extent = f"advisories for {lock}", f"{_packages(ROOT / lock)} packages"
    began = time.monotonic()
    code, printed, complained = _asked(lock)
    took_s = time.monotonic() - began
    try:
        packages = json.loads(printed)["dependencies"]
    except (ValueError, KeyError, TypeError):  # it has failed before the first answer
        last = complained.strip().rpartition("\n")[2][:200]
        return Row(test, extent, took_s, f"skipped: no service with advisories answers ({last})", passed=True)
    # A service that does not know a package answers, too, and pip-audit then succeeds.
    known = [each for each in packages if "skip_reason" not in each]
    extent = f"{len(known)} of {len(packages)} packages"
    found = [f"{each['name']} {bad['id']}" for each in known for bad in each["vulns"]]
    if found:
        return Row(test, extent, took_s, f"found: {', '.join(found)}", passed=False)
    if not known:
        return Row(test, extent, took_s, "skipped: the service that answers knows none of the packages", passed=True)
    return Row(test, extent, took_s, "no advisory" if code == 0 else f"exit code {code}", passed=code == 0)


def _asked(lock: str) -> tuple[int, str, str]:
    """The exit code of pip-audit, its answer, and what it complains about."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--format", "json", "-r", lock]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=MOST_S, check=False)
    except subprocess.TimeoutExpired:
        return 1, "", f"no answer within {MOST_S} s"
    return done.returncode, done.stdout, done.stderr


def _packages(lock: Path) -> int:
    return sum("==" in line for line in lock.read_text(encoding="utf-8").splitlines())
