"""The job store: the port (`port.py`) and its SQL adapter (`sql.py`) for SQLite and PostgreSQL."""

from raygrid.store.port import (
    BLOBS,
    NO_HOLDER,
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
    "NO_HOLDER",
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
