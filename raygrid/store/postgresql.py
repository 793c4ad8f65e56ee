"""PostgreSQL under the SQL job store: what its URL may look like, how connections are made, and that none hangs.

A connection that has lost its server is noticed when it is taken from the pool, without asking the server; one whose
server does not answer is cut after `CALL_S`; one whose client stopped in the middle of a transaction, holding locks
that all others need, is cut by the server after `IDLE_S`. A machine that freezes also has writes waiting for such
locks, and each would hold them up anew; the server turns them away after `LOCK_S`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from raygrid.errors import SettingsError

CONNECT_S = 5.0
CALL_S = 15.0
LOCK_S = 1.0  # a write queues this long for a lock, then is tried anew; a process that froze in the queue does not try
IDLE_S = 2.0  # all writers need the revisions row: a process that holds it while frozen or cut off stops the whole grid
WRITERS = 4  # at once in this process; they wait for one another in the server, so that more gain nothing
POOL = 2 * WRITERS  # so that there is always a connection to read with

_SHAPE = (
    "write it as postgresql://user:password@host:5432/database, and characters of the password such as @ / : % "
    "percent-encoded (%40 %2F %3A %25)"
)


def dsn(url: str) -> tuple[str, float]:
    """What asyncpg takes, and the seconds that connecting may take, from any URL of PostgreSQL that users write.

    asyncpg reads libpq's own parameters, such as `sslmode`, `sslrootcert` or `target_session_attrs`.

    Raises:
        SettingsError: it cannot be read; the message does not show it, for it holds a password.
    """
    try:
        parts = urlsplit(url)
        if parts.fragment or parts.netloc.count("@") > 1:
            raise ValueError  # characters of a password that mean something else in a URL
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        # `ssl` is SQLAlchemy's word, the rest is libpq's.
        query.setdefault("sslmode", query.pop("ssl", ""))
        connect_s = float(query.pop("connect_timeout", "") or CONNECT_S)
    except ValueError:
        raise SettingsError(f"storage.database cannot be read; {_SHAPE}") from None
    options = {name: value for name, value in query.items() if value}
    options.setdefault("application_name", "raygrid")
    options.setdefault("statement_timeout", str(int(CALL_S * 1000)))
    options.setdefault("lock_timeout", str(int(LOCK_S * 1000)))
    options.setdefault("idle_in_transaction_session_timeout", str(int(IDLE_S * 1000)))
    return urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(options), "")), connect_s


def create_engine(url: str) -> AsyncEngine:
    """An engine for a URL of PostgreSQL.

    Raises:
        SettingsError: the URL cannot be read, or asyncpg is not installed.
    """
    address, connect_s = dsn(url)
    try:
        import asyncpg  # type: ignore[import-untyped]  # noqa: PLC0415 - comes with an extra
    except ImportError:
        raise SettingsError(
            "storage.database is on PostgreSQL, which needs a driver: pip install 'raygrid[postgres]'"
        ) from None

    class Connection(asyncpg.Connection):  # type: ignore[misc]
        async def close(self, *, timeout: float | None = None) -> None:
            """Close without waiting for the server to agree, for it may be the one that does not answer."""
            self.terminate()

    async def connect() -> Any:
        try:
            return await asyncpg.connect(address, timeout=connect_s, connection_class=Connection)
        except TimeoutError:
            raise TimeoutError(f"PostgreSQL did not answer within {connect_s:g} s") from None
        except asyncpg.exceptions.ClientConfigurationError as error:
            raise SettingsError(f"storage.database cannot be used: {error}") from None
        except ValueError:
            # Its message may quote a part of the URL, so it is not shown.
            raise SettingsError(f"storage.database cannot be used; {_SHAPE}") from None

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=WRITERS,
        max_overflow=POOL - WRITERS,
        pool_timeout=CALL_S,
        pool_use_lifo=True,
        hide_parameters=True,
    )

    @event.listens_for(engine.sync_engine, "checkout")
    def renew_closed(connection: Any, _record: Any, _proxy: Any) -> None:
        if connection.driver_connection.is_closed():
            raise DisconnectionError  # the pool connects anew

    return engine


@contextmanager
def cut_after(connection: AsyncConnection, limit_s: float) -> Iterator[None]:
    """Let whatever waits for this connection fail when the time is over, and let go of it when cancelled.

    Raises:
        TimeoutError: the time was over.
    """
    fairy = connection.sync_connection
    assert fairy is not None
    driver = fairy.connection.driver_connection
    assert driver is not None
    cut = asyncio.get_running_loop().call_later(limit_s, driver.terminate)
    try:
        yield
    except Exception as error:
        if driver.is_closed() and cut.when() <= asyncio.get_running_loop().time():
            raise TimeoutError(f"PostgreSQL did not answer within {limit_s:g} s") from error
        raise
    finally:
        cut.cancel()
