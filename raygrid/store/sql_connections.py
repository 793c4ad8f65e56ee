"""Connections of the SQL job store: SQLite (WAL) on one machine, PostgreSQL for a cluster.

SQLite needs nothing to start; several processes of one machine share the file.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from raygrid.errors import UnavailableError
from raygrid.store.migrate import migrate


class SqlConnections:
    """Transactions over a SQLAlchemy URL such as `sqlite+aiosqlite:///jobs.db`."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._reads: AsyncEngine | None = None
        self._writes: AsyncEngine | None = None
        self._one_writer = asyncio.Lock()

    @property
    def is_single_machine(self) -> bool:
        """Whether only processes of one machine can share this store."""
        return self._is_sqlite

    async def open(self) -> None:
        """Connect and bring the schema up to date."""
        if self._is_sqlite:
            if self._url.database:
                await asyncio.to_thread(prepare_file, Path(self._url.database))
            self._writes = _sqlite_engine(self._url.render_as_string(hide_password=False), "BEGIN IMMEDIATE")
            self._reads = _sqlite_engine(self._url.render_as_string(hide_password=False), "BEGIN")
        else:
            self._writes = self._reads = create_async_engine(
                self._url, pool_pre_ping=True, pool_size=5, hide_parameters=True
            )
        async with self._write() as connection:
            await connection.run_sync(migrate)

    async def close(self) -> None:
        """Let go of every connection."""
        for engine in {self._reads, self._writes}:
            if engine is not None:
                await engine.dispose()

    @asynccontextmanager
    async def _read(self) -> AsyncIterator[AsyncConnection]:
        assert self._reads is not None, "the store is not open"
        with _as_unavailable():
            async with self._reads.connect() as connection:
                yield connection

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[AsyncConnection]:
        assert self._writes is not None, "the store is not open"
        with _as_unavailable():
            async with self._one_writer, self._writes.begin() as connection:
                yield connection

    async def _now(self, connection: AsyncConnection) -> datetime:
        """The store's clock: the database server's, or this machine's where the database is a file on it."""
        if self._is_sqlite:
            return datetime.now(UTC)
        now: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
        return now

    def _insert_ignoring(self, table: Any) -> Any:
        dialect = sqlite if self._is_sqlite else postgresql
        return dialect.insert(table).on_conflict_do_nothing()


def prepare_file(path: Path) -> None:
    """Make the directory, and switch the file to write-ahead logging before anybody uses it.

    Where processes that start together collide in the switch, SQLite fails at once, whatever its timeout, as waiting
    could be a deadlock; so it is tried again here.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    give_up_at = time.monotonic() + 30
    with closing(sqlite3.connect(path, timeout=1)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.01)
            else:
                return


@contextmanager
def _as_unavailable() -> Iterator[None]:
    """Tell a database that is away, locked or full from a mistake of ours: trying again later is safe."""
    try:
        yield
    except (OperationalError, InterfaceError, OSError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise UnavailableError(f"the job store cannot be used now: {cause}; try again", retry_after_s=2.0) from error


def _sqlite_engine(url: str, begin: str) -> AsyncEngine:
    """An engine whose transactions begin as told: writers take SQLite's write lock at once, so none must upgrade."""
    engine = create_async_engine(url, connect_args={"timeout": 30}, pool_size=4, max_overflow=4, hide_parameters=True)

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy's own BEGIN below, not the driver's implicit one
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def start(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine
