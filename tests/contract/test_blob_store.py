"""What every blob store does: one suite over a directory and over S3, the latter through real HTTP."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import FileIO
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError

from raygrid.blobs import BlobStore, data_key, directory, object_store
from raygrid.blobs.chunks import CHUNK, CheckedBlob, digests, pieces_of
from raygrid.errors import BlobDamagedError, BlobNotFoundError, SettingsError, UnavailableError
from raygrid.local import free_port
from raygrid.models import BlobSlice
from tests.support.s3 import S3, SECRETS, Cable, s3_server

BIG = 20 * 1024**2


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.processes)])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "directory":
        return BlobStore(str(tmp_path / "blobs"))
    server: S3 = request.getfixturevalue("s3")
    return BlobStore(f"s3://{server.new_bucket()}/some/prefix", server.options(), retry_s=1.0)


def place(key: str, data: bytes) -> BlobSlice:
    return BlobSlice(key, 0, len(data), hashlib.sha256(data).hexdigest())


async def chunks_of(data: bytes, size: int = 1024**2) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def keys(blobs: BlobStore, prefix: str, age: timedelta = timedelta(days=-1)) -> list[str]:
    return sorted([key async for page in blobs.list_older(prefix, age) for key in page])


async def read(blobs: BlobStore, blob: BlobSlice) -> bytes:
    return await blobs.read(blob)


# --- writing and reading --------------------------------------------------------------------------------------------


async def test_a_blob_is_read_whole_and_in_slices(blobs: BlobStore) -> None:
    """A pack is read as its parts, each by offset and size; an empty part needs no call."""
    await blobs.put("results/pack", b"onetwothree")
    assert await blobs.read(BlobSlice("results/pack", 0, 11, "")) == b"onetwothree"
    assert await blobs.read(BlobSlice("results/pack", 3, 3, "")) == b"two"
    assert await blobs.read(BlobSlice("not/there", 0, 0, "")) == b""


async def test_a_missing_blob_is_distinguished_from_a_store_that_is_away(blobs: BlobStore) -> None:
    """A missing or too short blob raises BlobNotFoundError with its key."""
    await blobs.put("results/short", b"0123456789")
    for slice_ in (BlobSlice("no/blob", 0, 5, ""), BlobSlice("results/short", 8, 5, "")):
        with pytest.raises(BlobNotFoundError, match=slice_.key):
            await blobs.read(slice_)
    with pytest.raises(BlobNotFoundError, match="results/short"):
        await blobs.read(BlobSlice("results/short", 20, 5, ""))


async def test_an_upload_is_stored_under_its_digest(blobs: BlobStore) -> None:
    """A stream of many parts arrives whole under a key made of its sha256, and leaves nothing beside it."""
    data = os.urandom(BIG + 12_345)
    stored = await blobs.upload(chunks_of(data), data_key)
    assert stored == place(f"data/{hashlib.sha256(data).hexdigest()}", data)
    assert await read(blobs, stored) == data
    assert await keys(blobs, "uploads/") == []


async def test_an_empty_upload_is_a_blob_too(blobs: BlobStore) -> None:
    """A file without a byte can be stored."""
    stored = await blobs.upload(chunks_of(b""), data_key)
    assert stored.size == 0
    assert await keys(blobs, "data/") == [stored.key]


@pytest.mark.parametrize("size", [10, BIG])
async def test_an_upload_that_breaks_off_leaves_nothing(blobs: BlobStore, size: int) -> None:
    """The stream's own error is raised, and neither the blob nor what had arrived of it stays."""

    async def broken() -> AsyncIterator[bytes]:
        async for chunk in chunks_of(os.urandom(size)):
            yield chunk
        raise ConnectionResetError("the client hung up")

    with pytest.raises(ConnectionResetError):
        await blobs.upload(broken(), data_key)
    assert await keys(blobs, "data/") == []
    assert await keys(blobs, "uploads/") == []


async def test_the_same_content_can_be_uploaded_again(blobs: BlobStore) -> None:
    """Content-addressed blobs are written over with the same bytes."""
    first = await blobs.upload(chunks_of(b"market data"), data_key)
    assert await blobs.upload(chunks_of(b"market data"), data_key) == first
    assert await read(blobs, first) == b"market data"


