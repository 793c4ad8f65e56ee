"""What PostgreSQL adds to the contract of job stores: many processes at once, and a server that goes away."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from raygrid.core.attempt_counts import AttemptCounts
from raygrid.errors import SettingsError, StaleTermError, UnavailableError
from raygrid.models import (
    AttemptId,
    AttemptReport,
    BlobSlice,
    JobSpec,
    JobState,
    JobUpdate,
    NewJob,
    Outcome,
    SharedData,
)
from raygrid.store import SqlStore, postgresql
from raygrid.store.sql_revisions import next_revisions
from raygrid.store.tables import metadata
from tests.contract.closing import refuses_when_closed_under_load
from tests.support.postgres import PASSWORD, Postgres

AT = datetime(2026, 3, 1, tzinfo=UTC)


def new(job_id: str, group: str = "rack-a") -> NewJob:
    return NewJob(JobSpec(job_id, "p", "1", BlobSlice("", 0, 2, "d"), inline=b"{}"), group, "f")


def done(job_id: str, key: str = "results/1") -> JobUpdate:
    report = AttemptReport(AttemptId(job_id, 1), Outcome.EXITED, 0, result=BlobSlice(key, 0, 9, "r"))
    return JobUpdate(job_id, JobState.DONE, AttemptCounts(1), "n1", AT, report=report)


async def ran(store: SqlStore) -> None:
    """The job `ran` has left a result that may be reused."""
    await store.insert([new("ran")])
    lease = await store.acquire_lease("rack-a", "me", 60)
    assert lease is not None
    update = done("ran")
    assert update.report is not None
    await store.record("rack-a", lease.term, [replace(update, report=replace(update.report, content="c"))])


def running(job_id: str) -> JobUpdate:
    return JobUpdate(job_id, JobState.RUNNING, AttemptCounts(1), "n1", AT)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[SqlStore]:
    store = SqlStore(url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(database: str) -> AsyncIterator[SqlStore]:
    async with opened(database) as store:
        yield store


@pytest.fixture
async def other(store: SqlStore, database: str) -> AsyncIterator[SqlStore]:
    async with opened(database) as other:
        yield other


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can wait for."""
    monkeypatch.setattr(postgresql, "CALL_S", 1.0)
    monkeypatch.setattr(postgresql, "CONNECT_S", 1.0)
    monkeypatch.setattr(postgresql, "IDLE_S", 1.0)


# --- the schema -----------------------------------------------------------------------------------------------------


async def test_many_processes_may_open_an_empty_database_at_once(database: str) -> None:
    """Parents and leaders that start together on an empty database make its tables once, and all begin to work."""
    async with AsyncExitStack() as stack:
        stores = await asyncio.gather(*(stack.enter_async_context(opened(database)) for _ in range(5)))
        for number, store in enumerate(stores):
            await store.insert([new(f"j{number}")])
        assert len(await stores[0].jobs()) == 5


async def test_migrations_make_exactly_the_tables_and_indexes(
    store: SqlStore, postgres: Postgres, database: str
) -> None:
    """After all migrations the database has the tables of `tables.py`, and the indexes that it would make itself."""

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    def made(url: str) -> str:
        listed = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        return postgres.sql(f"{listed} ORDER BY indexdef", urlsplit(url).path[1:])

    async with store.database.write() as connection:
        assert await connection.run_sync(differences) == []
    with postgres.database() as plain:
        engine = postgresql.create_engine(plain)
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        await engine.dispose()
        assert made(database) == made(plain)


async def test_two_purges_at_once_take_each_job_once(store: SqlStore, other: SqlStore) -> None:
    """Parents that clean up at the same time neither wait for each other for good nor count a job twice."""
    names = [f"j{number}" for number in range(200)]
    await store.insert([new(name) for name in names])
    lease = await store.acquire_lease("rack-a", "me", 60)
    assert lease is not None
    await store.record("rack-a", lease.term, [done(name, f"results/{name}") for name in names])
    purged = 0
    while purged < 200:
        rounds = await asyncio.gather(*(each.purge(AT + timedelta(days=1), 30) for each in (store, other)))
        assert any(each.jobs for each in rounds)
        purged += sum(each.jobs for each in rounds)
    assert purged == 200


