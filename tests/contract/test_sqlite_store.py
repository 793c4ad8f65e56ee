"""What SQLite adds to the contract of job stores: sharing a file, durability, a schema made by migrations."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, event, inspect

from raygrid.core.attempt_counts import AttemptCounts
from raygrid.errors import SettingsError, UnavailableError
from raygrid.models import BlobSlice, JobSpec, JobState, JobUpdate, NewJob, SharedData
from raygrid.store import LockedError, SqlStore, migrations, sqlite
from raygrid.store.migrate import migrate
from raygrid.store.sqlite import prepare_file, run_blocking
from raygrid.store.tables import from_micros, metadata, to_micros
from tests.contract.closing import refuses_when_closed_under_load

AT = datetime(2026, 3, 1, tzinfo=UTC)


def new(job_id: str) -> NewJob:
    return NewJob(JobSpec(job_id, "p", "1", BlobSlice("", 0, 2, "d"), inline=b"{}"), "rack-a", "f")


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqlStore]:
    store = SqlStore(f"sqlite+aiosqlite:///{path}")
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def test_two_stores_on_one_file_lose_nothing(tmp_path: Path) -> None:
    """Two stores on one file, each with several callers, keep every job under its own revision."""
    async with opened(tmp_path / "jobs.db") as one, opened(tmp_path / "jobs.db") as two:

        async def write(store: SqlStore, name: str) -> None:
            for number in range(5):
                await store.insert([new(f"{name}-{number}-{i}") for i in range(3)], "b1")

        writers = [write(store, f"{label}{caller}") for label, store in (("x", one), ("y", two)) for caller in range(3)]
        await asyncio.gather(*writers)
        jobs = await one.jobs(limit=1_000)
        assert len(jobs) == 2 * 3 * 5 * 3
        assert len({job.revision for job in jobs}) == len(jobs)
        assert len(await two.changed("b1", 0, 1_000)) == len(jobs)


async def test_one_id_submitted_to_two_stores_at_once_is_created_once(tmp_path: Path) -> None:
    """Of two parents that insert the same jobs at the same time, exactly one creates each."""
    async with opened(tmp_path / "jobs.db") as one, opened(tmp_path / "jobs.db") as two:
        names = [f"j{number}" for number in range(20)]
        calls = [store.insert([new(name)]) for name in names for store in (one, two)]
        answers = [answer for [answer] in await asyncio.gather(*calls)]
        assert sum(answer.created for answer in answers) == len(names)
        assert [answer.conflict for answer in answers] == [False] * 40


async def test_a_reader_beside_two_writers_misses_nothing(tmp_path: Path) -> None:
    """Revisions become visible in their order: a reader that resumes above what it has seen gets every job."""
    async with opened(tmp_path / "jobs.db") as one, opened(tmp_path / "jobs.db") as two:
        await one.insert([], "b1")
        seen: dict[str, JobState] = {}
        written = asyncio.Event()

        async def read() -> None:
            cursor = 0
            while True:
                last_round = written.is_set()
                page = await two.changed("b1", cursor, 7)
                cursor = page[-1].cursor if page else cursor
                seen.update({change.job.job_id: change.job.state for change in page})
                if last_round and not page:
                    return

        async def write(store: SqlStore, name: str) -> None:
            for number in range(15):
                await store.insert([new(f"{name}{number}-{i}") for i in range(2)], "b1")

        reader = asyncio.create_task(read())
        await asyncio.gather(write(one, "x"), write(two, "y"))
        lease = await one.acquire_lease("rack-a", "me", 60)
        assert lease is not None
        ended = [JobUpdate(f"x{number}-0", JobState.DONE, AttemptCounts(1), "n1", AT) for number in range(15)]
        await asyncio.gather(*(one.record("rack-a", lease.term, [change]) for change in ended))
        written.set()
        await reader
        assert len(seen) == 60
        assert {job_id for job_id, state in seen.items() if state is JobState.DONE} == {c.job_id for c in ended}


async def test_two_candidates_at_once_get_one_lease(tmp_path: Path) -> None:
    """Of candidates in different processes that ask at the same time exactly one leads."""
    async with opened(tmp_path / "jobs.db") as one, opened(tmp_path / "jobs.db") as two:
        asked = [store.acquire_lease("rack-a", f"c{i}", 60) for i in range(5) for store in (one, two)]
        holders = {lease.holder for lease in await asyncio.gather(*asked) if lease is not None}
        assert len(holders) == 1


async def test_many_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Parents and leaders that start together do not disturb one another's migrations."""
    async with AsyncExitStack() as stack:
        path = tmp_path / "not" / "there" / "yet" / "jobs.db"
        stores = await asyncio.gather(*(stack.enter_async_context(opened(path)) for _ in range(4)))
        for number, store in enumerate(stores):
            await store.insert([new(f"j{number}")])
        assert len(await stores[0].jobs()) == 4


