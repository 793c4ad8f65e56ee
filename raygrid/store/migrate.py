"""Updates the schema with Alembic, inside the caller's transaction."""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from raygrid.store.tables import metadata

_IDLE_S = 60.0  # a starting process may get no CPU for seconds between two statements; a frozen one must lose its locks
_LOCK = 0x72617967  # an arbitrary number: PostgreSQL's advisory locks are shared by all users of a database


def migrate(connection: Connection) -> None:
    """Apply the missing migrations. Many processes may call this at once; they run one at a time."""
    if connection.dialect.name == "postgresql":
        for limit in ("statement_timeout", "lock_timeout"):  # the caller limits the whole transaction
            connection.execute(text(f"SET LOCAL {limit} = 0"))
        connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = {int(_IDLE_S * 1000)}"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    config = Config()
    here = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", here.replace("%", "%%"))  # Alembic interpolates %
    scripts = ScriptDirectory.from_config(config)
    with EnvironmentContext(
        config,
        scripts,
        fn=lambda revision, _context: scripts._upgrade_revs("head", revision),
        destination_rev="head",
    ) as environment:
        environment.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
        environment.run_migrations()