async def test_a_purge_skips_a_result_that_is_being_taken_over(
    store: SqlStore, other: SqlStore, postgres: Postgres
) -> None:
    """While a job that shares a result is not committed yet, the result's job is not purged, nor its blob removed."""
    await ran(store)
    async with other.database.write() as waited_for:
        await waited_for.execute(text("INSERT INTO batches (batch_id, submitted_at) VALUES ('b1', 0)"))
        # By then it has written its row, and waits for the other one's batch.
        inserting = asyncio.create_task(store.insert([replace(new("j2"), source="ran")], "b1"))
        await until_waiting(postgres)
        purged = await other.purge(AT + timedelta(days=1))
    [answer] = await inserting
    assert (purged.jobs, purged.blob_keys) == (0, ())
    assert answer.reused_from == "ran"
    assert (await other.purge(AT + timedelta(days=1))).blob_keys == ()
    assert await store.blobs_in_use(["results/1"]) == {"results/1"}


async def test_a_job_does_not_take_over_a_result_that_is_being_purged(store: SqlStore, other: SqlStore) -> None:
    """While a purge is not committed yet, a job that would share a result of it is queued, and waits for nothing."""
    await ran(store)
    async with other.database.write() as purging:
        await purging.execute(text("SELECT 1 FROM jobs WHERE job_id = 'ran' FOR UPDATE"))
        await purging.execute(text("UPDATE jobs SET purged_at = 1 WHERE job_id = 'ran'"))
        [answer] = await store.insert([replace(new("j2"), source="ran")])
    assert (answer.created, answer.reused_from) == (True, None)
    assert (await store.get(["j2"]))["j2"].state is JobState.QUEUED


# --- many writers ---------------------------------------------------------------------------------------------------


async def test_a_reader_beside_four_writers_misses_nothing(database: str) -> None:
    """A reader that resumes above the revisions that it has seen gets every job, though four processes commit."""
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(opened(database)) for _ in range(4)]
        await stores[0].insert([], "b1")
        seen: list[str] = []
        written = asyncio.Event()

        async def read() -> None:
            cursor = 0
            while True:
                last_round = written.is_set()
                page = await stores[0].changed("b1", cursor, 7)
                cursor = page[-1].cursor if page else cursor
                seen.extend(change.job.job_id for change in page)
                if last_round and not page:
                    return

        async def write(number: int, caller: int) -> None:
            for turn in range(25):
                await stores[number].insert([new(f"{number}-{caller}-{turn}-{i}") for i in range(3)], "b1")

        reader = asyncio.create_task(read())
        await asyncio.gather(*(write(number, caller) for number in range(4) for caller in range(2)))
        written.set()
        await reader
        assert len(seen) == len(set(seen)) == 4 * 2 * 25 * 3
        jobs = (await stores[0].get(seen)).values()
        assert sorted(job.revision for job in jobs)[-1] - min(job.revision for job in jobs) == len(seen) - 1


async def test_one_id_submitted_to_two_stores_at_once_is_created_once(store: SqlStore, other: SqlStore) -> None:
    """Of two parents that insert the same jobs at the same time, exactly one creates each."""
    names = [f"j{number}" for number in range(40)]
    calls = [each.insert([new(name)]) for name in names for each in (store, other)]
    answers = [answer for [answer] in await asyncio.gather(*calls)]
    assert sum(answer.created for answer in answers) == len(names)
    assert not any(answer.conflict for answer in answers)


