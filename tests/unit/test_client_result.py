"""What a result gives, and that unpacking it stays inside the directory."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import zipfile
from pathlib import Path

import httpx
import pytest

from raygrid.client.result import Result
from raygrid.errors import (
    DamagedResultError,
    JobCancelledError,
    JobFailedError,
    RaygridError,
    ResultExpiredError,
    WaitTimeoutError,
)
from raygrid.system import filenames
from tests.support.client_fakes import ANY_BYTES, Answers, FakeTime, problem, zip_of, zip_with

WHOLE = {
    "stdout.txt": "42\n",
    "stderr.txt": "warn",
    "manifest.json": '{"node": "n1"}',
    "out/greeks.csv": "d,g",
    "pricer_files/stdout.txt": "its own",
}


def test_a_result_gives_its_streams_manifest_and_files() -> None:
    """The three reserved names are not among the files; the pricer's own files of these names are."""
    result = Result("j", zip_with(WHOLE))

    assert (result.stdout, result.stderr, result.manifest) == ("42\n", "warn", {"node": "n1"})
    assert result.files == ("out/greeks.csv", "pricer_files/stdout.txt")
    assert (result.read("out/greeks.csv"), result.text("out/greeks.csv")) == (b"d,g", "d,g")
    with pytest.raises(FileNotFoundError, match=r"no file 'x\.csv'; its files: out/greeks\.csv"):
        result.read("x.csv")


@pytest.mark.parametrize("written", ANY_BYTES, ids=("shift_jis", "binary", "line ends", "nothing"))
def test_stdout_and_stderr_are_there_byte_for_byte(written: bytes) -> None:
    """Text in another encoding can be decoded, and data is whole."""
    result = Result("j", zip_with({"stdout.txt": written, "stderr.txt": written}))

    assert (result.stdout_bytes, result.stderr_bytes) == (written, written)
    assert result.stdout == written.decode(errors="replace")
    assert Result("j", b"").stdout_bytes == b""
    assert Result("j", b"plain \xff").stdout_bytes == b"plain \xff"


def test_bytes_that_are_no_zip_are_stdout() -> None:
    """An answer of stdout alone is decoded leniently, and there are no files."""
    result = Result("j", b"price \xff 42")

    assert result.stdout == "price � 42"
    assert (result.stderr, result.files, result.manifest) == ("", (), {})


# The places of a field in the ZIP's directory, after its signature, and the value that makes its file unreadable.
UNREADABLE = {"method": (6, 99), "encrypted": (4, 1), "version": (2, 99)}


