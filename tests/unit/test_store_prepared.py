"""Statements that go to SQLite without SQLAlchemy's execution: the same values both ways, and known errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Boolean, Column, Connection, Integer, LargeBinary, MetaData, String, Table, bindparam, select
from sqlalchemy.dialects.sqlite import insert

from raygrid.errors import UnavailableError
from raygrid.store.prepared import PreparedStatement
from raygrid.store.sql_failures import translate_errors
from raygrid.store.sqlite import engine_for
from raygrid.store.tables import Instant

NOW = datetime(2026, 11, 26, 7, 30, 0, 123456, tzinfo=UTC)
metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("name", String(20), primary_key=True),
    Column("count", Integer),
    Column("at", Instant()),
    Column("data", LargeBinary()),
    Column("wanted", Boolean()),
)
THINGS: list[dict[str, Any]] = [
    {"name": "one", "count": 1, "at": NOW, "data": b"\0x", "wanted": True},
    {"name": "none", "count": None, "at": None, "data": None, "wanted": False},
]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = engine_for(tmp_path / "things.db", "BEGIN IMMEDIATE")
    with engine.connect() as opened, opened.begin():
        metadata.create_all(opened)
        yield opened
    engine.dispose()


def prepared(connection: Connection, statement: Any, *names: str) -> PreparedStatement:
    return PreparedStatement(statement, names, connection.dialect)


def test_written_values_are_read_by_sqlalchemy(connection: Connection) -> None:
    """Instants, bytes, booleans and None arrive as through SQLAlchemy."""
    statement = prepared(connection, insert(things).on_conflict_do_nothing(), *things.c.keys())
    assert statement.execute(connection, THINGS).rowcount == 2
    assert [dict(row._mapping) for row in connection.execute(select(things))] == THINGS


def test_values_of_sqlalchemy_are_read(connection: Connection) -> None:
    """Rows and single values are read as through SQLAlchemy."""
    connection.execute(insert(things), THINGS)
    by_name = prepared(connection, select(things).where(things.c.name == bindparam("wanted_name")), "wanted_name")
    for thing in THINGS:
        [row] = by_name.execute(connection, {"wanted_name": thing["name"]}).all()
        assert dict(zip(things.c.keys(), row, strict=True)) == thing
    at = prepared(connection, select(things.c.at).where(things.c.name == bindparam("wanted_name")), "wanted_name")
    assert at.execute(connection, {"wanted_name": "one"}).scalar_one() == NOW
    assert at.execute(connection, {"wanted_name": "nobody"}).scalar_one_or_none() is None


def test_constants_of_a_statement_need_not_be_given(connection: Connection) -> None:
    """A value that stands in the statement itself is bound with the others."""
    connection.execute(insert(things), THINGS)
    statement = things.update().where(things.c.name == bindparam("the_name"), things.c.count == 1).values(wanted=False)
    assert prepared(connection, statement, "the_name").execute(connection, {"the_name": "one"}).rowcount == 1
    assert list(connection.execute(select(things.c.wanted)).scalars()) == [False, False]


def test_a_database_that_is_locked_is_unavailable(tmp_path: Path) -> None:
    """The driver's own error, which is not wrapped, is treated like SQLAlchemy's."""
    with pytest.raises(UnavailableError, match="cannot be used now"), translate_errors():
        raise sqlite3.OperationalError("disk I/O error")