async def test_two_candidates_at_once_get_one_lease(store: SqlStore, other: SqlStore) -> None:
    """Of candidates in different processes that ask at the same time exactly one leads."""
    for group in (f"rack-{turn}" for turn in range(10)):
        first = await store.acquire_lease(group, "first", 60)
        assert first is not None
        await store.release_lease(first)
        asked = [each.acquire_lease(group, f"c{i}", 60) for i in range(4) for each in (store, other)]
        leases = [lease for lease in await asyncio.gather(*asked) if lease is not None]
        assert len({lease.holder for lease in leases}) == 1
        assert {lease.term for lease in leases} == {first.term + 1}


async def test_a_write_that_races_with_a_new_lease_is_whole_before_it_or_refused(
    store: SqlStore, other: SqlStore
) -> None:
    """Once another leads, no write of the earlier leader appears any more, however close they were."""
    for turn in range(25):
        group, names = f"rack-{turn}", [f"{turn}-{i}" for i in range(5)]
        await store.insert([new(name, group) for name in names])
        lease = await store.acquire_lease(group, "old", 60)
        assert lease is not None
        await store.release_lease(lease)

        async def take_over(group: str = group, names: list[str] = names) -> list[JobState]:
            assert await other.acquire_lease(group, "new", 60) is not None
            return [job.state for job in (await other.get(names)).values()]

        writing = store.record(group, lease.term, [done(name) for name in names])
        outcome, states = await asyncio.gather(writing, take_over(), return_exceptions=True)
        assert isinstance(outcome, StaleTermError | bool)
        refused = isinstance(outcome, StaleTermError)
        assert isinstance(states, list)
        after = [job.state for job in (await other.get(names)).values()]
        assert states == after == [JobState.QUEUED if refused else JobState.DONE] * 5
        with pytest.raises(StaleTermError):
            await store.record(group, lease.term, [done(names[0])])


async def test_a_write_waits_for_a_lease_that_is_being_taken_and_is_then_refused(
    store: SqlStore, other: SqlStore
) -> None:
    """A stale leader whose write arrives while its successor's lease is not committed yet writes nothing."""
    await store.insert([new("j1")])
    lease = await store.acquire_lease("rack-a", "old", 60)
    assert lease is not None
    async with other.database.write() as taking:
        await taking.execute(text("SELECT 1 FROM leases WHERE group_id = 'rack-a' FOR UPDATE"))
        writing = asyncio.create_task(store.record("rack-a", lease.term, [done("j1")]))
        finished, _ = await asyncio.wait([writing], timeout=0.3)
        assert not finished
        await taking.execute(text("UPDATE leases SET term = term + 1, holder = 'new' WHERE group_id = 'rack-a'"))
    with pytest.raises(StaleTermError):
        await writing
    assert (await store.get(["j1"]))["j1"].state is JobState.QUEUED


async def test_stores_that_work_at_once_never_block_each_other(database: str) -> None:
    """Submits, cancels, leaders' writes, purges and small tables from four stores for a while: no error."""
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(opened(database)) for _ in range(4)]
        ends_at = time.monotonic() + 3
        calls = 0

        def block() -> list[str]:
            """The jobs that all writers work on in this moment."""
            return [f"{time.monotonic() * 5:.0f}-{i}" for i in range(10)]

        async def over_and_over(call: Callable[[int], Awaitable[Any]]) -> None:
            nonlocal calls
            turn = 0
            while time.monotonic() < ends_at or calls < 100:  # however slow the machine is: enough to compete
                await call(turn)
                turn += 1
                calls += 1

        async def lead(number: int, store: SqlStore) -> None:
            lease = await store.acquire_lease("rack-a", f"c{number}", 0.05)
            if lease is not None:
                with suppress(StaleTermError):
                    await store.record("rack-a", lease.term, [running(name) for name in reversed(block())])
                    await store.record("rack-a", lease.term, [done(name) for name in block()[:5]])

        def callers(number: int, store: SqlStore) -> list[Awaitable[None]]:
            return [
                over_and_over(lambda turn: store.insert([new(name) for name in block()], f"b{turn % 3}")),
                over_and_over(lambda turn: store.insert([new(name) for name in reversed(block())], f"b{turn % 3}")),
                over_and_over(lambda turn: store.request_cancel(block()[:: 1 if turn % 2 else -1])),
                over_and_over(lambda turn: store.purge(AT + timedelta(days=1), 20)),
                over_and_over(lambda turn: store.put_drain(f"n{turn % 3}", 1.0)),
                over_and_over(lambda turn: store.put_data(SharedData(f"d{turn % 3}", "d", turn))),
                over_and_over(lambda turn: store.agree(f"a{turn}", f"from {number}")),
                over_and_over(lambda turn: lead(number, store)),
            ]

        await asyncio.gather(*(each for number, store in enumerate(stores) for each in callers(number, store)))
        assert calls >= 100


