"""What every job store guarantees about owners, shared data of owners, and API keys."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from raygrid.core.access import Caller, KeyLimits, Role, StoredKey, digest_of, new_key
from raygrid.errors import ConflictError, InvalidRequestError, UnavailableError
from raygrid.models import NewJob, SharedData
from raygrid.store import JobStore
from tests.contract.test_job_store import done, lead, new, one, store
from tests.contract.test_reuse_of_results import done as reusable
from tests.contract.test_reuse_of_results import ended, taking

__all__ = ["store"]

CURVE, OTHER = SharedData("curve", "d1", 10), SharedData("curve", "d2", 20)
DAY = timedelta(days=1)


def owned(job_id: str, owner: str, **options: Any) -> NewJob:
    return new(job_id, owner=owner, **options)


# --- owners ---------------------------------------------------------------------------------------------------------


async def test_a_job_keeps_its_owner_in_every_reading(store: JobStore) -> None:
    """Leaders get it, too, because nodes write it into the manifest."""
    await store.insert([owned("j1", "rates")])
    assert (await one(store, "j1")).owner == "rates"
    assert [job.spec.owner for job in await store.queued("rack-a", 10)] == ["rates"]
    moved = await store.move("rack-a", {"j1": "rack-b"})
    assert moved["rack-b"][0].spec.owner == "rates"


async def test_the_same_submit_of_another_owner_is_a_conflict(store: JobStore) -> None:
    """Whatever it contains; and in one call the first owner has the id."""
    await store.insert([owned("j1", "rates")])
    [again] = await store.insert([owned("j1", "rates")])
    [other] = await store.insert([owned("j1", "credit")])
    assert (again.conflict, other.conflict, other.created) == (False, True, False)
    first, second = await store.insert([owned("j2", "rates"), owned("j2", "credit")])
    assert (first.created, first.conflict, second.created, second.conflict) == (True, False, False, True)
    [changed] = await store.insert([replace(owned("j1", "rates"), fingerprint="x")])
    assert (changed.conflict, changed.foreign) == (True, False)
    assert [other.foreign, first.foreign, second.foreign] == [True, False, True]


async def test_a_job_without_an_owner_is_joined_only_by_who_may(store: JobStore) -> None:
    """A release without owners has stored it; an admin's submit of the same job after an upgrade is no conflict."""
    await store.insert([new("old")])
    [refused] = await store.insert([owned("old", "rates")])
    [joined] = await store.insert([replace(owned("old", "boss"), may_join_unowned=True)])
    assert (refused.conflict, joined.conflict, joined.created) == (True, False, False)


async def test_a_batch_takes_jobs_of_its_owner_only(store: JobStore) -> None:
    """The whole call of another owner is refused, and none of its jobs is inserted."""
    await store.insert([owned("r1", "rates")], "b", "rates")
    await store.insert([owned("r2", "rates")], "b", "rates")
    with pytest.raises(ConflictError, match="another owner"):
        await store.insert([owned("c1", "credit")], "b", "credit")
    assert await store.get(["c1"]) == {}
    summary = await store.batch("b")
    assert summary is not None
    assert (summary.owner, summary.total) == ("rates", 2)
    await store.insert([owned("c1", "credit"), owned("r1", "credit")], "c", "credit")
    assert [job.job_id for job in await store.jobs(batch_id="c")] == ["c1"]


async def test_listings_can_show_one_owner(store: JobStore) -> None:
    """Jobs and batches, page by page."""
    for number in range(4):
        owner = ("rates", "credit")[number % 2]
        await store.insert([owned(f"j{number}", owner)], f"b{number}", owner)
    assert [job.job_id for job in await store.jobs(owner="rates")] == ["j0", "j2"]
    assert [job.job_id for job in await store.jobs(owner="rates", after="j0", limit=1)] == ["j2"]
    page = await store.batches(owner="credit", limit=1)
    assert ([batch.batch_id for batch in page.batches], page.more) == (["b3"], True)
    rest = await store.batches(owner="credit", after="b3")
    assert ([batch.batch_id for batch in rest.batches], rest.more) == (["b1"], False)
    assert await store.jobs(owner="nobody") == []