async def test_a_large_file_is_stored_and_fetched_in_parts(blobs: BlobStore, tmp_path: Path) -> None:
    """A result of 20 MB goes in from a file and comes out into one, its digest checked."""
    data = os.urandom(BIG)
    (tmp_path / "in").write_bytes(data)
    await asyncio.to_thread(blobs.put_file_now, "results/large", tmp_path / "in")
    await asyncio.to_thread(blobs.fetch_now, place("results/large", data), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data


async def test_a_fetch_checks_the_digest(blobs: BlobStore, tmp_path: Path) -> None:
    """Bytes that do not match are not given to a pricer."""
    await blobs.put("data/x", b"something else")
    with pytest.raises(BlobNotFoundError, match="sha256"):
        await asyncio.to_thread(blobs.fetch_now, place("data/x", b"what was meant"), tmp_path / "out")


async def test_a_read_checks_the_digest_where_it_is_known(blobs: BlobStore) -> None:
    """Of two slices in one blob the damaged one is refused, and the other is given."""
    await blobs.put("results/pack", b"onetwo")
    one, two = (hashlib.sha256(part).hexdigest() for part in (b"one", b"two"))
    await blobs.put("results/pack", b"oneTwo")
    assert await blobs.read(BlobSlice("results/pack", 0, 3, one)) == b"one"
    with pytest.raises(BlobDamagedError, match=r"results/pack is damaged: its bytes 3 to 6 .*sha256"):
        await blobs.read(BlobSlice("results/pack", 3, 3, two))


# --- large blobs, chunk by chunk ------------------------------------------------------------------------------------


async def test_a_large_blob_is_read_in_checked_chunks(blobs: BlobStore) -> None:
    """Any run of chunks can be read, also behind the end; the last chunk is a short one."""
    data, checked = await large(blobs)
    whole = b"".join([await asyncio.to_thread(checked.read_now, first, 3) for first in range(0, 7, 3)])
    assert whole == data
    assert await asyncio.to_thread(checked.read_now, 5, 1) == data[5 * CHUNK :]
    assert await asyncio.to_thread(checked.read_now, 6, 1) == b""
    await asyncio.to_thread(checked.check_now)


async def test_a_flipped_bit_spoils_its_chunk_and_no_other(blobs: BlobStore) -> None:
    """The chunks around it can be read; every read that would hold the damaged byte is refused and names the place."""
    data, checked = await large(blobs)
    spoilt = bytearray(data)
    spoilt[2 * CHUNK + 5] ^= 1
    await blobs.put("results/large", b"before" + bytes(spoilt))
    assert await asyncio.to_thread(checked.read_now, 0, 2) == data[: 2 * CHUNK]
    assert await asyncio.to_thread(checked.read_now, 3, 4) == data[3 * CHUNK :]
    place = f"bytes {2 * CHUNK} to {3 * CHUNK}"
    for read_it in (lambda: checked.read_now(2, 1), lambda: checked.read_now(0, 4), checked.check_now):
        with pytest.raises(BlobDamagedError, match=f"results/large is damaged: its {place}"):
            await asyncio.to_thread(read_it)


async def test_a_truncated_large_blob_is_damaged_and_a_removed_one_is_not_there(blobs: BlobStore) -> None:
    """What is left of it is still checked and given; damage and absence have errors of their own."""
    data, checked = await large(blobs)
    await blobs.put("results/large", (b"before" + data)[: 3 * CHUNK])
    assert await asyncio.to_thread(checked.read_now, 0, 2) == data[: 2 * CHUNK]
    with pytest.raises(BlobDamagedError, match="shorter than expected"):
        await asyncio.to_thread(checked.read_now, 2, 1)
    await blobs.delete(["results/large"])
    with pytest.raises(BlobNotFoundError, match="is not in the blob store") as missing:
        await asyncio.to_thread(checked.check_now)
    assert not isinstance(missing.value, BlobDamagedError)


async def test_a_large_blob_can_be_read_like_a_file(blobs: BlobStore) -> None:
    """A ZIP in the blob store can be opened without fetching it whole; a damaged chunk fails only reads of it."""
    data, checked = await large(blobs)

    def look() -> None:
        with checked.open() as file:
            file.seek(-4, 2)
            assert file.read() == data[-4:]
            file.seek(CHUNK - 2)
            assert file.read(4) == data[CHUNK - 2 : CHUNK + 2]
            file.seek(0)
            assert file.read() == data
            file.seek(len(data) + 5)
            assert file.read(1) == b""

    await asyncio.to_thread(look)
    await blobs.put("results/large", b"before" + data[:CHUNK] + b"x" * CHUNK + data[2 * CHUNK :])
    with checked.open() as file:
        assert await asyncio.to_thread(file.read, 10) == data[:10]
        file.seek(CHUNK)
        with pytest.raises(BlobDamagedError):
            await asyncio.to_thread(file.read, 1)


async def test_another_copy_replaces_a_damaged_blob(blobs: BlobStore) -> None:
    """From then on all is read from the copy, also in a file that is open."""
    data, checked = await large(blobs)
    await blobs.delete(["results/large"])
    checked.use(data)
    assert await asyncio.to_thread(checked.read_now, 1, 2) == data[CHUNK : 3 * CHUNK]
    assert await asyncio.to_thread(checked.open().read) == data


def test_a_blob_of_one_chunk_has_one_digest() -> None:
    """Digests of chunks are made where there is more than one chunk; the digest of the whole is the usual one."""
    for size in (0, 1, CHUNK):
        data = os.urandom(size)
        assert digests(pieces_of(data)) == (hashlib.sha256(data).hexdigest(), None)
    data = os.urandom(CHUNK + 1)
    first, last = hashlib.sha256(data[:CHUNK]).digest(), hashlib.sha256(data[CHUNK:]).digest()
    assert digests(pieces_of(data)) == (hashlib.sha256(data).hexdigest(), first + last)


async def large(blobs: BlobStore) -> tuple[bytes, CheckedBlob]:
    """A slice of six chunks that does not begin at the beginning of its blob."""
    data = os.urandom(5 * CHUNK + 1_000)
    await blobs.put("results/large", b"before" + data)
    digest, chunks = digests(pieces_of(data))
    assert chunks is not None
    return data, CheckedBlob(blobs, BlobSlice("results/large", 6, len(data), digest), chunks)


# --- housekeeping ---------------------------------------------------------------------------------------------------


async def test_sizes_are_of_existing_blobs(blobs: BlobStore) -> None:
    """Existing blobs have their size, however many are asked for; others are left out."""
    assert await blobs.sizes([]) == {}
    assert await blobs.sizes(["results/none"]) == {}
    for number in range(3):
        await blobs.put(f"results/{number}", b"x" * number)
    asked = [f"results/{number}" for number in range(100)]
    assert await blobs.sizes(asked) == {"results/0": 0, "results/1": 1, "results/2": 2}


async def test_deleting_removes_existing_blobs(blobs: BlobStore) -> None:
    """Many blobs are deleted at once; missing ones are no error."""
    for number in range(5):
        await blobs.put(f"results/{number}", b"x")
    await blobs.delete(["results/0", "not/there", "results/3"])
    assert await keys(blobs, "results/") == ["results/1", "results/2", "results/4"]
    await blobs.delete([])


async def test_old_blobs_are_listed_by_prefix_and_age(blobs: BlobStore) -> None:
    """Only blobs under the prefix that are old enough are listed, by the key that reads and deletes them."""
    await blobs.put("uploads/a", b"x")
    await blobs.put("results/b", b"x")
    assert await keys(blobs, "uploads/") == ["uploads/a"]
    assert await keys(blobs, "uploads/", timedelta(hours=1)) == []
    assert await keys(blobs, "nothing/") == []


# --- the marker -----------------------------------------------------------------------------------------------------


def test_the_first_marker_stays(blobs: BlobStore) -> None:
    """Placing a second marker changes nothing and gives the first one."""
    assert blobs.seen is None
    assert blobs.create_marker_now("first", make_directory=True) == "first"
    assert blobs.create_marker_now("second", make_directory=True) == "first"
    assert blobs.read_marker_now() == "first"
    assert blobs.seen == "first"


def test_a_place_without_a_marker_is_no_error(blobs: BlobStore) -> None:
    """An empty bucket or a directory that does not exist has no marker."""
    assert blobs.read_marker_now() is None


def test_another_blob_store_is_not_written_to(blobs: BlobStore, tmp_path: Path) -> None:
    """If the marker differs, writes of all kinds are refused, and a missing blob does not count as lost."""
    blobs.create_marker_now("theirs", make_directory=True)
    blobs.expect("ours")
    (tmp_path / "file").write_bytes(b"x")
    for write in (
        lambda: blobs.put_now("results/x", b"x"),
        lambda: blobs.put_file_now("results/y", tmp_path / "file"),
        lambda: asyncio.run(blobs.upload(chunks_of(b"x"), data_key)),
        lambda: asyncio.run(blobs.require()),
    ):
        with pytest.raises(UnavailableError, match=r"another blob store.*storage\.blobs"):
            write()
    with pytest.raises(UnavailableError, match="another blob store"):
        blobs.read_now(BlobSlice("results/x", 0, 1, ""))
    blobs.expect("theirs")
    blobs.put_now("results/x", b"x")
    assert asyncio.run(keys(blobs, "")) == ["grid/marker", "results/x"]


# --- a directory whose share is not mounted -------------------------------------------------------------------------


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A mounted share, as a link that can point elsewhere."""
    (tmp_path / "mounted" / "grid").mkdir(parents=True)
    (tmp_path / "mounted" / "grid" / "marker").write_text("ours\n")
    (tmp_path / "below").mkdir()
    link = tmp_path / "share"
    link.symlink_to(tmp_path / "mounted")
    return link


def point(link: Path, target: str) -> None:
    other = link.with_name("new")
    other.symlink_to(link.parent / target)
    other.rename(link)


def test_a_directory_is_not_made_in_place_of_a_share(tmp_path: Path) -> None:
    """Neither opening, nor looking, nor writing, nor a marker that others must see makes the directory."""
    where = tmp_path / "srv" / "blobs"
    blobs = BlobStore(str(where))
    assert blobs.read_marker_now() is None
    with pytest.raises(UnavailableError, match="mount the share there"):
        blobs.create_marker_now("ours", make_directory=False)
    blobs.expect("ours")
    with pytest.raises(UnavailableError, match="is the share mounted there"):
        blobs.put_now("results/x", b"x")
    assert not where.parent.exists()


def test_nothing_is_written_below_a_share_that_went_away(share: Path) -> None:
    """A store that has worked before refuses once its share is gone, and works again once it is back."""
    blobs = BlobStore(str(share))
    blobs.expect("ours")
    blobs.put_now("results/1", b"x")
    point(share, "below")
    with pytest.raises(UnavailableError, match="is the share mounted there"):
        blobs.put_now("results/2", b"x")
    with pytest.raises(UnavailableError, match="is the share mounted there"):
        asyncio.run(blobs.upload(chunks_of(b"x"), data_key))
    with pytest.raises(UnavailableError, match="is the share mounted there"):
        blobs.read_now(BlobSlice("results/1", 0, 1, ""))
    assert list((share.parent / "below").iterdir()) == []
    point(share, "mounted")
    blobs.put_now("results/3", b"x")
    assert blobs.read_now(BlobSlice("results/1", 0, 1, "")) == b"x"
    assert sorted(path.name for path in (share.parent / "mounted" / "results").iterdir()) == ["1", "3"]


@pytest.mark.parametrize("back", [False, True])
def test_a_share_that_goes_away_during_a_write_fails_it(
    share: Path, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    """A blob that was written below the share is not taken for stored, even if the share is back at once."""
    blobs = BlobStore(str(share))
    blobs.expect("ours")
    before, put = blobs.before_writing, blobs._place.put

    def gone_after_the_check() -> None:
        before()
        point(share, "below")

    def back_after_the_write(key: str, data: bytes) -> None:
        put(key, data)
        if back:
            point(share, "mounted")

    monkeypatch.setattr(blobs, "before_writing", gone_after_the_check)
    monkeypatch.setattr(blobs._place, "put", back_after_the_write)
    with pytest.raises(UnavailableError):
        blobs.put_now("results/x", b"x")


# --- an object store that is away -----------------------------------------------------------------------------------


def calls(blobs: BlobStore, tmp_path: Path) -> list[Callable[[], object]]:
    (tmp_path / "file").write_bytes(bytes(1000))
    blob = BlobSlice("results/x", 0, 1, "")
    return [
        blobs.read_marker_now,
        lambda: blobs.put_now("results/x", b"x"),
        lambda: blobs.put_file_now("results/y", tmp_path / "file"),
        lambda: blobs.read_now(blob),
        lambda: blobs.fetch_now(blob, tmp_path / "out"),
        lambda: asyncio.run(blobs.delete(["results/x"])),
        lambda: asyncio.run(blobs.sizes(["results/x", "results/y"])),
        lambda: asyncio.run(blobs.upload(chunks_of(b"x"), data_key)),
    ]


@pytest.mark.processes
def test_every_call_reports_that_the_store_is_away(s3: S3, tmp_path: Path) -> None:
    """An outage is no missing blob and no defect: each call raises UnavailableError, and works once it is over."""
    cable = Cable(s3.port)
    blobs = BlobStore(f"s3://{s3.new_bucket()}", s3.options(cable.port), retry_s=0.3)
    blobs.put_now("results/x", b"x")
    cable.cut()
    for call in calls(blobs, tmp_path):
        with pytest.raises(UnavailableError, match="cannot be used now") as raised:
            call()
        assert raised.value.retry_after_s > 0
    assert blobs.trouble is not None
    cable.mend()
    assert blobs.read_now(BlobSlice("results/x", 0, 1, "")) == b"x"
    cable.close()


@pytest.mark.processes
@pytest.mark.parametrize("given", [{"timeout": "300ms"}, {}])
def test_an_endpoint_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    """A connection that is taken and then silent ends with the timeout of the settings, or else with the default."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    if not given:
        monkeypatch.setattr(object_store, "LIMITS", {"read_timeout": "300ms"})
        monkeypatch.setattr(object_store, "LOOK_LIMITS", {"timeout": "300ms"})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = S3("127.0.0.1", silent.getsockname()[1]).options() | given
        blobs = BlobStore("s3://bucket", options, retry_s=0.3)
        began = time.monotonic()
        for call in calls(blobs, tmp_path):
            with pytest.raises(UnavailableError):
                call()
        assert 1 < time.monotonic() - began < 15


def test_short_breaks_cause_no_error(s3: S3) -> None:
    """A call that finds the store away is tried again until it is back, in whatever way its connections broke."""
    cable = Cable(s3.port)
    url = f"s3://{s3.new_bucket()}"
    for number in range(8):
        blobs = BlobStore(url, s3.options(cable.port))
        cable.cut()
        with ThreadPoolExecutor(1) as thread:
            putting = thread.submit(blobs.put_now, f"results/{number}", b"x")
            assert concurrent.futures.wait([putting], timeout=0.15).not_done
            cable.mend()
            putting.result()
        assert blobs.read_now(BlobSlice(f"results/{number}", 0, 1, "")) == b"x"
    cable.close()


async def test_a_short_break_does_not_stop_the_removal_of_blobs(s3: S3) -> None:
    """Housekeeping is idle for long, so that the store often has closed its connection."""
    cable = Cable(s3.port)
    url = f"s3://{s3.new_bucket()}"
    for number in range(8):
        blobs = BlobStore(url, s3.options(cable.port))
        keys = [f"results/{number}-{each}" for each in range(3)]
        for key in keys:
            await asyncio.to_thread(blobs.put_now, key, b"x")
        cable.cut()
        removing = asyncio.create_task(blobs.delete(keys))
        assert not (await asyncio.wait({removing}, timeout=0.15))[0]
        cable.mend()
        await removing
        assert await blobs.sizes(keys) == {}
    cable.close()


def test_what_obstore_has_tried_again_is_not_tried_again_after_it() -> None:
    """Otherwise a call to a store that is away would take several times as long as it may."""
    options = {"endpoint": f"http://127.0.0.1:{free_port()}", "allow_http": True, "region": "x"}
    place = object_store.ObjectStore("s3://bucket", {**options, "skip_signature": True}, retry_s=6.0)
    asked = []

    def request() -> None:
        asked.append(1)
        obstore.put(place._working, "key", b"x", use_multipart=False)

    with pytest.raises(GenericError, match="error sending request"):
        place._sent(request)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("url", "options"),
    [("s3://bucket", {"nonsense": "x"}), ("s4://bucket", {}), ("/a/directory", {"endpoint": "http://x"})],
)
def test_unknown_options_are_refused(url: str, options: dict[str, str]) -> None:
    """A mistyped option, an unknown kind of store, and options for a directory are errors of the settings."""
    with pytest.raises(SettingsError, match=r"storage\.blob"):
        BlobStore(url, options)


