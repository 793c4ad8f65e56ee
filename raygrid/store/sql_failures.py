"""Translates errors of the database into those of the grid, without secrets in their messages."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from raygrid.errors import RaygridError, SettingsError, UnavailableError

RETRY_AFTER_S = 2.0

# Prefixes of SQLSTATEs; https://www.postgresql.org/docs/current/errcodes-appendix.html
_LOCKED = "55P03"  # lock not available in time
_AWAY = (
    "08",  # connection lost
    "25006",  # a standby, which refuses writes
    "25P03",  # idle in a transaction for too long
    "28", "3D",  # user or database refused: see _SETTINGS
    "40",  # deadlock, serialization
    "53",  # out of memory, disk or connections
    _LOCKED,
    "57",  # cancelled, shutting down, starting up
    "58",  # disk errors of the server
)  # fmt: skip
_SETTINGS = (
    "28",  # wrong user or password
    "3D",  # no such database
    "42501",  # the user may not make tables
    "42704",  # no such parameter in the URL
)
_LOST = (OperationalError, InterfaceError, sqlite3.OperationalError, OSError, PoolTimeoutError)


class LockedError(UnavailableError):
    """Other writers held a lock for too long; nothing was written, and the call may be repeated."""


@contextmanager
def translate_errors(*, opening: bool = False) -> Iterator[None]:
    """Translate errors of a database that is unavailable, locked or full; the call may be repeated later.

    Args:
        opening: whether the store is being opened; a refusal then most likely means a wrong setting.

    Raises:
        UnavailableError: the database cannot be used now.
        SettingsError: the database refuses the user, or has no such database.
    """
    try:
        yield
    except RaygridError:
        raise
    except Exception as error:
        ours = _translated(error, opening=opening)
        if ours is None:
            raise
        raise ours from error


def _translated(error: Exception, *, opening: bool) -> RaygridError | None:
    driver = _driver_error(error)
    state = str(getattr(driver, "sqlstate", None) or "")
    said = str(driver) or "no answer in time"
    if opening and state.startswith(_SETTINGS):
        return SettingsError(f"the job store cannot be opened: {said}; correct storage.database")
    is_driver = type(driver).__module__.partition(".")[0] == "asyncpg"
    lost = isinstance(error, _LOST) or (is_driver and not state)
    if lost or state.startswith(_AWAY):
        is_locked = state == _LOCKED or getattr(driver, "sqlite_errorname", "").startswith("SQLITE_BUSY")
        kind = LockedError if is_locked else UnavailableError
        return kind(f"the job store cannot be used now: {said}; try again", retry_after_s=RETRY_AFTER_S)
    return None


def _driver_error(error: Exception) -> BaseException:
    """The driver's error inside SQLAlchemy's."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error
