"""Forms as clients of many kinds write them: the pricer reads the intended bytes, or the form is refused."""

from __future__ import annotations

import base64
import gzip
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from tests.support.http import BOUNDARY, FORM_TYPE, events_of, word
from tests.support.small_grid import SmallGrid

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONTENT = "id,kind\r\nt1,コール\r\n".encode()
SHOW = ["sh", "-c", 'cat "$1"; shift; printf "[%s]" "$@"', "sh", "{input}", "{args}"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grid(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SmallGrid]:
    pricers = {"show": {"command": SHOW, "result": "stdout"}, "other": {"command": "true"}}
    async with SmallGrid(tmp_path_factory.mktemp("grid"), pricers=pricers, default_pricer="show") as running:
        yield running


def part(disposition: str, data: bytes = CONTENT, *more: str) -> bytes:
    lines = [f"--{BOUNDARY}", f"Content-Disposition: form-data; {disposition}", *more, "", ""]
    return "\r\n".join(lines).encode() + data + b"\r\n"


async def send(grid: SmallGrid, *parts: bytes, **headers: str) -> httpx.Response:
    body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
    return await grid.http.post(f"/submit/{uuid4()}", content=body, headers={**FORM_TYPE, **headers})


FILE = 'name="file"; filename="b.csv"'


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("base64", base64.encodebytes),
        ("BASE64", lambda data: base64.encodebytes(data).replace(b"\n", b"\r\n")),
        ("quoted-printable", lambda data: b"".join(b"=%02X" % byte for byte in data)),
        ("8bit", bytes),
        ("7bit", bytes),
        ("binary", bytes),
    ],
)
async def test_a_pricer_reads_the_decoded_bytes(grid: SmallGrid, encoding: str, encode: object, size: int) -> None:
    """A part with a Content-Transfer-Encoding is decoded, inline and in the blob store alike."""
    assert callable(encode)
    content = CONTENT * size
    answer = await send(grid, part(FILE, encode(content), f"Content-Transfer-Encoding: {encoding}"))
    assert answer.status_code == 200, answer.text
    assert answer.content == content + b"[]"


@pytest.mark.parametrize(
    ("data", "encoding", "fragment"),
    [
        (CONTENT, "base64", "the part 'file' of the form cannot be read: it is not base64"),
        (base64.b64encode(CONTENT)[:-1], "base64", "not complete"),
        (b"YQ==YQ==", "base64", "before its end"),
        (b"a=b,c\r\n", "quoted-printable", "two hexadecimal digits"),
        (CONTENT, "quoted-printable", "must be written as =XX"),
        (CONTENT, "x-uuencode", "'x-uuencode' is not known; send binary, base64 or quoted-printable"),
        (CONTENT, "gzip", "'gzip' is not known"),
    ],
)
async def test_a_part_that_cannot_be_decoded_is_refused(
    grid: SmallGrid, data: bytes, encoding: str, fragment: str
) -> None:
    """Text that is not in its announced encoding makes no job; the answer names the part."""
    answer = await send(grid, part(FILE, data, f"Content-Transfer-Encoding: {encoding}"))
    assert (answer.status_code, word(answer)) == (422, "invalid-request")
    assert fragment in answer.json()["detail"]


async def test_a_part_with_two_encodings_is_refused(grid: SmallGrid) -> None:
    """Neither of the two headers can be trusted."""
    twice = [f"Content-Transfer-Encoding: {encoding}" for encoding in ("binary", "base64")]
    answer = await send(grid, part(FILE, b"YQ==", *twice))
    assert (answer.status_code, word(answer)) == (422, "invalid-request")
    assert "two headers 'content-transfer-encoding'" in answer.json()["detail"]


@pytest.mark.parametrize(
    "args",
    [
        part('name="args"', base64.b64encode("表".encode()), "Content-Transfer-Encoding: base64"),
        part('name="args"', b"=E8=A1=A8=\r\n", "Content-Transfer-Encoding: quoted-printable"),
        part('name="args"', "表".encode("cp932"), "Content-Type: text/plain; charset=Shift_JIS"),
        part('name="args"', "表".encode("euc_jp"), 'Content-Type: text/plain; charset="EUC-JP"'),
        part('name="args"', "表".encode("utf-16"), "Content-Type: text/plain; charset=utf-16"),
        part('name="_charset_"', b"shift_jis") + part('name="args"', "表".encode("cp932")),
        part('name="args"', "表".encode("cp932")) + part('name="_charset_"', b"shift_jis"),
        part('name="_charset_"', b"shift_jis")
        + part('name="args"', "表".encode(), "Content-Type: text/plain; charset=utf-8"),
        part('name="_charset_"', b"utf-8") + part('name="args"', "表".encode()),
    ],
)
async def test_an_option_is_decoded_by_its_own_character_set(grid: SmallGrid, args: bytes) -> None:
    """Encoding and character set of an option, and the form's `_charset_`, give the intended text."""
    answer = await send(grid, args, part(FILE, b"x"))
    assert answer.status_code == 200, answer.text
    assert answer.content.decode() == "x[表]"


@pytest.mark.parametrize(
    ("option", "fragment"),
    [
        (part('name="args"', b"\x95", "Content-Type: text/plain; charset=Shift_JIS"), "is not Shift_JIS text"),
        (part('name="args"', b"a", "Content-Type: text/plain; charset=x-none"), "unknown character set, 'x-none'"),
        (part('name="args"', b"a", "Content-Type: text/plain; charset=unicode_escape"), "unknown character set"),
        (part('name="args"', "表".encode("cp932")), "the option 'args' is not UTF-8 text"),
        (part('name="_charset_"', b"none") + part('name="args"', b"a"), "unknown character set, 'none'"),
        (part('name="args"', b"YQ", "Content-Transfer-Encoding: base64"), "the part 'args' of the form cannot be read"),
    ],
)
async def test_an_option_that_is_no_text_is_refused(grid: SmallGrid, option: bytes, fragment: str) -> None:
    """Bytes that are not text in the announced character set make no job."""
    answer = await send(grid, option, part(FILE, b"x"))
    assert (answer.status_code, word(answer)) == (422, "invalid-request")
    assert fragment in answer.json()["detail"]


async def test_a_body_that_is_compressed_as_a_whole_is_refused(grid: SmallGrid) -> None:
    """The grid decodes no Content-Encoding: neither a form nor shared data is stored in its compressed form."""
    compressed = {"Content-Encoding": "gzip"}
    for path, method in (("/submit/packed", "POST"), ("/batches", "POST"), ("/data/packed", "PUT")):
        body = gzip.compress(part(FILE) + f"--{BOUNDARY}--\r\n".encode())
        answer = await grid.http.request(method, path, content=body, headers={**FORM_TYPE, **compressed})
        assert (answer.status_code, word(answer)) == (422, "invalid-request")
        assert "Content-Encoding 'gzip'" in answer.json()["detail"]
    assert "packed" not in (await grid.http.get("/data")).text


async def test_an_event_is_one_line_whatever_an_input_is_called(grid: SmallGrid) -> None:
    """Separators of lines in a name are escaped in events: some clients would take them for the end of the line."""
    name = "a\u2028b\u2029c.csv"
    answer = await grid.http.post("/submit/lines", files={"file": (name, b"x")})
    assert answer.status_code == 200, answer.text
    text = (await grid.http.get("/events?job=lines")).text
    assert text.splitlines() == text.split("\n")[: len(text.splitlines())]
    assert [event.data["input_name"] for event in events_of(text) if event.kind == "state"][-1] == name
