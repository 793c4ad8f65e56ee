"""Any request is refused with a message or accepted whole, leaves nothing behind, and the grid goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio

from tests.support.http import BOUNDARY, FORM_TYPE, form_body, manifest, raw_request, status_of, unzip, word
from tests.support.small_grid import SmallGrid

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grid(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SmallGrid]:
    async with SmallGrid(tmp_path_factory.mktemp("grid"), http={"max_batch_jobs": 5}) as running:
        yield running


def uploads(grid: SmallGrid) -> list[str]:
    """What has been left of uploads that were cut short."""
    return [path.name for path in (grid.settings.grid_dir / "blobs" / "uploads").glob("*")]


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def unharmed(grid: SmallGrid, request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """After every test of this module the grid works, and no upload is left."""
    yield

    async def nothing_left() -> bool:
        return not uploads(grid)

    await grid.until(nothing_left, within_s=5)
    name = f"after-{abs(hash(request.node.name))}"
    assert unzip(await grid.submit(name, "echo fine"))["stdout.txt"] == b"fine\n"


async def send(grid: SmallGrid, body: bytes, path: str = "/submit/bad", **headers: str) -> httpx.Response:
    return await grid.http.post(path, content=body, headers={**FORM_TYPE, **headers})


FILE = ('name="file"; filename="a.txt"', b"content")
PRICER = ('name="pricer"', b"cat")


# --- forms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "fragment"),
    [
        ([PRICER], "the form has no file"),
        ([], "the form has no file"),
        ([('name="file"; filename="a"', b""), PRICER], "is empty"),
        ([FILE, FILE, PRICER], "more than 1 files"),
        ([('name="other"; filename="a"', b"x"), PRICER], "must be the part 'file'"),
        ([('name="file"', b"x"), PRICER], "the form has no file"),
        ([FILE, PRICER, ('name="colour"', b"red")], "unknown option 'colour'"),
        ([FILE, PRICER, ('name="jobId"', b"other")], "unknown option 'jobId'"),
        ([FILE, PRICER, PRICER], "'pricer' is given 2 times"),
        ([FILE, PRICER, ('name="priority"', b"1"), ('name="priority"', b"2")], "'priority' is given 2 times"),
        ([FILE, ('name="pricer"', b"nobody")], "there is no pricer 'nobody'"),
        ([FILE], "name a pricer"),
        ([FILE, PRICER, ('name="affinity"', b"\xff\xfe")], "not UTF-8"),
        ([FILE, PRICER, ('name="affinity"', b"a\0b")], "without NUL"),
        ([FILE, PRICER, ('name="affinity"', b"x" * 257)], "1 to 256 characters"),
        ([FILE, PRICER, ('name="args"', b"x")], "takes no args"),
        ([FILE, PRICER, ('filename="x"', b"x")], "has no name"),
        ([FILE, ('name="pricer"', b"args"), *[('name="args"', b"x")] * 300], "at most 256"),
        ([FILE, ('name="pricer"', b"args"), *[('name="args"', b"x" * 1000)] * 100], "longer than 65536 bytes"),
        ([FILE, ('name="pricer"', b"args"), ('name="args"', b"a\0b")], "without NUL"),
        ([FILE, PRICER, *[('name="args"', b"x")] * 1100], "more than 1000 options"),
        ([FILE, PRICER, *[('name="args"', b"x" * 5_000_000)] * 4], "16777216 bytes together"),
        ([FILE, PRICER, ('name="' + "n" * 20_000 + '"', b"x")], "header size exceeded"),
    ],
)
async def test_an_incomplete_or_unknown_form_is_refused(
    grid: SmallGrid, parts: list[tuple[str, bytes]], fragment: str
) -> None:
    """A form with something missing, unknown, doubled or too much is refused with the reason, and makes no job."""
    answer = await send(grid, form_body(parts))
    assert answer.status_code in (413, 422)
    assert word(answer) in ("invalid-request", "unknown-pricer", "too-large")
    assert fragment in answer.json()["detail"]
    assert (await grid.http.get("/status/bad")).status_code == 404


@pytest.mark.parametrize(
    "value", ["1.5", "many", "nan", "inf", "1e3", "1000001", "-1000001", "9" * 5000, "0x10", "--1", "٣٣٣٣٣٣٣٣"]
)
async def test_a_malformed_priority_is_refused(grid: SmallGrid, value: str) -> None:
    """A priority is a whole number between its bounds, nothing else."""
    answer = await grid.submit("bad", "true", priority=value)
    assert (answer.status_code, word(answer)) == (422, "invalid-request")
    assert "priority must be a whole number" in answer.json()["detail"]
    assert len(answer.json()["detail"]) < 300


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "-inf", "1e309", "9" * 400, "soon", "1,5", "true", "1e9"])
async def test_a_malformed_timeout_is_refused(grid: SmallGrid, value: str) -> None:
    """A time limit is a finite number of seconds above zero."""
    answer = await grid.submit("bad", "true", timeout_s=value)
    assert (answer.status_code, word(answer)) == (422, "invalid-request")
    assert "timeout_s must be a number of seconds" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b"--a-boundary\r\n",
        b"--a-boundary--\r\n",
        b"--another\r\nContent-Disposition: form-data; name=file; filename=x\r\n\r\nx\r\n--another--\r\n",
        form_body([FILE, PRICER], end=False),
        form_body([FILE, PRICER])[:-30],
        form_body([('name="file"; filename="big"', b"x" * 100_000), PRICER])[:70_000],
        b"--a-boundary\r\nContent-Disposition form-data\r\n\r\nx\r\n--a-boundary--\r\n",
        b"--a-boundary\r\n\xff\xfe: x\r\n\r\nx\r\n--a-boundary--\r\n",
        b"--a-boundary\r\n\r\nno headers\r\n--a-boundary--\r\n",
        b"\0" * 1000,
    ],
)
async def test_a_malformed_form_is_refused(grid: SmallGrid, body: bytes) -> None:
    """A malformed or truncated multipart body is refused, even if it has whole files."""
    answer = await send(grid, body)
    assert (answer.status_code, word(answer)) == (422, "invalid-request")
    assert (await grid.http.get("/status/bad")).status_code == 404


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=a-boundary",
        "",
        "multipart/form-data; boundary=" + "b" * 5000,
        "multipart/form-data; boundary*=utf-8''a-boundary",
        ";;;",
    ],
)
async def test_a_content_type_other_than_a_form_is_refused(grid: SmallGrid, kind: str) -> None:
    """A body of another content type, or without a usable boundary, is refused."""
    answer = await send(grid, form_body([FILE, PRICER]), **{"Content-Type": kind})
    assert (answer.status_code, word(answer)) == (422, "invalid-request")


@pytest.mark.parametrize(
    ("disposition", "expected"),
    [
        ('filename="../../etc/passwd"', "passwd"),
        ('filename="/etc/shadow"', "shadow"),
        ('filename="C:\\x\\trade.csv"', "trade.csv"),
        ('filename="..\\..\\win.ini"', "win.ini"),
        ('filename=""', "input"),
        ('filename="data"', "input"),
        ('filename="."', "input"),
        ('filename=".."', "input"),
        ('filename="dir/"', "input"),
        ('filename=" a  b "', " a  b "),
        ('filename="取引\u3000二\u00a0三\u202f四.csv"', "取引\u3000二\u00a0三\u202f四.csv"),
        ('filename="a\u200bb\u2028c\u202ed\ufeff.csv"', "a\u200bb\u2028c\u202ed\ufeff.csv"),
        ('filename="👩\u200d👩\u200d👧.csv"', "👩\u200d👩\u200d👧.csv"),
        ('filename="e\u0301.csv"', "e\u0301.csv"),
        ('filename="-rf"', "-rf"),
        ('filename="$(id).txt"', "$(id).txt"),
        ('filename="prix é€.csv"', "prix é€.csv"),
        ('filename="' + "n" * 251 + '.csv"', "n" * 251 + ".csv"),
        ('filename="' + "é" * 127 + '"', "é" * 127),
        ('filename="manifest.json"', "manifest.json"),
        ('filename="x@stdout"', "x@stdout"),
    ],
)
async def test_a_hostile_file_name_becomes_a_plain_one(grid: SmallGrid, disposition: str, expected: str) -> None:
    """The input is in the job directory under a plain name made from the client's; nothing is elsewhere."""
    job_id = f"name-{abs(hash(disposition))}"
    answer = await send(
        grid,
        form_body([(f'name="file"; {disposition}', b'ls -A; basename "$0"'), ('name="pricer"', b"shell")]),
        f"/submit/{job_id}",
    )
    assert answer.status_code == 200, answer.text
    assert manifest(answer)["input"]["name"] == expected
    assert unzip(answer)["stdout.txt"].decode() == f"{expected}\n{expected}\n"


