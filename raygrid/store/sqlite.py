"""SQLite for the job store: its file, its connections, and running the store's coroutines in a thread.

A database file needs no waiting for a network, so each transaction runs in one thread from start to end. Passing every
statement to a thread, as an asyncio driver does, costs five times as much as the statements.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import URL, Connection, CursorResult, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from raygrid.errors import SettingsError
from raygrid.store.prepared import PreparedStatement, Rows, Statement, is_prepared

BUSY_S = 30.0
READERS = 4
ROOM = 16 * 1024**2  # bytes; with less free space on its disk, writes may fail at any moment

Answer = TypeVar("Answer")
Prepared: TypeAlias = dict[tuple[Statement, tuple[str, ...]], PreparedStatement]


def prepare_file(path: Path) -> None:
    """Make the directory, and switch the file to write-ahead logging before its first use.

    If several processes switch at the same time, SQLite fails at once despite its timeout, because waiting could
    deadlock; so the switch is repeated here.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The file may have inputs and results; SQLite gives the same mode to -wal and -shm. The file must not be opened
    # here: closing it would drop the locks of this process's SQLite connections, and the file could be damaged.
    with suppress(FileExistsError):
        os.mknod(path, stat.S_IFREG | 0o600)
    give_up_at = time.monotonic() + BUSY_S
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


class DatabaseFile:
    """The file as it was opened. SQLite continues to write to a removed file, and all such writes are lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shown = os.fsencode(path).decode(errors="backslashreplace")  # printable
        self._identity = self._seen()

    def why_replaced(self) -> str | None:
        """Why writes must be refused; None if the file is still the one that was opened."""
        if self._seen() == self._identity:
            return None
        return (
            f"the job store's file {self._shown} was removed or replaced while the grid runs: put it back, or stop the "
            "grid and start it again; it then uses the file that is there"
        )

    def why_no_room(self) -> str | None:
        """Why writes are likely to fail; None if the disk has room."""
        try:
            free = shutil.disk_usage(self._path.parent).free
        except OSError as error:
            return f"the free space for the job store {self._shown} cannot be read: {error}"
        if free >= ROOM:
            return None
        return f"the disk of the job store {self._shown} is full ({free // 1024**2} MB are free); free some space"

    def _seen(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino


def file_of(url: str) -> Path | None:
    """The file that a SQLite URL names; None for a database in memory.

    Raises:
        SettingsError: the URL cannot be read, or has a `?`, which ends the file name, so that the job store would be in
            another file.
    """
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsError("storage.database starts like a SQLite URL, but is not a valid one") from None
    if "?" in url:
        raise SettingsError(
            "storage.database: a SQLite URL must have no '?'. If it belongs to the file name, write the plain path "
            "instead of a URL; URL options are not supported"
        )
    return Path(found.database) if found.database and found.database != ":memory:" else None


def engine_for(path: Path | None, begin: str) -> Engine:
    """Make an engine whose transactions begin with a given statement.

    Args:
        path: the file; None for a database in memory.
        begin: the statement; for writers one that takes the write lock at once, because a lock upgrade may deadlock.
    """
    engine = create_engine(
        URL.create("sqlite", database=None if path is None else str(path)),
        connect_args={"timeout": BUSY_S},
        pool_size=READERS,
        max_overflow=4,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy's own BEGIN below, not the driver's implicit one
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.connection.cursor().execute(begin)

    return engine


class DirectConnection:
    """The part of SQLAlchemy's `AsyncConnection` that the store uses, over a blocking connection.

    New prepared statements are added to `prepared`.
    """

    def __init__(self, connection: Connection, prepared: Prepared) -> None:
        self._connection = connection
        self._prepared = prepared

    async def execute(self, statement: Any, parameters: Any = None) -> CursorResult[Any] | Rows:
        """Execute a statement."""
        if not parameters or not is_prepared(statement):
            return self._connection.execute(statement, parameters)
        names = tuple(parameters if isinstance(parameters, dict) else parameters[0])
        known = self._prepared.get((statement, names))
        if known is None:
            known = PreparedStatement(statement, names, self._connection.dialect)
            self._prepared[statement, names] = known
        return known.execute(self._connection, parameters)

    async def exec_driver_sql(self, statement: str, parameters: Sequence[Any] | None = None) -> CursorResult[Any]:
        """Execute SQL text of the database."""
        return self._connection.exec_driver_sql(statement, parameters)

    async def run_sync(self, function: Callable[[Connection], Answer]) -> Answer:
        """Call a function with the connection."""
        return function(self._connection)


def run_blocking(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a coroutine that awaits only its `DirectConnection`, without an event loop."""
    try:
        work.send(None)
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    work.close()
    raise RuntimeError(f"{work!r} waited inside a SQLite transaction")