def test_switching_a_new_file_to_write_ahead_never_collides(tmp_path: Path) -> None:
    """Stores that prepare the same new file at the same instant all succeed (SQLite itself would refuse some)."""

    def prepare(numbered: tuple[int, threading.Barrier]) -> None:
        number, start = numbered
        start.wait(10)
        prepare_file(tmp_path / f"{number}.db")

    with ThreadPoolExecutor(4) as callers:
        for number in range(60):
            list(callers.map(prepare, [(number, threading.Barrier(4))] * 4))


def test_preparing_a_file_takes_no_lock_away_from_this_process(tmp_path: Path) -> None:
    """Closing a file drops all locks of the process on it: another one would remove the log that is still in use."""
    path = tmp_path / "jobs.db"
    prepare_file(path)
    with closing(sqlite3.connect(path)) as used:
        used.execute("CREATE TABLE t (x)")
        prepare_file(path)
        other = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT * FROM t').fetchall()"
        subprocess.run([sys.executable, "-c", other, path], check=True)
        assert (tmp_path / "jobs.db-wal").exists()


async def test_opening_waits_for_other_users_of_the_file(tmp_path: Path) -> None:
    """A file that another program reads in the old journal mode is opened as soon as it is released."""
    with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as reader:
        reader.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1); BEGIN; SELECT * FROM t;")
        reader.execute("SELECT * FROM t").fetchall()
        store = SqlStore(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}")
        opening = asyncio.create_task(store.open())
        done, _ = await asyncio.wait([opening], timeout=0.1)
        assert not done
        reader.execute("COMMIT")
        await opening
    assert await store.get([]) == {}
    await store.close()


async def test_written_data_is_there_after_reopening(tmp_path: Path) -> None:
    """Jobs, batches, names, leases and the revision continue."""
    async with opened(tmp_path / "jobs.db") as store:
        await store.insert([new("a")], "b1")
        lease = await store.acquire_lease("rack-a", "me", 60)
        assert lease is not None
        await store.record("rack-a", lease.term, [JobUpdate("a", JobState.RUNNING, AttemptCounts(1), "n1", AT)])
        await store.put_data(SharedData("market", "d", 1))
        before = (await store.get(["a"]), await store.batch("b1"), await store.get_data())
    async with opened(tmp_path / "jobs.db") as store:
        assert (await store.get(["a"]), await store.batch("b1"), await store.get_data()) == before
        assert await store.acquire_lease("rack-a", "you", 60) is None
        await store.insert([new("b")])
        assert (await store.get(["b"]))["b"].revision > before[0]["a"].revision


async def test_a_call_that_fails_writes_nothing(tmp_path: Path) -> None:
    """A write is one transaction: when it fails, its jobs, its batch and its revisions are as before."""
    async with opened(tmp_path / "jobs.db") as store:
        broken = NewJob(new("b").spec, "rack-a", fingerprint=None)  # type: ignore[arg-type]  # the database refuses it
        with pytest.raises(Exception, match="NOT NULL"):
            await store.insert([new("a"), broken], "b1")
        assert await store.get(["a", "b"]) == {}
        assert await store.batch("b1") is None
        await store.insert([new("a")])
        assert (await store.get(["a"]))["a"].revision == 1


