"""The connections and transactions of the SQL job store, on SQLite (WAL) or PostgreSQL.

With SQLite, several processes of one machine share the file.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar, cast

from sqlalchemy import Engine, Table, func, select
from sqlalchemy.dialects import postgresql as postgresql_dialect
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from raygrid.errors import SettingsError, UnavailableError
from raygrid.store import postgresql, sqlite
from raygrid.store.migrate import migrate
from raygrid.store.prepared import prepared
from raygrid.store.sql_failures import RETRY_AFTER_S, LockedError, translate_errors

MIGRATE_S = 600.0


class UsesDatabase(Protocol):
    """A part of the job store, to whose methods the decorators of this file apply."""

    _database: SqlDatabase


Part = TypeVar("Part", bound=UsesDatabase)
Given = ParamSpec("Given")
Answer = TypeVar("Answer")
Method: TypeAlias = Callable[Concatenate[Part, Given], Coroutine[Any, Any, Answer]]


def shielded_write(method: Method[Part, Given, Answer]) -> Method[Part, Given, Answer]:
    """Complete a write even if its caller is cancelled.

    On SQLite a write cannot be stopped anyway. On PostgreSQL, cancelling it would close the connection and make a new
    one just when clients give up because the store is slow. Their next try finds what was written.
    """

    @functools.wraps(method)
    async def run(self: Part, /, *args: Given.args, **named: Given.kwargs) -> Answer:
        return await self._database.run_shielded(functools.partial(method, self, *args, **named))

    return run


def cancellable_write(method: Method[Part, Given, Answer]) -> Method[Part, Given, Answer]:
    """Like `shielded_write` on SQLite; on PostgreSQL a cancelled write is stopped: it must not succeed later."""
    to_end = shielded_write(method)

    @functools.wraps(method)
    async def run(self: Part, /, *args: Given.args, **named: Given.kwargs) -> Answer:
        if self._database.is_sqlite:
            return await to_end(self, *args, **named)
        return await _until_not_locked(functools.partial(method, self, *args, **named))

    return run


def threaded_read(method: Method[Part, Given, Answer]) -> Method[Part, Given, Answer]:
    """Run a read of SQLite in a thread, in parallel with writes."""

    @functools.wraps(method)
    async def run(self: Part, /, *args: Given.args, **named: Given.kwargs) -> Answer:
        if self._database.is_sqlite:
            return await self._database.in_reader(functools.partial(method, self, *args, **named))
        return await method(self, *args, **named)

    return run


async def _until_not_locked(write: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
    """Repeat a write while other writers hold a lock that it needs, for as long as a call may take."""
    clock = asyncio.get_running_loop().time
    until = clock() + postgresql.CALL_S
    while True:
        try:
            return await write()
        except LockedError:
            if clock() >= until:
                raise


class SqlDatabase:
    """Transactions over a URL such as `sqlite+aiosqlite:///jobs.db` or `postgresql://user:password@host/raygrid`.

    Args:
        place: the URL, or the path of a SQLite file.

    Raises:
        SettingsError: the URL names an unsupported database, or cannot be read.
    """

    def __init__(self, place: str | Path) -> None:
        self._url = "" if isinstance(place, Path) else place
        backend = "sqlite" if isinstance(place, Path) else place.partition(":")[0].partition("+")[0]
        if backend not in ("sqlite", "postgresql", "postgres"):
            raise SettingsError(
                "storage.database must be a URL that begins with postgresql:// or sqlite+aiosqlite:///, "
                f"or the absolute path of a SQLite file; it begins with {backend[:20]!r}"
            )
        self.is_sqlite = backend == "sqlite"
        self._sqlite_file = place if isinstance(place, Path) else None
        if self.is_sqlite and not isinstance(place, Path):
            self._sqlite_file = sqlite.file_of(place)
        elif not self.is_sqlite:
            postgresql.dsn(self._url)
        self._reads: AsyncEngine | Engine | None = None
        self._writes: AsyncEngine | Engine | None = None
        self._under_way: set[asyncio.Future[Any]] = set()
        self._writers = asyncio.Semaphore(postgresql.WRITERS)
        self._writer: ThreadPoolExecutor | None = None  # for SQLite, which allows one writer at a time
        self._readers: ThreadPoolExecutor | None = None
        self._made: dict[Table, Any] = {}
        self._prepared: sqlite.Prepared = {}
        self._is_closed = False
        self._file: sqlite.DatabaseFile | None = None

    def why_no_room(self) -> str | None:
        """Why writes are likely to fail because the disk is full; None if there is room or no file."""
        return None if self._file is None else self._file.why_no_room()

    async def open(self) -> None:
        """Connect and update the schema.

        Raises:
            UnavailableError: the database cannot be used now; `open` may be called again later.
            SettingsError: the database refuses the user, or does not exist.
        """
        self._is_closed = False
        self._file = None
        if self.is_sqlite:
            path = self._sqlite_file
            if path is not None:
                await asyncio.to_thread(sqlite.prepare_file, path)
            self._writes = sqlite.engine_for(path, "BEGIN IMMEDIATE")
            self._reads = sqlite.engine_for(path, "BEGIN")
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="raygrid-sqlite-write")
            self._readers = ThreadPoolExecutor(sqlite.READERS, thread_name_prefix="raygrid-sqlite-read")
        else:
            self._writes = postgresql.create_engine(self._url)
            # Every statement reads committed rows with or without a transaction; without one it is a single round trip.
            self._reads = self._writes.execution_options(isolation_level="AUTOCOMMIT")
        try:
            await (self._in_thread(self._writer, self._migrate) if self.is_sqlite else self._migrate())
        except BaseException:
            await self.close()
            raise
        if self._sqlite_file is not None:
            self._file = sqlite.DatabaseFile(self._sqlite_file)

    async def _migrate(self) -> None:
        async with self.write(MIGRATE_S, opening=True) as connection:
            await connection.run_sync(migrate)

    async def close(self) -> None:
        """Wait for running transactions, then close every connection; later calls are refused."""
        self._is_closed = True
        await asyncio.gather(*self._under_way, return_exceptions=True)
        for threads in (self._writer, self._readers):
            if threads is not None:
                await asyncio.to_thread(threads.shutdown)
        for engine in {self._reads, self._writes}:
            if isinstance(engine, AsyncEngine):
                await engine.dispose()
            elif engine is not None:
                engine.dispose()

    async def run_shielded(self, work: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """Do a write, which continues if the caller is cancelled."""
        on_thread = self._in_thread(self._writer, work) if self.is_sqlite else _until_not_locked(work)
        transaction = asyncio.ensure_future(on_thread)
        self._under_way.add(transaction)
        transaction.add_done_callback(self._ended)
        return await asyncio.shield(transaction)

    async def in_reader(self, work: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """Do a read of SQLite in one of its reader threads."""
        return await self._in_thread(self._readers, work)

    async def _in_thread(
        self, threads: ThreadPoolExecutor | None, work: Callable[[], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        assert threads is not None, "the store is not open"
        self._require_open()
        return await asyncio.get_running_loop().run_in_executor(threads, lambda: sqlite.run_blocking(work()))

    def _require_open(self) -> None:
        if self._is_closed:
            message = "the job store is closed because this process ends; nothing was written, try again"
            raise UnavailableError(message, retry_after_s=RETRY_AFTER_S)

    def _ended(self, transaction: asyncio.Future[Any]) -> None:
        self._under_way.discard(transaction)
        if not transaction.cancelled():
            transaction.exception()  # marks the error as retrieved; the caller may have been cancelled

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reads."""
        assert self._reads is not None, "the store is not open"
        with translate_errors():
            async with self._connected(self._reads, postgresql.CALL_S) as connection:
                yield connection

    @asynccontextmanager
    async def write(self, limit_s: float | None = None, *, opening: bool = False) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction, which is committed at the end."""
        assert self._writes is not None, "the store is not open"
        limit_s = limit_s or postgresql.CALL_S
        if self._file is not None and (why := self._file.why_replaced()) is not None:
            raise UnavailableError(why, retry_after_s=RETRY_AFTER_S)
        with translate_errors(opening=opening):
            async with (
                self._turn(limit_s),
                self._connected(self._writes, limit_s) as connection,
                self._transaction(connection),
            ):
                yield connection

    @asynccontextmanager
    async def _turn(self, limit_s: float) -> AsyncIterator[None]:
        """Limit the writers on PostgreSQL, so that readers have connections; SQLite has one writer thread."""
        if self.is_sqlite:
            yield
            return
        async with asyncio.timeout(limit_s):
            await self._writers.acquire()
        try:
            yield
        finally:
            self._writers.release()

    @asynccontextmanager
    async def _connected(self, engine: AsyncEngine | Engine, limit_s: float) -> AsyncIterator[AsyncConnection]:
        if isinstance(engine, Engine):  # SQLite, which has its own time limit
            with engine.connect() as direct, direct.begin():
                yield cast(AsyncConnection, sqlite.DirectConnection(direct, self._prepared))
            return
        self._require_open()  # a closed pool would connect again
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(postgresql.CALL_S):
                connection = await stack.enter_async_context(engine.connect())
            with postgresql.cut_after(connection, limit_s):
                yield connection

    @asynccontextmanager
    async def _transaction(self, connection: AsyncConnection) -> AsyncIterator[None]:
        if isinstance(connection, sqlite.DirectConnection):
            yield  # already in a transaction
            return
        async with connection.begin():
            yield

    async def now(self, connection: AsyncConnection) -> datetime:
        """The store's clock: the database server's, or this machine's for SQLite."""
        if self.is_sqlite:
            return datetime.now(UTC)
        now: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
        return now

    def insert_ignoring(self, table: Table) -> Any:
        """Make the statement that inserts rows, except those whose key exists."""
        statement = self._made.get(table)
        if statement is None:
            statement = self._made[table] = prepared(self._insert(table).on_conflict_do_nothing())
        return statement

    def insert_or_replace(self, table: Table, values: dict[str, Any]) -> Any:
        """Make the statement that inserts a row or replaces the one with the same key."""
        keys = [column.name for column in table.primary_key]
        changed = {name: value for name, value in values.items() if name not in keys}
        return self._insert(table).values(values).on_conflict_do_update(index_elements=keys, set_=changed)

    def _insert(self, table: Table) -> Any:
        return (sqlite_dialect if self.is_sqlite else postgresql_dialect).insert(table)
