"""Keys of blobs; the docstring of the package describes each kind."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from uuid_utils import uuid4

MARKER = "grid/marker"
_DAY = re.compile(r"^(?:inputs|results)/(\d{4}-\d{2}-\d{2})/")


def input_key(digest: str) -> str:
    """Key of a job's input that is stored today."""
    return f"inputs/{_today()}/{digest}"


def data_key(digest: str) -> str:
    """Key of a shared input."""
    return f"data/{digest}"


def new_result_key() -> str:
    """A new key for a result or a pack of results."""
    return f"results/{_today()}/{uuid4()}"


def new_upload_key() -> str:
    """A new key for an unfinished upload."""
    return f"uploads/{uuid4()}"


def day_of(key: str) -> datetime | None:
    """The day in the key of an input or a result; None for other keys."""
    match = _DAY.match(key)
    return datetime.strptime(match[1], "%Y-%m-%d").replace(tzinfo=UTC) if match else None


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")