async def test_a_commit_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    """Connections sync each commit (synchronous=FULL is 2) and write ahead: acknowledged jobs last."""
    async with opened(tmp_path / "jobs.db") as store, store.database.write() as connection:
        assert (await connection.exec_driver_sql("PRAGMA synchronous")).scalar_one() == 2
        assert (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar_one() == "wal"


def downgrade(path: Path, revision: str) -> None:
    """Undo the migrations after a revision, whichever there are."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    scripts = ScriptDirectory.from_config(config)
    engine = create_engine(f"sqlite:///{path}")
    with (
        engine.begin() as connection,
        EnvironmentContext(
            config, scripts, fn=lambda current, _: scripts._downgrade_revs(revision, current), destination_rev=revision
        ) as environment,
    ):
        environment.configure(connection=connection, transactional_ddl=True)
        environment.run_migrations()
    engine.dispose()


async def test_batches_of_an_older_release_keep_the_order_in_which_their_jobs_arrived(tmp_path: Path) -> None:
    """Their jobs were written in the order of submission; the ids do not show it."""
    async with opened(tmp_path / "jobs.db") as store:
        await store.insert([new("t10"), new("t9"), new("t1")], "b1")
    downgrade(tmp_path / "jobs.db", "0006")
    async with opened(tmp_path / "jobs.db") as store:
        assert [job.job_id for job in await store.jobs(batch_id="b1")] == ["t10", "t9", "t1"]
        await store.insert([new("a")], "b1")
        assert [job.job_id for job in await store.jobs(batch_id="b1")] == ["t10", "t9", "t1", "a"]


def test_migrations_make_exactly_the_tables(tmp_path: Path) -> None:
    """After all migrations Alembic finds no difference in tables, columns, types or nullability."""

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    engine = create_engine(f"sqlite:///{tmp_path / 'jobs.db'}")
    with engine.begin() as connection:
        migrate(connection)
        assert differences(connection) == []
    engine.dispose()


def test_migrations_make_exactly_the_indexes(tmp_path: Path) -> None:
    """Indexes as the database made them are those of `tables.py`, direction of each column included."""

    def indexes(name: str, *, migrated: bool) -> dict[str, str]:
        engine = create_engine(f"sqlite:///{tmp_path / name}")
        with engine.begin() as connection:
            if migrated:
                migrate(connection)
            else:
                metadata.create_all(connection)
            rows = connection.exec_driver_sql(
                "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql NOT NULL"
            )
            found = {name: " ".join(sql.split()) for name, sql in rows}
            tables = set(inspect(connection).get_table_names()) - {"alembic_version"}
        engine.dispose()
        assert tables == set(metadata.tables)
        return found

    made = indexes("migrated.db", migrated=True)
    assert made == indexes("created.db", migrated=False)
    assert "priority DESC" in made["jobs_by_turn"]


async def test_results_are_found_through_their_index(tmp_path: Path) -> None:
    """A search for reusable results reads one entry of the index for each, however many jobs there are."""
    async with opened(tmp_path / "jobs.db") as store:
        plans: list[str] = []

        def explain(
            connection: Connection, _cursor: object, statement: str, given: tuple[object, ...], *_: object
        ) -> None:
            if "json_each" in statement and not statement.startswith("EXPLAIN"):
                plans.extend(
                    str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)
                )

        assert store.database._reads is not None
        event.listen(store.database._reads, "before_cursor_execute", explain)
        await store.reusable(["c1", "c2"])
    assert [plan for plan in plans if "jobs" in plan] == ["SEARCH jobs USING INDEX jobs_by_content (content=?)"]
    assert not any("TEMP B-TREE" in plan for plan in plans)


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    """A schema that is up to date is left alone, rows included."""
    engine = create_engine(f"sqlite:///{tmp_path / 'jobs.db'}")
    for _ in range(2):
        with engine.begin() as connection:
            migrate(connection)
            assert connection.exec_driver_sql("SELECT count(*) FROM revisions").scalar_one() == 1
    engine.dispose()


@pytest.mark.parametrize("change", ["UPDATE alembic_version SET version_num = '9999'", "DROP TABLE alembic_version"])
def test_a_schema_of_another_release_is_refused_with_the_remedy(tmp_path: Path, change: str) -> None:
    """Neither is it changed, nor does the error speak of migrations."""
    engine = create_engine(f"sqlite:///{tmp_path / 'jobs.db'}")
    with engine.begin() as connection:
        migrate(connection)
        connection.exec_driver_sql(change)
    with engine.connect() as connection, pytest.raises(SettingsError, match=r"does not know.*Use that release"):
        migrate(connection)
    engine.dispose()


def test_a_current_schema_is_opened_without_alembic(tmp_path: Path) -> None:
    """Importing it takes longer than all else that opens a store."""
    engine = create_engine(f"sqlite:///{tmp_path / 'jobs.db'}")
    with engine.begin() as connection:
        migrate(connection)
    engine.dispose()
    program = (
        "import sys; from sqlalchemy import create_engine; from raygrid.store.migrate import migrate\n"
        f"with create_engine('sqlite:///{tmp_path / 'jobs.db'}').begin() as connection: migrate(connection)\n"
        "print('alembic' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert printed.stdout == "False\n"


@given(st.datetimes(datetime(1980, 1, 1), datetime(2200, 1, 1)))
def test_instants_come_back_to_the_microsecond(naive: datetime) -> None:
    """An instant survives the store exactly, and later ones have larger numbers."""
    instant = naive.replace(tzinfo=UTC)
    assert from_micros(to_micros(instant)) == instant
    assert to_micros(instant + timedelta(microseconds=1)) == to_micros(instant) + 1


async def test_a_transaction_that_waits_for_anything_else_is_a_mistake() -> None:
    """Over SQLite the store's coroutines run as functions: one that would wait for a loop is refused, and ended."""
    ended = []

    async def waits() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            ended.append(True)

    with pytest.raises(RuntimeError, match="waited inside a SQLite transaction"):
        run_blocking(waits())
    assert ended == [True]


async def test_the_loop_is_free_while_the_database_is_busy(tmp_path: Path) -> None:
    """A write that waits for another process's lock delays nothing else: reads and timers go on."""
    async with opened(tmp_path / "jobs.db") as store:
        with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            write = asyncio.ensure_future(store.insert([new("a")]))
            for _ in range(5):
                assert await store.get(["a"]) == {}
            assert not write.done()
            other.execute("COMMIT")
        assert [each.created for each in await write] == [True]


async def test_a_write_that_was_given_up_blocks_no_other(tmp_path: Path) -> None:
    """However many writes are given up halfway, another process gets SQLite's write lock in its turn."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}"
    mine, other = SqlStore(url), SqlStore(url)
    await mine.open()
    await other.open()

    async def give_up(number: int) -> None:
        write = asyncio.ensure_future(mine.insert([new(f"job-{number}")]))
        busy = asyncio.ensure_future(other.put_drain(f"node-{number}"))
        await asyncio.sleep(0.001 * (7 * number % 30))
        write.cancel()
        await asyncio.gather(write, busy, return_exceptions=True)

    try:
        async with asyncio.timeout(25):
            for start in range(0, 320, 20):
                await asyncio.gather(*(give_up(start + each) for each in range(20)))
            assert await other.acquire_lease("rack-a", "me", 3) is not None
    finally:
        await mine.close()
        await other.close()


async def test_a_store_that_closes_under_load_refuses_as_unavailable(tmp_path: Path) -> None:
    """Each call is carried out or refused as unavailable, which makes a client try elsewhere; none fails otherwise."""
    await refuses_when_closed_under_load(SqlStore(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}"))


async def test_nothing_is_written_into_a_file_that_was_removed(tmp_path: Path) -> None:
    """SQLite would go on in the removed file, and all of that be lost; once it is put back, work goes on."""
    path, aside = tmp_path / "jobs.db", tmp_path / "aside.db"
    async with opened(path) as store:
        await store.insert([new("j1")])
        path.rename(aside)
        for call in (store.insert([new("j2")]), store.probe()):
            with pytest.raises(UnavailableError, match=r"jobs\.db was removed or replaced.*put it back"):
                await call
        path.touch()
        with pytest.raises(UnavailableError, match=r"jobs\.db was removed or replaced"):
            await store.insert([new("j2")])
        aside.rename(path)
        await store.probe()
        await store.insert([new("j2")])
        assert {job.job_id for job in await store.jobs()} == {"j1", "j2"}


async def test_a_file_that_others_write_for_long_is_locked_and_not_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe distinguishes a slow moment from a store that is of no use."""
    monkeypatch.setattr(sqlite, "BUSY_S", 0.05)
    async with opened(tmp_path / "jobs.db") as store:
        with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LockedError):
                await store.probe()
        await store.probe()
