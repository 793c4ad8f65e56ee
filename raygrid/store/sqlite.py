"""SQLite for the job store: its file, its connections, and how coroutines of the store run in a thread.

A database in a file makes nobody wait for a network, so each transaction runs in one thread from its beginning to its
end: handing over every single statement, as an asyncio driver does, costs five times the statements themselves.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, CursorResult, Engine, Executable, create_engine, event
from sqlalchemy.engine import make_url

BUSY_S = 30.0
READERS = 4

Answer = TypeVar("Answer")


def prepare_file(path: Path) -> None:
    """Make the directory, and switch the file to write-ahead logging before anybody uses it.

    Where processes that start together collide in the switch, SQLite fails at once, whatever its timeout, as waiting
    could be a deadlock; so it is tried again here.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
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


def engine_for(url: str, begin: str) -> Engine:
    """An engine whose transactions begin as told: writers take SQLite's write lock at once, so none must upgrade."""
    engine = create_engine(
        make_url(url).set(drivername="sqlite"),
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
    def start(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


class DirectConnection:
    """What the store uses of SQLAlchemy's `AsyncConnection`, over a connection that blocks; nothing here waits."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        """Execute a statement."""
        return self._connection.execute(statement, parameters)

    async def exec_driver_sql(self, statement: str, parameters: Sequence[Any] | None = None) -> CursorResult[Any]:
        """Execute the database's own SQL."""
        return self._connection.exec_driver_sql(statement, parameters)

    async def run_sync(self, function: Callable[[Connection], Answer]) -> Answer:
        """Call a function with the connection."""
        return function(self._connection)


def carried_out(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a coroutine that waits for nothing but its `DirectConnection` to its end, here and now."""
    try:
        work.send(None)
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    work.close()
    raise RuntimeError(f"{work!r} waited in the middle of a transaction of SQLite")