# --- a server that goes away ----------------------------------------------------------------------------------------


async def test_the_server_may_go_and_come_back(store: SqlStore, postgres: Postgres) -> None:
    """Calls meanwhile fail as unavailable, at once; afterwards the same store works, with all that was committed."""
    await store.insert([new("before")], "b1")
    try:
        await asyncio.to_thread(postgres.kill)
        for call in (store.insert([new("j1")]), store.get(["before"]), store.acquire_lease("rack-a", "me", 3)):
            began = time.monotonic()
            with pytest.raises(UnavailableError, match="job store cannot be used now") as caught:
                await call
            assert time.monotonic() - began < 2
            assert caught.value.retry_after_s > 0
    finally:
        await asyncio.to_thread(postgres.start)
    [answer] = await store.insert([new("before")], "b1")
    assert not answer.created
    assert (await store.insert([new("after")]))[0].created


async def test_connections_that_the_server_dropped_cost_no_call(store: SqlStore, postgres: Postgres) -> None:
    """After a restart without a pending call, the first calls succeed: closed connections are not used."""
    await asyncio.gather(*(store.insert([new(f"j{i}")]) for i in range(8)), *(store.get(["j0"]) for _ in range(8)))
    await asyncio.to_thread(postgres.restart)
    found = await asyncio.gather(*(store.get(["j0"]) for _ in range(8)))
    assert all(each["j0"].job_id == "j0" for each in found)
    assert (await store.insert([new("after")]))[0].created


async def test_a_call_that_the_server_dies_in_is_unavailable(
    store: SqlStore, other: SqlStore, postgres: Postgres
) -> None:
    """A write that waits in the server when it dies fails as unavailable and is not committed."""

    async def die_meanwhile() -> None:
        async with other.database.write() as holder:
            await next_revisions(holder, 1)
            waiting = asyncio.create_task(store.insert([new("j1")]))
            await until_waiting(postgres)
            await asyncio.to_thread(postgres.stop)
            with pytest.raises(UnavailableError):
                await waiting
            await holder.execute(text("SELECT 1"))

    try:
        with pytest.raises(UnavailableError):
            await die_meanwhile()
    finally:
        await asyncio.to_thread(postgres.start)
    assert await store.get(["j1"]) == {}