def test_messages_hold_no_credentials() -> None:
    """Everything in the URL but the place is left out."""
    options = {"endpoint": f"http://127.0.0.1:{free_port()}", "allow_http": True}
    blobs = BlobStore("s3://bucket/prefix", options)
    assert blobs.shown == "s3://bucket/prefix"
    with pytest.raises(SettingsError) as raised:
        BlobStore("s4://user:hunter2@bucket/prefix?sig=hunter3")
    assert "hunter" not in str(raised.value)


async def test_a_write_into_a_directory_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob is there whole or not at all; a half-written one is in no listing."""

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    blobs = BlobStore(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UnavailableError, match="No space left"):
            blobs.put_now("results/pack", b"half")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    blobs.put_now("results/pack", b"whole")
    (tmp_path / "results/other#340282366920938463463374607431768211455").write_bytes(b"half")
    os.utime(tmp_path / "results/pack", (0, 0))
    os.utime(tmp_path / "results/other#340282366920938463463374607431768211455", (0, 0))
    assert [keys async for keys in blobs.list_older("results", timedelta(hours=1))] == [["results/pack"]]
    assert blobs.read_now(place("results/pack", b"whole")) == b"whole"


# --- an upload and its thread ---------------------------------------------------------------------------------------


def upload_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("upload")]


async def no_thread_is_left() -> None:
    async with asyncio.timeout(10):
        while upload_threads():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("pieces", "size"), [(6_001, 499), (2_003, 1_999), (97, 256_000)])
async def test_a_blob_is_the_same_however_it_is_cut(blobs: BlobStore, pieces: int, size: int) -> None:
    """Pieces of any number and size are joined in order, and the thread that wrote them is gone."""
    data = os.urandom(pieces * size)
    stored = await blobs.upload(chunks_of(data, size), data_key)
    assert stored == place(data_key(hashlib.sha256(data).hexdigest()), data)
    assert await read(blobs, stored) == data
    await no_thread_is_left()


async def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that ends early, as the kernel may end any, goes on where it ended."""

    class Reluctant(FileIO):
        def write(self, data: Any) -> int:
            return super().write(data[:100_000])

    monkeypatch.setattr(directory, "FileIO", Reluctant)
    blobs, data = BlobStore(str(tmp_path)), os.urandom(3 * 1024**2)
    assert await read(blobs, await blobs.upload(chunks_of(data, 256_000), data_key)) == data