async def test_a_cursor_of_another_owner_does_not_exist(store: JobStore) -> None:
    """Otherwise its error would tell whether a job or batch is there."""
    await store.insert([owned("j1", "rates")], "night", "rates")
    await store.insert([owned("j2", "credit")], "day", "credit")
    for owner in ("rates", None):
        assert await store.jobs(batch_id="night", after="j1", owner=owner) == []
        await store.batches(after="night", owner=owner)
    for cursor in ("j1", "unknown"):
        with pytest.raises(InvalidRequestError):
            await store.jobs(batch_id="night", after=cursor, owner="credit")
    for cursor in ("night", "unknown"):
        with pytest.raises(InvalidRequestError):
            await store.batches(after=cursor, owner="credit")


async def test_a_batch_of_which_every_job_is_refused_does_not_exist(store: JobStore) -> None:
    """Its id stays free."""
    await store.insert([owned("j1", "rates")])
    [refused] = await store.insert([owned("j1", "credit")], "night", "credit")
    assert refused.conflict
    assert await store.batch("night") is None
    await store.insert([owned("j2", "rates")], "night", "rates")


async def test_a_cancellation_keeps_who_asked_first(store: JobStore) -> None:
    """A second request changes nothing."""
    await store.insert([owned("j1", "rates")])
    await store.request_cancel(["j1"], "ops")
    await store.request_cancel(["j1"], "rates")
    assert (await one(store, "j1")).cancelled_by == "ops"


async def test_what_an_owner_uses_is_counted(store: JobStore) -> None:
    """Unfinished jobs, the bytes of their inputs, and of the owner's shared data."""
    size = (await store.usage("rates")).bytes
    assert size == 0
    await store.insert([owned("j1", "rates"), owned("j2", "rates"), owned("c1", "credit")])
    await store.put_data(CURVE, "rates")
    job = await one(store, "j1")
    assert await store.usage("rates") == (2, 2 * job.input.size + 10)
    lease = await lead(store)
    await store.record("rack-a", lease.term, [done("j1")])
    assert await store.usage("rates") == (1, job.input.size + 10)


async def test_the_job_whose_result_another_owner_takes_over_is_hidden(store: JobStore) -> None:
    """Also from one that takes the result over from that job; an owner's own jobs are named."""
    await ended(store, [reusable("ran")])  # of no owner
    await store.insert([taking("own", "ran"), taking("theirs", "ran", owner="rates")])
    await store.insert([taking("third", "theirs", owner="rates")])
    found = await store.get(["own", "theirs", "third"])
    assert {job_id: job.reused_from for job_id, job in found.items()} == {"own": "ran", "theirs": "*", "third": "*"}


# --- shared data ----------------------------------------------------------------------------------------------------


async def test_a_data_name_is_its_owners(store: JobStore) -> None:
    """Another owner can neither change nor remove it, except who may remove every owner's."""
    await store.put_data(CURVE, "rates")
    for change in (store.put_data(OTHER, "credit"), store.delete_data("curve", "credit")):
        with pytest.raises(ConflictError, match="another owner"):
            await change
    assert (await store.get_data(["curve"]))["curve"].data == CURVE
    await store.put_data(OTHER, "rates")
    assert (await store.get_data(["curve"]))["curve"].owner == "rates"
    assert await store.delete_data("curve", "boss", any_owner=True)
    assert not await store.delete_data("curve", "rates")
    await store.put_data(CURVE, "credit")


async def test_two_owners_who_store_one_name_at_once_get_one_conflict(store: JobStore) -> None:
    """Whoever is first has the name."""
    answers = await asyncio.gather(
        *(store.put_data(CURVE, owner) for owner in ("rates", "credit")), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in answers) == ["ConflictError", "NoneType"]


async def test_data_of_an_older_release_becomes_that_of_who_may_take_it(store: JobStore) -> None:
    """It has no owner."""
    await store.put_data(CURVE)
    with pytest.raises(ConflictError):
        await store.put_data(OTHER, "rates")
    await store.put_data(OTHER, "boss", may_take_unowned=True)
    assert (await store.get_data(["curve"]))["curve"].owner == "boss"