@pytest.mark.parametrize("end", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_a_call_that_is_ended_in_the_server_may_be_tried_again(
    store: SqlStore, other: SqlStore, postgres: Postgres, end: str
) -> None:
    """What ops or a timeout cancel in the server fails as unavailable, and goes through the next time."""
    async with other.database.write() as holder:
        await next_revisions(holder, 1)
        waiting = asyncio.create_task(store.insert([new("j1")]))
        await until_waiting(postgres)
        waits = "wait_event_type = 'Lock' AND backend_type = 'client backend'"
        await asyncio.to_thread(postgres.sql, f"SELECT {end}(pid) FROM pg_stat_activity WHERE {waits}")  # noqa: S608 - of the test's own parameters
        with pytest.raises(UnavailableError):
            await waiting
    assert (await store.insert([new("j1")]))[0].created


async def until_waiting(postgres: Postgres, count: int = 1) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'raygrid' AND wait_event_type = 'Lock'"
    deadline = time.monotonic() + 60
    while await asyncio.to_thread(postgres.sql, waiting) != str(count):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@pytest.mark.usefixtures("hurried")
async def test_a_server_that_does_not_answer_holds_no_call_for_long(database: str, postgres: Postgres) -> None:
    """While every process of the server is frozen, calls on open and on new connections end as unavailable."""
    async with opened(database) as store:
        await store.insert([new("before")])
        with postgres.frozen():
            began = time.monotonic()
            calls = [store.insert([new(f"j{i}")]) for i in range(6)] + [store.get(["before"]) for _ in range(6)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(each) for each in outcomes] == [UnavailableError] * 12
            assert time.monotonic() - began < 12
        assert (await store.insert([new("after")]))[0].created


async def test_a_call_on_a_frozen_server_can_be_given_up_at_once(store: SqlStore, postgres: Postgres) -> None:
    """A candidate that stops waiting for its lease is free to step down: cancelling waits for no server."""
    await store.acquire_lease("rack-a", "me", 60)
    with postgres.frozen():
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await store.acquire_lease("rack-a", "me", 60)
        assert time.monotonic() - began < 1
    assert await store.acquire_lease("rack-a", "me", 60) is not None


@pytest.mark.usefixtures("hurried")
async def test_a_process_that_stops_in_a_transaction_blocks_no_other(database: str) -> None:
    """Locks that all writers need are taken from a process that froze while it held them."""
    async with opened(database) as frozen, opened(database) as store:

        async def freeze_with_locks() -> None:
            async with frozen.database.write(60) as connection:
                await next_revisions(connection, 1)
                deadline = time.monotonic() + 10
                while not await inserted(store):
                    assert time.monotonic() < deadline
                await next_revisions(connection, 1)

        with pytest.raises(UnavailableError):
            await freeze_with_locks()
        assert (await store.get(["j1"]))["j1"].state is JobState.QUEUED


async def test_a_frozen_process_with_writes_in_the_queue_blocks_once(
    database: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes that wait for the locks of a frozen one, and are frozen too, do not each hold them for its time."""
    monkeypatch.setattr(postgresql, "IDLE_S", frozen_s := 8.0)
    monkeypatch.setattr(postgresql, "LOCK_S", 2.0)  # far less, because on a busy machine some begin to wait late
    async with opened(database) as frozen, opened(database) as store:

        async def freeze_with_locks() -> None:
            async with frozen.database.write() as connection:
                await next_revisions(connection, 1)
                await asyncio.sleep(60)

        freezing = [asyncio.create_task(freeze_with_locks()) for _ in range(postgresql.WRITERS)]
        await until_waiting(postgres, postgresql.WRITERS - 1)
        began = time.monotonic()
        await store.insert([new("j1")])
        assert time.monotonic() - began < 2 * frozen_s
        for task in freezing:
            task.cancel()
        await asyncio.wait(freezing)


async def test_a_write_that_is_given_up_is_completed_nevertheless(store: SqlStore, other: SqlStore) -> None:
    """A later call under the same id finds the job; nothing is done, or connected, a second time."""
    async with other.database.write() as connection:
        await next_revisions(connection, 1)
        writing = asyncio.create_task(store.insert([new("j1")]))
        await asyncio.sleep(0.2)
        writing.cancel()
        await asyncio.wait([writing])
        assert writing.cancelled()
    deadline = time.monotonic() + 10
    while not await store.get(["j1"]):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def inserted(store: SqlStore) -> bool:
    with suppress(UnavailableError):
        await store.insert([new("j1")])
        return True
    return False


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg"])
@pytest.mark.parametrize("query", ["", "?sslmode=disable", "?sslmode=prefer", "?ssl=prefer", "?connect_timeout=5"])
async def test_every_common_form_of_the_url_is_accepted(postgres: Postgres, scheme: str, query: str) -> None:
    """Schemes and parameters that users know from libpq and SQLAlchemy open the same database."""
    with postgres.database() as url:
        async with opened(scheme + url.removeprefix("postgresql") + query) as store:
            await store.insert([new("j1")])
            assert not store.is_single_machine
            named = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'raygrid'"
            assert int(await asyncio.to_thread(postgres.sql, named)) >= 1


async def test_the_url_wins(postgres: Postgres, database: str) -> None:
    """An application name in the URL is the one that the server sees."""
    async with opened(f"{database}?application_name=desk-7"):
        assert postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'desk-7'") == "1"


WRONG: dict[str, tuple[Callable[[str], str], type[Exception], str]] = {
    "password": (lambda url: url.replace("%2Fp", "x"), SettingsError, "password authentication failed"),
    "user": (lambda url: url.replace("raygrid:", "nobody:"), SettingsError, 'user "nobody"'),
    "database": (lambda url: url.replace("/test_", "/no_such_"), SettingsError, "does not exist"),
    "parameter": (lambda url: f"{url}?nonsense=1", SettingsError, "nonsense"),
    "sslmode": (lambda url: f"{url}?sslmode=nonsense", SettingsError, "sslmode"),
    "no ssl there": (lambda url: f"{url}?sslmode=require", UnavailableError, "SSL"),
    "port": (lambda url: url.replace(f":{urlsplit(url).port}", ":1"), UnavailableError, "Connect call failed"),
    "bare slash": (lambda url: url.replace("%2F", "/"), SettingsError, "%2F"),
    "bare at": (lambda url: url.replace("%40", "@"), SettingsError, "%40"),
    "bare hash": (lambda url: url.replace("%40", "#"), SettingsError, "percent-encoded"),
    "scheme": (lambda url: url.replace("postgresql", "mysql"), SettingsError, "postgresql://"),
}


@pytest.mark.parametrize("mistake", WRONG)
async def test_a_mistake_in_the_url_is_explained_without_the_password(
    database: str, mistake: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each refusal names the mistake; neither it, nor its causes, nor the log contains the password."""
    spoil, error, fragment = WRONG[mistake]
    caplog.set_level(logging.DEBUG)
    with pytest.raises(error) as caught:
        await SqlStore(spoil(database)).open()
    assert fragment in str(caught.value)
    reported = [caplog.text, *(repr(each) + str(each) for each in chain(caught.value))]
    assert not any(secret in part for part in reported for secret in ("s3cret", PASSWORD, "p%40ss"))


def chain(error: BaseException) -> list[BaseException]:
    """An error, what it was raised from, and so on."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return [error, *(chain(before) if before else [])]


async def test_values_of_jobs_are_not_in_errors(store: SqlStore) -> None:
    """The message of a failed statement does not quote the values that were to be written."""
    spec = JobSpec("hush-hush", "p", "1", BlobSlice("", 0, 2, "d"))
    with pytest.raises(Exception, match="null value") as caught:
        await store.insert([NewJob(spec, "rack-a", fingerprint=None)])  # type: ignore[arg-type]  # the database refuses it
    assert "hush-hush" not in str(caught.value)


async def test_a_missing_driver_is_named(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without asyncpg the message names the package to install."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(SettingsError, match=r"pip install 'raygrid\[postgres\]'"):
        await SqlStore(database).open()


def test_a_password_in_a_url_is_decoded(postgres: Postgres) -> None:
    """The URLs of these tests carry a password with characters that mean something in URLs."""
    assert unquote(urlsplit(postgres.url()).password or "") == PASSWORD


async def test_a_store_that_closes_under_load_refuses_as_unavailable(database: str) -> None:
    """Each call is carried out or refused as unavailable, which makes a client try elsewhere; none fails otherwise."""
    await refuses_when_closed_under_load(SqlStore(database))