async def test_a_slow_disk_slows_the_sender_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing can be written, an upload takes a few megabytes and no more; when it can, it is whole."""
    go_on, taken, data = threading.Event(), 0, os.urandom(BIG)

    class Stuck(FileIO):
        def write(self, data: Any) -> int:
            assert go_on.wait(30)
            return super().write(data)

    async def counted() -> AsyncIterator[bytes]:
        nonlocal taken
        async for chunk in chunks_of(data, 256_000):
            taken += len(chunk)
            yield chunk

    monkeypatch.setattr(directory, "FileIO", Stuck)
    blobs = BlobStore(str(tmp_path))
    uploading = asyncio.create_task(blobs.upload(counted(), data_key))
    before = -1
    while before != taken or not upload_threads():  # until the sender has stopped
        before = taken
        await asyncio.sleep(0.2)
    go_on.set()
    assert before <= 4 * 1024**2
    assert await read(blobs, await uploading) == data


async def test_a_full_disk_ends_an_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender gets an error at once rather than at the end, and neither a file nor a thread is left."""

    class Full(FileIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    taken = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal taken
        async for chunk in chunks_of(bytes(BIG), 256_000):
            taken += len(chunk)
            yield chunk

    monkeypatch.setattr(directory, "FileIO", Full)
    blobs = BlobStore(str(tmp_path))
    with pytest.raises(UnavailableError, match="No space left"):
        await blobs.upload(counted(), data_key)
    assert taken < BIG / 2
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    await no_thread_is_left()


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(blobs: BlobStore) -> None:
    """A request that is cancelled while its body arrives leaves neither file nor thread."""
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield bytes(256_000)
        begun.set()
        await asyncio.Event().wait()

    uploading = asyncio.create_task(blobs.upload(endless(), data_key))
    await begun.wait()
    uploading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await uploading
    await no_thread_is_left()
    assert await keys(blobs, "") == []
