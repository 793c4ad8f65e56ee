"""The audit log: one JSON line for each request that changes something, fetches a result or is refused.

It has its own files, which only their owner can read, beside the logs of the tiers: `audit.log` and its predecessors
`audit.log.1` and so on; several parents on one machine have several. A line is written before its answer is sent.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raygrid.core.access import Caller, without_secrets
from raygrid.core.rates import RateLimit
from raygrid.system.log_files import BoundedFile, claim_log

logger = logging.getLogger(__name__)

NAME = "audit"
MOST_BYTES = 50 * 1024**2
KEPT = 9
MOST_STRANGERS = 120  # lines per minute of requests without a valid key
_MOST_PATH = 500


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A request, as the audit log has it.

    Attributes:
        request: id of the request, which its answer names in `Raygrid-Request-Id`.
        caller: who made it; None if it had no valid key.
        address: where it came from.
        action: method and route, such as `DELETE /jobs/{jobId}`.
        path: the path, without the query.
        status: HTTP status of the answer.
        job: the job that the answer is about, if it is about one.
        batch: the same for a batch.
    """

    request: str
    caller: Caller | None
    address: str
    action: str
    path: str
    status: int
    job: str | None = None
    batch: str | None = None

    def line(self, at: datetime, left_out: int = 0) -> str:
        """Its line in the log. JSON escapes control characters, so that no text can forge a line.

        `left_out` is how many requests without a valid key were not recorded before it.
        """
        caller = self.caller
        values: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "request": self.request,
            "key": caller.key if caller is not None else None,
            "owner": caller.owner if caller is not None else None,
            "roles": sorted(caller.roles) if caller is not None else [],
            "address": self.address,
            "action": self.action,
            "path": _shortened(without_secrets(self.path)),
            "status": self.status,
        }
        values |= {name: value for name, value in (("job", self.job), ("batch", self.batch)) if value is not None}
        if left_out:
            values["left_out"] = left_out
        return json.dumps(values)


def _shortened(path: str) -> str:
    """A path whose JSON has at most `_MOST_PATH` characters: an escape has up to 12."""
    path = path[:_MOST_PATH]
    return path if len(json.dumps(path)) <= _MOST_PATH + 2 else path[: _MOST_PATH // 12]


class AuditLog:
    """Writes the audit log of one parent. The owner closes it.

    Raises:
        OSError: its file cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        path = claim_log(directory, NAME)
        self._file = BoundedFile(path, most_bytes=MOST_BYTES, kept=KEPT, on_error=self._failed)
        self._file.setFormatter(logging.Formatter("%(message)s"))
        self._is_failing = False
        self._strangers = RateLimit()
        self._left_out = 0

    def write(self, entry: AuditEntry) -> None:
        """Write a line; an error is logged once, because a full disk must not stop the grid.

        Of requests without a valid key, which anybody can make, some are only counted if there are many: otherwise they
        could displace all other lines.
        """
        if entry.caller is None and self._strangers.take("", MOST_STRANGERS, time.monotonic()):
            self._left_out += 1
            return
        line = entry.line(datetime.now(UTC), self._left_out)
        self._left_out = 0
        failed_before, self._is_failing = self._is_failing, False
        self._file.emit(logging.LogRecord(NAME, logging.INFO, "", 0, line, None, None))
        if self._is_failing and not failed_before:
            logger.error("the audit log cannot be written, so requests are not recorded; make room on its disk")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _failed(self) -> None:
        self._is_failing = True
