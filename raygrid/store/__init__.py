"""The job store: one port (`port.py`), two adapters (`sql.py`, `memory.py`)."""

from raygrid.store.memory import MemoryStore
from raygrid.store.port import (
    BLOBS,
    NOBODY,
    BatchPage,
    BatchSummary,
    Changed,
    Inserted,
    JobStore,
    LeaseState,
    Purged,
    Reusable,
    StoredData,
    Unfinished,
)
from raygrid.store.sql import SqlStore
from raygrid.store.sql_failures import LockedError

__all__ = [
    "BLOBS",
    "NOBODY",
    "BatchPage",
    "BatchSummary",
    "Changed",
    "Inserted",
    "JobStore",
    "LeaseState",
    "LockedError",
    "MemoryStore",
    "Purged",
    "Reusable",
    "SqlStore",
    "StoredData",
    "Unfinished",
]
