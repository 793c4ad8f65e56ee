"""The job store in SQL, through SQLAlchemy Core: SQLite (WAL) on one machine, PostgreSQL for a cluster.

A commit is on disk when it returns (SQLite: `synchronous=FULL`); callers pass many jobs in one call to share a commit.
"""

from __future__ import annotations

from pathlib import Path

from raygrid.store.sql_batches import SqlBatches
from raygrid.store.sql_database import SqlDatabase
from raygrid.store.sql_definitions import SqlDefinitions
from raygrid.store.sql_grid_tables import SqlGridTables
from raygrid.store.sql_jobs import SqlJobs
from raygrid.store.sql_keys import SqlKeys
from raygrid.store.sql_moves import SqlMoves
from raygrid.store.sql_reuse import SqlReuse


class SqlStore:
    """`JobStore` over a URL such as `sqlite+aiosqlite:///jobs.db` or `postgresql://user:password@host/raygrid`.

    Its parts share one database. Each method of the port is bound directly to a part's method, without a wrapper.

    Args:
        place: the URL, or the path of a SQLite file.

    Attributes:
        database: its connections.

    Raises:
        SettingsError: the URL names an unsupported database, or cannot be read.
    """

    def __init__(self, place: str | Path) -> None:  # noqa: PLR0915 - a list of the port's methods
        self.database = database = SqlDatabase(place)
        self.open = database.open
        self.close = database.close

        batches = SqlBatches(database)
        self.jobs = batches.jobs
        self.batches = batches.batches
        self.batches_of = batches.batches_of
        self.batch = batches.batch
        self.unfinished_of_batch = batches.unfinished_of_batch
        self.changed = batches.changed

        reuse = SqlReuse(database)
        self.reusable = reuse.reusable
        self.result_chunks = reuse.result_chunks
        self.stop_reuse = reuse.stop_reuse

        jobs = SqlJobs(database, batches, reuse)
        self.insert = jobs.insert
        self.get = jobs.get
        self.record = jobs.record
        self.queued = jobs.queued
        self.running = jobs.running
        self.unfinished_of = jobs.unfinished_of
        self.count_queued = jobs.count_queued
        self.queue_position = jobs.queue_position
        self.request_cancel = jobs.request_cancel
        self.usage = jobs.usage
        self.purge = jobs.purge
        self.blobs_in_use = jobs.blobs_in_use

        moves = SqlMoves(database)
        self.unfinished = moves.unfinished
        self.count_unfinished = moves.count_unfinished
        self.move = moves.move
        self.cancel_unled = moves.cancel_unled

        keys = SqlKeys(database)
        self.keys = keys.keys
        self.add_key = keys.add_key
        self.rotate_key = keys.rotate_key
        self.revoke_key = keys.revoke_key

        definitions = SqlDefinitions(database)
        self.put_definitions = definitions.put_definitions
        self.definitions = definitions.definitions
        self.purge_definitions = definitions.purge_definitions

        grid = SqlGridTables(database)
        self.probe = grid.probe
        self.put_data = grid.put_data
        self.delete_data = grid.delete_data
        self.get_data = grid.get_data
        self.start_purge_of_data = grid.start_purge_of_data
        self.end_purge_of_data = grid.end_purge_of_data
        self.acquire_lease = grid.acquire_lease
        self.release_lease = grid.release_lease
        self.note_hand_over = grid.note_hand_over
        self.leases = grid.leases
        self.put_drain = grid.put_drain
        self.delete_drain = grid.delete_drain
        self.drains = grid.drains
        self.agree = grid.agree
        self.agreed = grid.agreed

    @property
    def is_single_machine(self) -> bool:
        """Whether only processes of one machine can share this store."""
        return self.database.is_sqlite
