"""The job store: one port (`port.py`), and its adapter in SQL (`sql.py`) for SQLite and PostgreSQL."""

from raygrid.store.port import (
    BLOBS,
    NOBODY,
    BatchSummary,
    BatchSummaryPage,
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
    "BatchSummary",
    "BatchSummaryPage",
    "Changed",
    "Inserted",
    "JobStore",
    "LeaseState",
    "LockedError",
    "Purged",
    "Reusable",
    "SqlStore",
    "StoredData",
    "Unfinished",
]
