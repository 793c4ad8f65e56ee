"""Directories and files may have any name that the file system takes: all state is in them, private to the owner."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from raygrid.blobs import BlobStore
from raygrid.errors import SettingsError
from raygrid.local import GridFile
from raygrid.local.port import ray_prefix
from raygrid.models import BlobSlice
from raygrid.settings.model import load_settings
from raygrid.store import SqlStore
from raygrid.system.lock import holder, only_one
from raygrid.system.processes import mark_of
from tests.support.http import unzip
from tests.support.lone_agent import wait_until
from tests.support.small_grid import SmallGrid

NAMES = [
    *("100%", "%41", "%s%(here)s", "a?b", "?mode=memory", "a#b", "two  words", " begins and ends ", "it's", 'a "b"'),
    *("a;b", "a&b=c", "..a..b..", "価格表", "e\u0301 \u3000x", "😀", "new\nline", "tab\t", "back\\slash", "a:b", "a|b"),
    *("file:x", "s3:", "~nobody", "-rf", "$HOME", "`id`", "*", "[x]", "{input}", "x" * 200),
]
AS_BYTES = [*(name.encode() for name in NAMES), b"\xff\xfe no UTF-8"]
any_name = pytest.mark.parametrize("as_bytes", AS_BYTES, ids=ascii)
LARGE = 300_000


def below(directory: Path) -> list[Path]:
    """Every file and directory below one."""
    return [Path(at) / name for at, directories, files in os.walk(directory) for name in (*directories, *files)]


def open_to_others(paths: list[Path]) -> list[str]:
    """Those of these files and directories that others than their owner may read, write or enter.

    Files in a job's directory are the pricer's, and have the modes that they would have elsewhere.
    """
    ours = [path for path in paths if not {"jobs", "spare"} & {above.name for above in path.parents}]
    return [str(path) for path in ours if not path.is_symlink() and stat.S_IMODE(path.lstat().st_mode) & 0o077]


async def run_jobs(grid: SmallGrid) -> None:
    """A job with an input that is stored, a result that is stored as a file, and a pack of small ones."""
    script = f"#{'x' * LARGE}\nhead -c 9000000 /dev/urandom > out.bin; echo done"
    answer = await grid.http.post("/submit/large?wait=60", files={"file": ("a.sh", script)}, data={"pricer": "shell"})
    assert unzip(answer)["stdout.txt"] == b"done\n", answer.text[:500]
    answer = await grid.http.post("/submit/small?wait=60", files={"file": ("a.sh", "pwd")}, data={"pricer": "shell"})
    where = os.fsdecode(unzip(answer)["stdout.txt"])
    assert where.startswith(str(grid.settings.grid_dir))


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """With the umask that most machines have, others may read what is made."""
    before = os.umask(0o022)
    yield
    os.umask(before)


NESTED = [AS_BYTES[first::5] for first in range(5)]
"""All names, each in one of a few paths, one below the other: whole grids work in these."""
nested = pytest.mark.parametrize("names", NESTED, ids=[str(number) for number, _ in enumerate(NESTED)])


@nested
def test_all_state_is_inside_the_state_directory(
    names: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Job store, blobs and work directories: nothing is beside the directory of that name, and all is private."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    ways = [here]
    for name in names:
        ways.append(ways[-1] / os.fsdecode(name))
    state = ways[-1]

    async def run() -> None:
        async with SmallGrid(state) as grid:
            await run_jobs(grid)
            assert open_to_others(below(state / "small")) == []

    asyncio.run(run())
    assert [os.listdir(os.fsencode(way)) for way in ways[:-1]] == [[name] for name in names]
    assert os.listdir(tmp_path) == ["here"]
    found = {str(path.relative_to(state / "small")) for path in below(state)}
    assert {"jobs.db", "blobs/grid/marker", "nodes/rack-a-1"} <= found
    assert len([path for path in found if path.startswith("blobs/results/")]) >= 3


@nested
def test_database_and_blobs_may_be_elsewhere_under_any_name(names: list[bytes], tmp_path: Path) -> None:
    """`storage.database` takes the plain path of a file, `storage.blobs` that of a directory."""
    *path, name = (os.fsdecode(name) for name in names if len(name) < 200)  # SQLite takes paths of 511 bytes
    given = tmp_path / "given"
    stores, blobs = given.joinpath("stores", *path), given.joinpath("blobs", *path)
    storage = {"database": f"{stores}/{name}/{name}", "blobs": f"{blobs}/{name}"}

    async def run() -> None:
        async with SmallGrid(tmp_path / "state", storage=storage) as grid:
            await run_jobs(grid)
            assert open_to_others(below(stores / name)) == []

    asyncio.run(run())
    assert sorted(os.listdir(given)) == ["blobs", "stores"]
    assert os.listdir(blobs) == os.listdir(stores) == [name]
    assert (blobs / name / "grid" / "marker").exists()
    assert name in os.listdir(stores / name)
    assert all(each.startswith(name) for each in os.listdir(stores / name))
    assert os.listdir(tmp_path / "state" / "small") == ["nodes"]


@any_name
async def test_job_store_and_blobs_are_where_they_are_named(as_bytes: bytes, tmp_path: Path) -> None:
    """The job store's file and the blobs' directory have exactly the name that was given, and nothing else is made."""
    name = os.fsdecode(as_bytes)
    storage = {"state_dir": tmp_path, "database": f"{tmp_path}/stores/{name}", "blobs": f"{tmp_path}/blobs/{name}"}
    settings = load_settings(storage=storage)
    store, blobs = SqlStore(settings.database_url), BlobStore(settings.blobs_url)
    await store.open()
    await blobs.put("inputs/one", b"content")
    assert await blobs.read(BlobSlice("inputs/one", 0, 7, hashlib.sha256(b"content").hexdigest())) == b"content"
    await store.close()
    assert sorted(os.listdir(tmp_path)) == ["blobs", "stores"]
    assert os.listdir(tmp_path / "blobs") == [name]
    assert (tmp_path / "blobs" / name / "inputs" / "one").read_bytes() == b"content"
    assert name in os.listdir(tmp_path / "stores")
    assert all(each.startswith(name) for each in os.listdir(tmp_path / "stores"))


@any_name
def test_a_grid_is_found_in_a_directory_of_any_name(as_bytes: bytes, tmp_path: Path) -> None:
    """Its file, its lock, the place of Ray's sockets and the marks of its pricers follow from that name."""
    name = os.fsdecode(as_bytes)
    directory = tmp_path / name
    directory.mkdir(mode=0o700)
    with only_one(directory):
        life = holder(directory)
        assert life is not None
        assert life.pid == os.getpid()
        GridFile("http://127.0.0.1:1", life.pid, life.started, name, directory).write()
    assert open_to_others(below(directory)) == []
    assert ray_prefix(directory).isascii()
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {"RAYGRID_ATTEMPT": f"{directory}|x|"})
    try:
        wait_until(lambda: mark_of(pid) == f"{directory}|x|")
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_a_share_that_is_open_to_a_group_stays_so(tmp_path: Path) -> None:
    """If others may enter the blobs' directory, machines with other users read what this one has written."""
    share = tmp_path / "share"
    share.mkdir()
    share.chmod(0o755)

    async def run() -> None:
        async with SmallGrid(tmp_path / "state", storage={"blobs": str(share)}) as grid:
            await run_jobs(grid)

    asyncio.run(run())
    modes = {stat.S_IMODE(path.stat().st_mode) for path in below(share)}
    assert modes == {0o755, 0o644}


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ({"database": "sqlite+aiosqlite:////srv/a?b/jobs.db"}, "plain path instead of a URL"),
        ({"database": "sqlite:///:memory:?x"}, "plain path instead of a URL"),
        ({"database": "sqlite:nonsense"}, "not a valid one"),
        ({"database": "relative/jobs.db"}, "absolute path of a SQLite file"),
        ({"database": "user:secret@host/raygrid"}, "absolute path of a SQLite file"),
        ({"blobs": "file:///srv/a?b"}, "plain path instead of a URL"),
        ({"blobs": "file:///srv/a#b"}, "plain path instead of a URL"),
    ],
)
def test_an_ambiguous_place_is_refused(storage: dict[str, str], message: str, tmp_path: Path) -> None:
    """In a URL a name ends at `?` and `#`: refused, with the form that works, before anything is written."""
    with pytest.raises(SettingsError, match=message) as caught:
        SmallGrid(tmp_path, storage=storage)
    assert "secret" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_file_url_is_percent_decoded(tmp_path: Path) -> None:
    """`%20` in a `file:` URL is a space, in a path it is literal."""
    settings = load_settings(storage={"blobs": f"file://{tmp_path}/a%20b", "database": f"sqlite:///{tmp_path}/c%20d"})
    assert BlobStore(settings.blobs_url).shown == str(tmp_path / "a b")
    assert BlobStore(f"{tmp_path}/a%20b").shown == str(tmp_path / "a%20b")

    async def open_and_close() -> None:
        store = SqlStore(settings.database_url)
        await store.open()
        await store.close()

    asyncio.run(open_and_close())
    assert os.listdir(tmp_path) == ["c d"]