@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        (b"a\x01b.txt", "has a control character, '\\x01'"),
        (b"a\x7f.txt", "has a control character, '\\x7f'"),
        (b"a\tb.txt", "has a control character, '\\t'"),
        ("a\u0085.txt".encode(), "has a control character, '\\x85'"),
        (b"a\0.txt", "has a control character, '\\x00'"),
        (b"prix \xe9.csv", "is not UTF-8"),
        (b"\xed\xa0\x80.csv", "is not UTF-8"),
        (b"n" * 252 + b".csv", "has 256 bytes; at most 255 are possible"),
        ("é".encode() * 128, "has 256 bytes; at most 255 are possible"),
    ],
)
async def test_an_impossible_file_name_is_refused(grid: SmallGrid, name: bytes, fragment: str) -> None:
    """Nothing is left out of a name or cut off, so that no two names become one."""
    body = form_body([('name="file"; filename="NAME"', b"true"), PRICER]).replace(b"NAME", name)
    answer = await send(grid, body)
    if b"\0" in name:  # the parser of forms refuses it
        assert answer.status_code == 422
        return
    assert (answer.status_code, word(answer)) == (422, "invalid-request")
    assert fragment in answer.json()["detail"]
    assert (await grid.http.get("/status/bad")).status_code == 404


