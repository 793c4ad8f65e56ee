"""What every job store guarantees about definitions of pricers: what jobs run, kept once under a digest."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from raygrid.models import Definition
from raygrid.store import JobStore
from tests.contract.test_job_store import AT, done, lead, new, one, store

__all__ = ["store"]

OLD = Definition("d1", '{"command": ["old"]}', '{"timeout_s": 1}')
NEW = Definition("d2", '{"command": ["new"]}', '{"timeout_s": 2}')
LATER = timedelta(hours=1)


async def test_definitions_are_found_by_their_digests(store: JobStore) -> None:
    """What was put is given back whole; a digest that was never put is left out."""
    await store.put_definitions([OLD, NEW])
    assert await store.definitions(["d2", "d3", "d1"]) == {"d1": OLD, "d2": NEW}
    assert await store.definitions([]) == {}


async def test_a_definition_put_again_gets_the_new_limits(store: JobStore) -> None:
    """What runs is unchanged; the limits are those last put."""
    await store.put_definitions([OLD])
    await store.put_definitions([replace(OLD, limits="{}")])
    assert await store.definitions(["d1"]) == {"d1": replace(OLD, limits="{}")}


async def test_a_job_keeps_the_definition_that_it_was_submitted_with(store: JobStore) -> None:
    """Each way to read a job gives its definition; the same job again changes nothing."""
    await store.insert([new("j1", definition="d1"), new("j2")])
    await store.insert([new("j1", definition="d2")])
    assert (await one(store, "j1")).definition == "d1"
    queued = {job.spec.job_id: job.spec.definition for job in await store.queued("rack-a", 10)}
    assert queued == {"j1": "d1", "j2": ""}
    moved = await store.move("rack-a", {"j1": "rack-b"})
    assert moved["rack-b"][0].spec.definition == "d1"
    assert (await store.unfinished_of("rack-b", ["j1"]))[0].spec.definition == "d1"


async def test_a_job_of_an_older_release_has_no_definition(store: JobStore) -> None:
    """Its definition is None."""
    await store.insert([new("j1")])
    assert (await one(store, "j1")).definition == ""


async def test_definitions_that_no_unfinished_job_runs_are_removed(store: JobStore) -> None:
    """A definition that a queued job runs stays, however old it is; after the job's end it is removed."""
    await store.put_definitions([OLD, NEW])
    await store.insert([new("j1", definition="d1"), new("j2", definition="d2")])
    lease = await lead(store)
    await store.record("rack-a", lease.term, [done("j2")])
    soon = datetime.now(UTC) + LATER
    assert await store.purge_definitions(soon) == 1
    assert set(await store.definitions(["d1", "d2"])) == {"d1"}
    await store.record("rack-a", lease.term, [done("j1")])
    assert await store.purge_definitions(soon) == 1
    assert await store.definitions(["d1", "d2"]) == {}


async def test_definitions_that_were_put_lately_stay(store: JobStore) -> None:
    """A parent may have put one for a job that it is about to insert; putting it again keeps it for longer."""
    await store.put_definitions([OLD])
    before = datetime.now(UTC) - LATER
    assert await store.purge_definitions(before) == 0
    assert await store.purge_definitions(AT) == 0
    assert await store.definitions(["d1"]) == {"d1": OLD}


async def test_a_definition_does_not_show_its_values() -> None:
    """Its text has the digest only, because it may contain secrets."""
    assert "old" not in repr(OLD)
    assert "timeout" not in repr(OLD)
