"""PostgreSQL for the SQL job store: its URL, its connections, and time limits so that no call waits forever.

A closed connection is detected when it is taken from the pool, without a call to the server. A connection whose server
does not answer is closed after `CALL_S`. If a client stops in the middle of a transaction, with locks that all other
writers need, the server closes its connection after `IDLE_S`. A frozen machine may also have writes that wait for such
locks, and each would block the others again; the server refuses them after `LOCK_S`.
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
LOCK_S = 1.0  # a write waits this long for a lock, then is tried again; a frozen process does not try again
IDLE_S = 2.0  # all writers need the revisions row: a process that is frozen or cut off while it has it stops the grid
WRITERS = 4  # at once in this process; more gain nothing, because they wait for one another in the server
POOL = 2 * WRITERS  # so that there is always a connection for reads

_SHAPE = (
    "write it as postgresql://user:password@host:5432/database, and characters of the password such as @ / : % "
    "percent-encoded (%40 %2F %3A %25)"
)


def dsn(url: str) -> tuple[str, float]:
    """Convert a PostgreSQL URL from the settings to asyncpg's form; also return the connect timeout in seconds.

    asyncpg supports libpq's parameters, such as `sslmode`, `sslrootcert` or `target_session_attrs`.

    Raises:
        SettingsError: the URL cannot be read; the message does not show it, because it may have a password.
    """
    try:
        parts = urlsplit(url)
        if parts.fragment or parts.netloc.count("@") > 1:
            raise ValueError  # characters of a password that have a meaning in URLs
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        query.setdefault("sslmode", query.pop("ssl", ""))  # `ssl` is SQLAlchemy's name; the others are libpq's
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
    """Make an engine for a PostgreSQL URL.

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
            """Close without waiting for the server, which may not answer."""
            self.terminate()

    async def connect() -> Any:
        try:
            return await asyncpg.connect(address, timeout=connect_s, connection_class=Connection)
        except TimeoutError:
            raise TimeoutError(f"PostgreSQL did not answer within {connect_s:g} s") from None
        except asyncpg.exceptions.ClientConfigurationError as error:
            raise SettingsError(f"storage.database cannot be used: {error}") from None
        except ValueError:
            # The message may quote a part of the URL, so it is not shown.
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
            raise DisconnectionError  # the pool makes a new connection

    return engine


@contextmanager
def cut_after(connection: AsyncConnection, limit_s: float) -> Iterator[None]:
    """Close the connection after a time limit, so that pending calls on it fail.

    Raises:
        TimeoutError: the limit was reached.
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