# --- ids ------------------------------------------------------------------------------------------------------------

BAD_IDS = ["..", ".", "...", "a" * 129, "a b", "ü", "a\0b", "a\nb", "a:b", "a%b", "a@1", "a+b", "~", "a;b", "💶"]


@pytest.mark.parametrize("job_id", BAD_IDS)
async def test_a_malformed_id_is_refused(grid: SmallGrid, job_id: str) -> None:
    """Ids are 1 to 128 letters, digits, dots, underscores and hyphens; in path, form and batch alike."""
    path = quote(job_id, safe="").replace(".", "%2E")
    head = f"POST /submit/{path} HTTP/1.1\nContent-Type: {FORM_TYPE['Content-Type']}"
    body = form_body([FILE, PRICER])
    assert status_of(await raw_request(grid.url, f"{head}\nContent-Length: {len(body)}", body)) == 422
    for route in ("status", "result"):
        assert status_of(await raw_request(grid.url, f"GET /{route}/{path} HTTP/1.1")) == 422
    assert status_of(await raw_request(grid.url, f"DELETE /jobs/{path} HTTP/1.1")) == 422
    assert status_of(await raw_request(grid.url, f"GET /batches/{path} HTTP/1.1")) == 422
    in_form = await grid.http.post("/submit", files={"file": b"x"}, data={"pricer": "cat", "jobId": job_id})
    assert (in_form.status_code, word(in_form)) == (422, "invalid-request")
    in_batch = await grid.http.post("/batches", files={"fine": b"x"}, data={"pricer": "cat", "batchId": job_id})
    assert (in_batch.status_code, word(in_batch)) == (422, "invalid-request")


@pytest.mark.parametrize("path", ["/submit/a%2Fb", "/submit/a/b", "/submit/%2E%2E%2Fx"])
async def test_an_id_with_a_slash_is_no_path(grid: SmallGrid, path: str) -> None:
    """A slash in a path ends the id, so that no such route exists."""
    head = f"POST {path} HTTP/1.1\nContent-Type: {FORM_TYPE['Content-Type']}\nContent-Length: 0"
    assert status_of(await raw_request(grid.url, head)) == 404


@pytest.mark.parametrize("job_id", ["a" * 128, "a.b", "..a", "-", "_", "a-1.2_3", "0", "data", "jobs", "COM1"])
async def test_every_valid_id_works(grid: SmallGrid, job_id: str) -> None:
    """Every id within the rule works, however odd."""
    assert unzip(await grid.submit(job_id, "echo ok"))["stdout.txt"] == b"ok\n"


