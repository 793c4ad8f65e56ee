"""Connections of the SQL job store: SQLite (WAL) on one machine, PostgreSQL for a cluster.

SQLite needs nothing to start; several processes of one machine share the file.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Table, event, func, select
from sqlalchemy.dialects import postgresql as postgresql_dialect
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from raygrid.errors import SettingsError
from raygrid.store import postgresql
from raygrid.store.migrate import migrate
from raygrid.store.sql_failures import LockedError, as_ours

MIGRATE_S = 600.0

Store = TypeVar("Store", bound="SqlConnections")
Given = ParamSpec("Given")
Answer = TypeVar("Answer")


def to_its_end(
    method: Callable[Concatenate[Store, Given], Coroutine[Any, Any, Answer]],
) -> Callable[Concatenate[Store, Given], Coroutine[Any, Any, Answer]]:
    """Let a write run to its end, even if whoever waits for it is cancelled.

    On SQLite, a connection whose statement is given up halfway may keep the one write lock until it is collected as
    garbage, and meanwhile nobody on the machine can write. A connection to PostgreSQL would be cut, and made anew at
    the worst time: when clients give up because the store is slow. They come again, and then find what was written.
    """

    @functools.wraps(method)
    async def run(self: Store, /, *args: Given.args, **named: Given.kwargs) -> Answer:
        transaction = asyncio.ensure_future(_until_not_locked(functools.partial(method, self, *args, **named)))
        self._under_way.add(transaction)
        transaction.add_done_callback(self._ended)
        return await asyncio.shield(transaction)

    return run


def or_cut(
    method: Callable[Concatenate[Store, Given], Coroutine[Any, Any, Answer]],
) -> Callable[Concatenate[Store, Given], Coroutine[Any, Any, Answer]]:
    """As `to_its_end` on SQLite. On PostgreSQL a write that is given up is cut, as it must not come true later."""
    to_end = to_its_end(method)

    @functools.wraps(method)
    async def run(self: Store, /, *args: Given.args, **named: Given.kwargs) -> Answer:
        if self._is_sqlite:
            return await to_end(self, *args, **named)
        return await _until_not_locked(functools.partial(method, self, *args, **named))

    return run


async def _until_not_locked(write: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
    """Do a write again while others hold a lock that it needs, for as long as a call may take."""
    clock = asyncio.get_running_loop().time
    until = clock() + postgresql.CALL_S
    while True:
        try:
            return await write()
        except LockedError:
            if clock() >= until:
                raise


class SqlConnections:
    """Transactions over a URL such as `sqlite+aiosqlite:///jobs.db` or `postgresql://user:password@host/raygrid`.

    Raises:
        SettingsError: the URL is for no database that can hold jobs, or cannot be read.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        backend = url.partition(":")[0].partition("+")[0]
        if backend not in ("sqlite", "postgresql", "postgres"):
            raise SettingsError(
                "storage.database must be a URL that begins with postgresql:// or sqlite+aiosqlite:///, "
                f"not with {backend[:20]!r}"
            )
        self._is_sqlite = backend == "sqlite"
        if not self._is_sqlite:
            postgresql.dsn(url)
        self._reads: AsyncEngine | None = None
        self._writes: AsyncEngine | None = None
        self._under_way: set[asyncio.Future[Any]] = set()
        self._writers = asyncio.Semaphore(1 if self._is_sqlite else postgresql.WRITERS)

    @property
    def is_single_machine(self) -> bool:
        """Whether only processes of one machine can share this store."""
        return self._is_sqlite

    async def open(self) -> None:
        """Connect and bring the schema up to date.

        Raises:
            UnavailableError: the database cannot be used now; it may be opened again later.
            SettingsError: the database refuses the user, or does not exist.
        """
        if self._is_sqlite:
            path = make_url(self._url).database
            if path:
                await asyncio.to_thread(prepare_file, Path(path))
            self._writes = _sqlite_engine(self._url, "BEGIN IMMEDIATE")
            self._reads = _sqlite_engine(self._url, "BEGIN")
        else:
            self._writes = postgresql.create_engine(self._url)
            # Each statement sees what is committed, in a transaction or not; without one it is a single round trip.
            self._reads = self._writes.execution_options(isolation_level="AUTOCOMMIT")
        try:
            async with self._write(MIGRATE_S, opening=True) as connection:
                await connection.run_sync(migrate)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let transactions under way end, then let go of every connection."""
        await asyncio.gather(*self._under_way, return_exceptions=True)
        for engine in {self._reads, self._writes}:
            if engine is not None:
                await engine.dispose()

    def _ended(self, transaction: asyncio.Future[Any]) -> None:
        self._under_way.discard(transaction)
        if not transaction.cancelled():
            transaction.exception()  # whoever waits for it gets it; nobody may

    @asynccontextmanager
    async def _read(self) -> AsyncIterator[AsyncConnection]:
        assert self._reads is not None, "the store is not open"
        with as_ours():
            async with self._connected(self._reads, postgresql.CALL_S) as connection:
                yield connection

    @asynccontextmanager
    async def _write(self, limit_s: float | None = None, *, opening: bool = False) -> AsyncIterator[AsyncConnection]:
        assert self._writes is not None, "the store is not open"
        limit_s = limit_s or postgresql.CALL_S
        with as_ours(opening=opening):
            async with (
                self._turn(limit_s),
                self._connected(self._writes, limit_s) as connection,
                connection.begin(),
            ):
                yield connection

    @asynccontextmanager
    async def _turn(self, limit_s: float) -> AsyncIterator[None]:
        """One writer at a time where the database takes no more; with PostgreSQL, some connections stay for readers."""
        async with asyncio.timeout(None if self._is_sqlite else limit_s):
            await self._writers.acquire()
        try:
            yield
        finally:
            self._writers.release()

    @asynccontextmanager
    async def _connected(self, engine: AsyncEngine, limit_s: float) -> AsyncIterator[AsyncConnection]:
        if self._is_sqlite:  # which has its own limit, `timeout` in `_sqlite_engine`
            async with engine.connect() as connection:
                yield connection
            return
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(postgresql.CALL_S):
                connection = await stack.enter_async_context(engine.connect())
            with postgresql.cut_after(connection, limit_s):
                yield connection

    async def _now(self, connection: AsyncConnection) -> datetime:
        """The store's clock: the database server's, or this machine's where the database is a file on it."""
        if self._is_sqlite:
            return datetime.now(UTC)
        now: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
        return now

    def _insert_ignoring(self, table: Table) -> Any:
        return self._insert(table).on_conflict_do_nothing()

    def _insert_or_replace(self, table: Table, values: dict[str, Any]) -> Any:
        keys = [column.name for column in table.primary_key]
        changed = {name: value for name, value in values.items() if name not in keys}
        return self._insert(table).values(values).on_conflict_do_update(index_elements=keys, set_=changed)

    def _insert(self, table: Table) -> Any:
        return (sqlite if self._is_sqlite else postgresql_dialect).insert(table)


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
