"""Prepared statements for the hot path over SQLite: compiled once, then passed directly to the driver.

SQLAlchemy's caches, contexts and results cost several times what SQLite needs for a statement of one row. A statement
that is marked by `prepared` bypasses them, with the same type conversions. On PostgreSQL, where the network costs more,
the mark has no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar, cast

from sqlalchemy import Connection, Dialect, Select
from sqlalchemy.sql.dml import UpdateBase

_OPTION = "raygrid_prepared"

Statement: TypeAlias = Select[Any] | UpdateBase
Parameters: TypeAlias = Mapping[str, Any]
Marked = TypeVar("Marked", bound=Statement)


def prepared(statement: Marked) -> Marked:
    """Mark a statement to bypass SQLAlchemy's execution over SQLite."""
    return cast(Marked, statement.execution_options(**{_OPTION: True}))


def is_prepared(statement: Statement) -> bool:
    """Whether a statement is marked by `prepared`."""
    return _OPTION in statement.get_execution_options()


class Rows:
    """The result of a statement: plain tuples, by position."""

    def __init__(self, rows: Sequence[tuple[Any, ...]], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def all(self) -> Sequence[tuple[Any, ...]]:
        """All rows."""
        return self._rows

    def scalar_one(self) -> Any:
        """The only value of the only row."""
        [(value,)] = self._rows
        return value

    def scalar_one_or_none(self) -> Any:
        """The only value of the only row; None if there is no row."""
        return self.scalar_one() if self._rows else None


class PreparedStatement:
    """A compiled statement.

    Args:
        statement: the statement; it must have no expanding (list) parameter.
        names: the parameters that each execution gives.
        dialect: the database's dialect.
    """

    def __init__(self, statement: Statement, names: Sequence[str], dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(names))
        self._sql = str(compiled)
        places = compiled.positiontup or []
        self._constants = {name: value for name, value in compiled.params.items() if name not in names}
        self._get = itemgetter(*places, places[0])  # one more than needed, so that it always returns a tuple
        binds = compiled.binds
        self._to_database = _converters(
            [binds[place].type.dialect_impl(dialect).bind_processor(dialect) for place in places]
        )
        columns = list(statement.exported_columns)
        self._gives_rows = bool(columns)
        self._from_database = _converters(
            [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
        )

    def execute(self, connection: Connection, parameters: Parameters | Sequence[Parameters]) -> Rows:
        """Execute the statement for one set of parameters or for many.

        Raises:
            sqlite3.Error: the statement failed.
        """
        cursor = connection.connection.cursor()
        try:
            if isinstance(parameters, Mapping):
                cursor.execute(self._sql, self._row(parameters))
            else:
                cursor.executemany(self._sql, [self._row(each) for each in parameters])
            rows = cursor.fetchall() if self._gives_rows else []
            if self._from_database:
                rows = [_converted(row, self._from_database) for row in rows]
            return Rows(rows, cursor.rowcount)
        finally:
            cursor.close()

    def _row(self, parameters: Parameters) -> Sequence[Any]:
        row = self._get({**self._constants, **parameters} if self._constants else parameters)[:-1]
        return _converted(row, self._to_database) if self._to_database else row


def _converters(processors: Sequence[Callable[[Any], Any] | None]) -> list[tuple[int, Callable[[Any], Any]]]:
    return [(place, processor) for place, processor in enumerate(processors) if processor is not None]


def _converted(row: Sequence[Any], converters: Sequence[tuple[int, Callable[[Any], Any]]]) -> tuple[Any, ...]:
    converted = list(row)
    for place, convert in converters:
        converted[place] = convert(converted[place])
    return tuple(converted)