# --- batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "fragment"),
    [
        ("{", "one JSON object"),
        ("[]", "one JSON object"),
        ("null", "one JSON object"),
        ('"x"', "one JSON object"),
        ('{"b-1": 1}', "one JSON object"),
        ('{"b-1": []}', "one JSON object"),
        ('{"other": {}}', "there is no file with that name"),
        ('{"\\ud800": {}}', "there is no file with that name"),
        ('{"b-1": {"colour": 1}}', "unknown option 'colour'"),
        ('{"b-1": {"priority": "1.5"}}', "priority must be"),
        ('{"b-1": {"priority": true}}', "priority must be"),
        ('{"b-1": {"priority": 1.0}}', "priority must be"),
        ('{"b-1": {"priority": NaN}}', "priority must be"),
        ('{"b-1": {"priority": ' + "9" * 5000 + "}}", "one JSON object"),
        ('{"b-1": {"priority": ' + "9" * 4000 + "}}", "priority must be"),
        ('{"b-1": {"timeout_s": NaN}}', "timeout_s must be"),
        ('{"b-1": {"timeout_s": Infinity}}', "timeout_s must be"),
        ('{"b-1": {"timeout_s": ' + "9" * 400 + "}}", "timeout_s must be"),
        ('{"b-1": {"timeout_s": [1]}}', "timeout_s must be"),
        ('{"b-1": {"timeout_s": true}}', "timeout_s must be"),
        ('{"b-1": {"args": "x"}}', "args must be a list"),
        ('{"b-1": {"args": [1]}}', "args must be a list"),
        ('{"b-1": {"args": {}}}', "args must be a list"),
        ('{"b-1": {"pricer": "args", "args": ["\\ud800"]}}', "args must be a list"),
        ('{"b-1": {"affinity": "\\udfff"}}', "affinity must be a text"),
        ('{"b-1": {"affinity": "a\\u0000"}}', "affinity must be a text"),
        ('{"b-1": {"pricer": {"a": 1}}}', "pricer must be a text"),
        ('{"b-1": {"data": ["nobody"]}}', "no shared data 'nobody'"),
        ('{"b-1": {"data": ["\\ud800"]}}', "data must be a list"),
        ("[" * 100_000, "one JSON object"),
        ('{"b-1":' * 100_000 + "1" + "}" * 100_000, "one JSON object"),
        ('{"b-1": {"args": ' + "[" * 90_000 + "]" * 90_000 + "}}", ""),
    ],
)
async def test_malformed_options_of_jobs_are_refused(grid: SmallGrid, jobs: str, fragment: str) -> None:
    """The option `jobs` is checked down to each value; a batch with a wrong one is refused as a whole."""
    answer = await grid.http.post("/batches", files={"b-1": b"x", "b-2": b"y"}, data={"pricer": "cat", "jobs": jobs})
    assert (answer.status_code, word(answer)) in ((422, "invalid-request"), (422, "unknown-data"))
    assert fragment in answer.json()["detail"]
    assert (await grid.http.get("/status/b-2")).status_code == 404


async def test_a_batch_with_a_mistake_is_refused_whole(grid: SmallGrid) -> None:
    """A bad id, a doubled id, an empty file or too many files: no job of such a batch is taken."""
    good = ('name="whole-1"; filename="a"', b"x")
    for parts, fragment in (
        ([good, good, PRICER], "two files of the batch have the jobId 'whole-1'"),
        ([good, ('name="bad id"; filename="a"', b"x"), PRICER], "'bad id' is not a jobId"),
        ([good, ('name=".."; filename="a"', b"x"), PRICER], "'..' is not a jobId"),
        ([good, ('name="whole-2"; filename="a"', b""), PRICER], "job whole-2"),
        ([good, PRICER, ('name="batchId"', b"a"), ('name="batchId"', b"b")], "given more than once"),
        ([good, ('name="pricer"', b"nobody")], "there is no pricer"),
        ([*[(f'name="whole-{i}"; filename="a"', b"x") for i in range(6)], PRICER], "more than 5 files"),
        ([PRICER], "the batch has no files"),
    ):
        answer = await send(grid, form_body(parts), "/batches")
        assert answer.status_code in (413, 422)
        assert fragment in answer.json()["detail"]
    assert (await grid.http.get("/status/whole-1")).status_code == 404


