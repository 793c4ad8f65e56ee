"""Brings the schema up to date with Alembic, inside the caller's transaction."""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from raygrid.store.tables import metadata

_IDLE_S = 60.0  # a starting process may get no processor for seconds between two statements; a frozen one still lets go
_LOCK = 0x72617967  # any number of our own: PostgreSQL's advisory locks are shared by a database


def migrate(connection: Connection) -> None:
    """Apply the migrations that are missing. Safe to call from many processes at once: one at a time gets through."""
    if connection.dialect.name == "postgresql":
        for limit in ("statement_timeout", "lock_timeout"):  # the caller bounds the whole
            connection.execute(text(f"SET LOCAL {limit} = 0"))
        connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = {int(_IDLE_S * 1000)}"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    config = Config()
    here = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", here.replace("%", "%%"))  # Alembic takes % for interpolation
    scripts = ScriptDirectory.from_config(config)
    with EnvironmentContext(
        config,
        scripts,
        fn=lambda revision, _context: scripts._upgrade_revs("head", revision),
        destination_rev="head",
    ) as environment:
        environment.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
        environment.run_migrations()