@pytest.mark.parametrize("what", [*UNREADABLE, "checksum"])
def test_a_file_with_damaged_bytes_is_an_error_of_the_grid(tmp_path: Path, what: str) -> None:
    """Whatever `zipfile` raises, a caller gets one error that names the job and the file."""
    data = bytearray(zip_with({"stdout.txt": "42\n"}))
    if what == "checksum":
        data = data.replace(b"42\n", b"43\n")
    else:
        place, value = UNREADABLE[what]
        data[data.index(b"PK\1\2") + 4 + place] = value
    result = Result("j", bytes(data))
    if what == "version":  # then the whole is no ZIP that can be read
        assert (result.files, result.stdout_bytes) == ((), bytes(data))
        return
    with pytest.raises(DamagedResultError, match=r"job j is damaged: its file 'stdout\.txt' cannot be read"):
        _ = result.stdout
    with pytest.raises(DamagedResultError):
        result.extract(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_a_damaged_manifest_is_an_error_of_the_grid(text: str) -> None:
    """A manifest is a JSON object."""
    with pytest.raises(DamagedResultError, match=r"'manifest\.json'"):
        _ = Result("j", zip_with({"manifest.json": text})).manifest


def test_a_name_that_is_the_directory_itself_is_refused(tmp_path: Path) -> None:
    """No file can have it."""
    with pytest.raises(RaygridError, match="contains the path '\\.'"):
        Result("j", zip_with({"first": "", ".": "x"})).extract(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_a_file_and_a_directory_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    """Otherwise a part of the result would be written before the file system refuses the rest."""
    with pytest.raises(RaygridError, match="contains 'a' as a file and as a directory"):
        Result("j", zip_with({"first": "", "a": "x", "a/b": "y"})).extract(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_extract_writes_every_file_below_the_directory(tmp_path: Path) -> None:
    """Everything is unpacked, also the three reserved files."""
    root = Result("j", zip_with(WHOLE)).extract(tmp_path / "deep" / "down")

    written = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
    assert written == WHOLE


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a/../evil"])
def test_a_path_that_leads_out_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    """After one bad name (zip-slip) not even the good files are unpacked."""
    with pytest.raises(RaygridError, match="could lead out"):
        Result("j", zip_with({"good.txt": "x", name: "x"})).extract(tmp_path / "in")

    assert list((tmp_path / "in").iterdir()) == []
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("name", ["C:x", "sub/nul", "..\\evil", "a."])
def test_a_path_that_windows_leads_elsewhere_is_refused_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Nothing is written on Windows, and the error names the path; elsewhere it is a name like any other."""
    result = Result("j", zip_with({"good.txt": "x", name: "x"}))
    result.extract(tmp_path / "here")
    assert (tmp_path / "here" / name).read_text() == "x"

    monkeypatch.setattr(filenames, "_ON_WINDOWS", True)
    with pytest.raises(RaygridError, match="Windows") as refused:
        result.extract(tmp_path / "windows")
    assert repr(name) in str(refused.value)
    assert list((tmp_path / "windows").iterdir()) == []


def test_a_link_in_the_directory_is_not_followed_out_of_it(tmp_path: Path) -> None:
    """An existing link would lead the file elsewhere."""
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in" / "sub").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(RaygridError, match="could lead out"):
        Result("j", zip_of(**{"sub/x": "x"})).extract(tmp_path / "in")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def with_manifest(**files: str) -> bytes:
    """A result whose manifest lists its files, as the grid writes it."""
    listed = [
        {"name": name, "size": len(text), "digest": hashlib.sha256(text.encode()).hexdigest()}
        for name, text in files.items()
    ]
    manifest = {"jobId": "j", "attempt": 1, "outcome": "exited", "files": listed}
    return zip_with({"stdout.txt": "", "manifest.json": json.dumps(manifest), **files})


def test_files_of_an_earlier_result_are_replaced_by_those_of_a_later_one(tmp_path: Path) -> None:
    """A second result in the same directory removes the files that only the first one had."""
    Result("j", with_manifest(**{"prices.csv": "old", "deep/down/risk.csv": "old", "both.csv": "old"})).extract(
        tmp_path
    )
    Result("k", with_manifest(**{"both.csv": "new"})).extract(tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {"stdout.txt", "manifest.json", "both.csv"}
    assert (tmp_path / "both.csv").read_text() == "new"


def test_files_that_no_earlier_result_left_stay(tmp_path: Path) -> None:
    """Files that were added or changed are kept, and so are those that a manifest of another kind lists."""
    Result("j", with_manifest(**{"prices.csv": "old", "sub/risk.csv": "old"})).extract(tmp_path)
    (tmp_path / "prices.csv").write_text("corrected by hand")
    (tmp_path / "sub" / "notes.txt").write_text("mine")
    Result("k", with_manifest(**{"other.csv": "new"})).extract(tmp_path)

    assert (tmp_path / "prices.csv").read_text() == "corrected by hand"
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["notes.txt"]

    (tmp_path / "manifest.json").write_text(json.dumps({"name": "a web page", "files": ["prices.csv"]}))
    Result("k", with_manifest()).extract(tmp_path)
    assert (tmp_path / "prices.csv").exists()


@pytest.mark.parametrize("name", ["../victim.csv", "link/victim.csv"])
def test_a_manifest_removes_nothing_elsewhere(tmp_path: Path, name: str) -> None:
    """A manifest in the directory is not trusted: names that lead out of it, also through a link, remove nothing."""
    victim = tmp_path / "victim.csv"
    victim.write_text("x")
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path)
    listed = [{"name": name, "size": 1, "digest": hashlib.sha256(b"x").hexdigest()}]
    (inside / "manifest.json").write_text(
        json.dumps({"jobId": "j", "attempt": 1, "outcome": "exited", "files": listed})
    )
    Result("k", with_manifest()).extract(inside)

    assert victim.exists()


def test_a_link_in_the_zip_becomes_a_plain_file(tmp_path: Path) -> None:
    """A symbolic link entry is written as its text, so later entries cannot pass through it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc")
    Result("j", buffer.getvalue()).extract(tmp_path)

    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_text() == "/etc"


def test_reprs_are_short_and_escape_what_the_pricer_wrote() -> None:
    """A notebook shows the result, not its markup."""
    result = Result("j", zip_with({"stdout.txt": "<script>", **{f"f{n}": "" for n in range(9)}}))

    assert "9 files" in repr(result)
    assert "<script>" not in result._repr_html_()


def test_a_long_wait_is_many_short_requests() -> None:
    """The grid is asked in waits of at most 30 seconds until the job has ended, then never again."""
    time = FakeTime()

    def not_yet(request: httpx.Request) -> httpx.Response:
        time.now += float(request.url.params["wait"])
        return problem("not-finished", 404, retry_after="1")

    grid = Answers(not_yet, not_yet, not_yet, httpx.Response(200, content=zip_of(stdout__txt="42")))
    job = grid.client(time).job("j")

    assert job.result().stdout == "42"
    assert job.result().stdout == "42"
    assert [float(request.url.params["wait"]) for request in grid.requests] == [30, 30, 30, 30]
    assert time.sleeps == []
    assert job.done()


def test_a_wait_ends_at_its_timeout_and_can_be_repeated() -> None:
    """The last wait is cut to what is left, and the job can be waited for again."""
    time = FakeTime()

    def not_yet(request: httpx.Request) -> httpx.Response:
        time.now += float(request.url.params["wait"])
        return problem("not-finished", 404)

    grid = Answers(not_yet, not_yet, httpx.Response(200, content=b""))
    job = grid.client(time).job("j")

    with pytest.raises(WaitTimeoutError, match="has not ended within 40 s"):
        job.result(timeout=40)
    assert [float(request.url.params["wait"]) for request in grid.requests] == [30, 10]
    assert job.result(timeout=1).stdout == ""


def test_timeout_zero_asks_once() -> None:
    """Polling does not wait and does not sleep."""
    time = FakeTime()
    grid = Answers(problem("not-finished", 404, retry_after="1"))

    with pytest.raises(WaitTimeoutError):
        grid.client(time).job("j").result(timeout=0)
    assert (len(grid.requests), time.sleeps) == (1, [])


def test_a_grid_that_answers_before_the_wait_is_over_is_not_asked_at_once() -> None:
    """If the grid does not hold its answer back, the client keeps to Retry-After."""
    time = FakeTime()
    not_yet = problem("not-finished", 404, retry_after="2")
    grid = Answers(not_yet, not_yet, httpx.Response(200, content=b"42"))

    assert grid.client(time).job("j").result().stdout == "42"
    assert time.sleeps == [2, 2]


@pytest.mark.parametrize(
    ("word", "status", "kind"),
    [
        ("job-failed", 422, JobFailedError),
        ("job-cancelled", 409, JobCancelledError),
        ("result-expired", 410, ResultExpiredError),
    ],
)
def test_an_ending_without_a_result_is_kept(word: str, status: int, kind: type[RaygridError]) -> None:
    """The second call raises the same error without a request."""
    grid = Answers(problem(word, status))
    job = grid.client().job("j")

    for _ in range(2):
        with pytest.raises(kind):
            job.result()
    assert job.done()
    assert len(grid.requests) == 1


def test_the_files_of_a_failed_job_can_be_fetched() -> None:
    """even_if_failed asks for the ZIP; the job stays failed."""
    grid = Answers(problem("job-failed", 422), httpx.Response(200, content=zip_of(stderr__txt="no curve")))
    job = grid.client().job("j")
    with pytest.raises(JobFailedError):
        job.result()

    assert job.result(even_if_failed=True).stderr == "no curve"
    assert grid.requests[1].url.params["even_if"] == "failed"
    with pytest.raises(JobFailedError):
        job.result()


def test_a_download_goes_to_the_file_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A broken download is fetched again; the file appears whole or not at all."""
    from tests.support.client_fakes import Cut

    data = zip_of(stdout__txt="42")
    broken = httpx.Response(200, stream=Cut(data[:10], error=httpx.ReadError("reset")))
    grid = Answers(broken, httpx.Response(200, stream=Cut(data[:7], data[7:])))
    target = tmp_path / "r.zip"

    assert grid.client().job("j").download(target) == target
    assert target.read_bytes() == data
    assert list(tmp_path.iterdir()) == [target]


def test_a_download_to_a_device_leaves_the_device(tmp_path: Path) -> None:
    """As root, renaming a file to /dev/null would replace the device; a link stays a link."""
    fifo, link, target = tmp_path / "fifo", tmp_path / "link", tmp_path / "r.zip"
    os.mkfifo(fifo)
    link.symlink_to(target)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        Answers(httpx.Response(200, content=b"42")).client().job("j").download(fifo)
        assert os.read(reading, 10) == b"42"
    finally:
        os.close(reading)
    Answers(httpx.Response(200, content=b"43")).client().job("j").download(link)

    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert (link.is_symlink(), target.read_bytes()) == (True, b"43")


def test_a_refused_download_leaves_no_file(tmp_path: Path) -> None:
    """The body of an error is not taken for a result."""
    with pytest.raises(JobFailedError):
        Answers(problem("job-failed", 422)).client().job("j").download(tmp_path / "r.zip")
    assert list(tmp_path.iterdir()) == []