# --- clients that hang up -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/submit/hung", "/batches", "/data/hung"])
@pytest.mark.parametrize("size", [1_000, 9_000_000])
async def test_a_client_that_hangs_up_in_the_middle_leaves_nothing(
    grid: SmallGrid, path: str, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A body that ends early makes no job, no data and no upload, and is no error of the grid."""
    body = form_body([PRICER, ('name="file"; filename="big"', b"x" * size)])
    method = "PUT" if path.startswith("/data") else "POST"
    head = f"{method} {path} HTTP/1.1\nContent-Type: {FORM_TYPE['Content-Type']}\nContent-Length: {len(body)}"
    await raw_request(grid.url, head, body[: len(body) - 500], hang_up=True)
    # The next request comes after the hang-up was seen: the same parent handles them in one loop.
    await asyncio.sleep(0.1)
    assert (await grid.http.get("/status/hung")).status_code == 404
    assert "hung" not in (await grid.http.get("/data")).text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_client_that_hangs_up_after_the_body_has_its_job(grid: SmallGrid) -> None:
    """A whole body is taken whole or not at all: asking again with the same jobId gives the one result."""
    runs = grid.directory / "hung-up-runs"
    script = f"echo x >> {runs}; sleep 0.1".encode()
    body = form_body([('name="pricer"', b"shell"), ('name="file"; filename="job.sh"', script)])
    for number in range(10):
        head = (
            f"POST /submit/gone-{number} HTTP/1.1\nContent-Type: {FORM_TYPE['Content-Type']}\n"
            f"Content-Length: {len(body)}"
        )
        await raw_request(grid.url, head, body, hang_up=True)
    answers = await asyncio.gather(*(send(grid, body, f"/submit/gone-{number}") for number in range(10)))
    assert [answer.status_code for answer in answers] == [200] * 10
    assert runs.read_text() == "x\n" * 10


async def test_a_reader_that_hangs_up_does_no_harm(grid: SmallGrid) -> None:
    """Clients that leave while they wait or read cost the grid nothing."""
    await grid.http.post(
        "/batches", files={"left": ("a.sh", b"sleep 0.5")}, data={"pricer": "shell", "batchId": "left"}
    )
    for path in ("/result/left?wait=30", "/events?job=left", "/events?batch=left", "/batches/left/results"):
        await raw_request(grid.url, f"GET {path} HTTP/1.1", hang_up=True)
    assert (await grid.until_state("left", "done"))["attempts"] == 1

    async def forgotten() -> bool:
        waiters = grid.parent.waiters
        return not waiters._by_job and not waiters._any

    await grid.until(forgotten, within_s=10)


async def test_a_slow_sender_delays_no_other_client(grid: SmallGrid) -> None:
    """A client that sends byte by byte is waited for, and others are served meanwhile."""
    body = form_body([FILE, PRICER])

    async def dribble() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 50):
            yield body[start : start + 50]
            assert (await grid.http.get("/health/live")).status_code == 200

    answer = await grid.http.post("/submit/slow-sender", content=dribble(), headers=FORM_TYPE)
    assert (answer.status_code, answer.content) == (200, b"content")


async def test_the_boundary_in_the_content_is_content(grid: SmallGrid) -> None:
    """Bytes that look like a boundary but are none arrive unchanged, wherever the chunks are cut."""
    tricky = f"\r\n--{BOUNDARY[:-1]}x\r\n--{BOUNDARY[:-3]}\r\n\r\n--\r\n".encode() * 20
    body = form_body([('name="file"; filename="t"', tricky), PRICER])

    async def cut(size: int) -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    for size in (1, 7, 64):
        answer = await grid.http.post(f"/submit/tricky-{size}", content=cut(size), headers=FORM_TYPE)
        assert answer.content == tricky


async def test_options_that_look_like_json_stay_text(grid: SmallGrid) -> None:
    """An argument is never anything but text."""
    args = [json.dumps({"a": 1}), "null", "1"]
    answer = await grid.http.post("/submit/text", files={"file": b"x"}, data={"pricer": "args", "args": args})
    assert manifest(answer)["args"] == args