async def test_a_content_is_removed_when_nothing_needs_it(store: JobStore) -> None:
    """Not while a name or an unfinished job refers to it, and not soon after a name did."""
    now = datetime.now(UTC)
    await store.put_data(CURVE, "rates")
    await store.insert([owned("j1", "rates", data=(CURVE,))])
    assert await store.start_purge_of_data(now + DAY) == []
    await store.put_data(OTHER, "rates")
    assert await store.start_purge_of_data(now + DAY) == []
    lease = await lead(store)
    await store.record("rack-a", lease.term, [done("j1")])
    assert await store.start_purge_of_data(now - DAY) == []
    assert await store.start_purge_of_data(now + DAY) == ["d1"]


async def test_a_content_that_is_being_removed_cannot_be_stored_meanwhile(store: JobStore) -> None:
    """Its blob may go after the upload; the client tries again. A purge that broke off is continued by the next."""
    later = datetime.now(UTC) + DAY
    await store.put_data(CURVE, "rates")
    await store.delete_data("curve", "rates")
    for _ in range(2):
        assert await store.start_purge_of_data(later) == ["d1"]
    with pytest.raises(UnavailableError, match="try again"):
        await store.put_data(CURVE, "rates")
    await store.end_purge_of_data(["d1"])
    await store.put_data(CURVE, "rates")
    assert await store.start_purge_of_data(later) == []


# --- keys -----------------------------------------------------------------------------------------------------------


def caller(key_id: str) -> Caller:
    roles = frozenset({Role.READ, Role.SUBMIT})
    return Caller(key_id, "rates", roles, frozenset({"p"}), KeyLimits(queued_jobs=5))


async def made(store: JobStore, lifetime_s: float | None = None) -> StoredKey:
    text, key_id = new_key()
    return await store.add_key(caller(key_id), digest_of(text), "boss", lifetime_s)


async def test_a_key_comes_back_as_it_was_made(store: JobStore) -> None:
    """With its rights, its digest, and who made it when."""
    key = await made(store, 3600.0)
    book = await store.keys()
    assert book.keys == [key]
    assert key.caller == caller(key.key_id)
    assert (key.created_by, key.is_valid(book.now)) == ("boss", True)
    assert key.expires_at is not None
    assert not key.is_valid(key.expires_at)
    assert key.digest not in repr(key)


async def test_a_revoked_key_stays_revoked(store: JobStore) -> None:
    """It is listed, and cannot be rotated; an unknown one is None."""
    key = await made(store)
    revoked = await store.revoke_key(key.key_id)
    assert revoked is not None
    assert await store.revoke_key(key.key_id) == revoked
    book = await store.keys()
    assert [each.is_valid(book.now) for each in book.keys] == [False]
    assert await store.rotate_key(key.key_id, "successor1", "d", "boss", 60.0) is None
    assert await store.revoke_key("unknown") is None


async def test_a_rotation_gives_the_same_rights_and_ends_the_old_key(store: JobStore) -> None:
    """The old key ends with the overlap, or earlier if it would have; the new one lives as long as the old one did."""
    key = await made(store, 3600.0)
    new_one = await store.rotate_key(key.key_id, "successor1", "d", "ops", 60.0)
    assert new_one is not None
    assert new_one.caller == caller("successor1")
    assert (new_one.replaces, new_one.created_by) == (key.key_id, "ops")
    assert new_one.expires_at is not None
    assert new_one.expires_at - new_one.created_at == timedelta(seconds=3600)
    book = await store.keys()
    [old] = [each for each in book.keys if each.key_id == key.key_id]
    assert old.expires_at is not None
    assert timedelta(0) < old.expires_at - book.now <= timedelta(seconds=60)
    again = await store.rotate_key(key.key_id, "successor2", "e", "ops", 7200.0)
    assert again is not None
    [old_again] = [each for each in (await store.keys()).keys if each.key_id == key.key_id]
    assert old_again.expires_at == old.expires_at


async def test_every_successor_of_a_key_gets_the_same_lifetime(store: JobStore) -> None:
    """Also if a key is rotated twice, because the first answer was lost."""
    for lifetime_s in (None, 3600.0):
        key = await made(store, lifetime_s)
        for number in (1, 2):
            successor = f"{key.key_id[:8]}{number}"
            found = await store.rotate_key(key.key_id, successor, digest_of(successor), "ops", 60.0)
            assert found is not None
            lives = None if found.expires_at is None else (found.expires_at - found.created_at).total_seconds()
            assert lives == pytest.approx(lifetime_s, abs=0.01)
