"""Updates the schema with Alembic, inside the caller's transaction.

Alembic is imported only where the schema is not current: it takes longer than all else that opens a store.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from raygrid.errors import SettingsError
from raygrid.store.tables import metadata

_IDLE_S = 60.0  # a starting process may get no CPU for seconds between two statements; a frozen one must lose its locks
_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x72617967  # an arbitrary number: PostgreSQL's advisory locks are shared by all users of a database


def migrate(connection: Connection) -> None:
    """Apply the missing migrations. Many processes may call this at once; they run one at a time."""
    if not _is_current(connection):
        _apply_missing(connection)


def _is_current(connection: Connection) -> bool:
    newest = max(path.name[:4] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))
    if not inspect(connection).has_table("alembic_version"):
        return False
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [newest]


def _apply_missing(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        # First of all: the imports take longer than an idle transaction may.
        for limit in ("statement_timeout", "lock_timeout"):  # the caller limits the whole transaction
            connection.execute(text(f"SET LOCAL {limit} = 0"))
        connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = {int(_IDLE_S * 1000)}"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    from alembic.config import Config  # noqa: PLC0415
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415
    from alembic.util.exc import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))  # Alembic interpolates %
    scripts = ScriptDirectory.from_config(config)
    with EnvironmentContext(
        config,
        scripts,
        fn=lambda revision, _context: scripts._upgrade_revs("head", revision),
        destination_rev="head",
    ) as environment:
        environment.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
        try:
            environment.run_migrations()
        except (CommandError, OperationalError, ProgrammingError) as error:
            if not isinstance(error, CommandError) and "already exists" not in str(error):
                raise
            raise SettingsError(
                "the job store has a schema that this release of raygrid does not know: a newer release made it, or it "
                "is not a job store. Use that release, or another storage.database"
            ) from error
