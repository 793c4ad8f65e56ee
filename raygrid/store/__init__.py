"""The job store: one port (`port.py`), two adapters (`sql.py`, `memory.py`)."""

from raygrid.store.memory import MemoryStore
from raygrid.store.port import BLOBS, BatchSummary, Changed, Inserted, JobStore, LeaseState, Purged, StoredData
from raygrid.store.sql import SqlStore

__all__ = [
    "BLOBS",
    "BatchSummary",
    "Changed",
    "Inserted",
    "JobStore",
    "LeaseState",
    "MemoryStore",
    "Purged",
    "SqlStore",
    "StoredData",
]
