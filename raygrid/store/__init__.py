"""The job store: the port (`port.py`) and its SQL adapter (`sql.py`) for SQLite and PostgreSQL."""

from raygrid.store.port import (
    BLOBS,
    NO_HOLDER,
    BatchSummary,
    BatchSummaryPage,
    Changed,
    Inserted,
    JobStore,
    KeyBook,
    LeaseState,
    OwnerUsage,
    Purged,
    Reusable,
    StoredData,
    Unfinished,
)
from raygrid.store.sql import SqlStore
from raygrid.store.sql_failures import LockedError

__all__ = [
    "BLOBS",
    "NO_HOLDER",
    "BatchSummary",
    "BatchSummaryPage",
    "Changed",
    "Inserted",
    "JobStore",
    "KeyBook",
    "LeaseState",
    "LockedError",
    "OwnerUsage",
    "Purged",
    "Reusable",
    "SqlStore",
    "StoredData",
    "Unfinished",
]
