"""The border of the grid: API keys, problem documents, and an OpenAPI description that matches the answers."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from raygrid.parent.submission import ID_PATTERN, MOST_ID
from tests.support.http import FORM_TYPE, form_body, unzip, word
from tests.support.small_grid import SmallGrid

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "correct-horse-battery-staple"
RIGHT = {"Authorization": f"Bearer {KEY}"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grid(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SmallGrid]:
    keys = [{"name": "desk", "key": KEY}, {"name": "other", "key": "a-second-key-of-length"}]
    async with SmallGrid(
        tmp_path_factory.mktemp("grid"),
        http={"api_keys": keys, "max_body": 200_000, "max_batch_jobs": 3},
        routing={"max_queued": 50},
    ) as running:
        yield running


ROUTES = [
    ("POST", "/submit/x"),
    ("POST", "/submit"),
    ("POST", "/batches"),
    ("GET", "/batches"),
    ("GET", "/batches/x"),
    ("GET", "/batches/x/results"),
    ("DELETE", "/batches/x"),
    ("PUT", "/data/x"),
    ("GET", "/data"),
    ("GET", "/data/x"),
    ("DELETE", "/data/x"),
    ("POST", "/keys"),
    ("GET", "/keys"),
    ("POST", "/keys/x/rotate"),
    ("DELETE", "/keys/x"),
    ("GET", "/status/x"),
    ("GET", "/result/x"),
    ("DELETE", "/jobs/x"),
    ("GET", "/jobs"),
    ("GET", "/events?job=x"),
    ("GET", "/capacity"),
    ("GET", "/groups"),
    ("GET", "/nodes"),
    ("GET", "/traffic"),
    ("POST", "/nodes/x/drain"),
    ("POST", "/groups/x/handover"),
    ("DELETE", "/nodes/x/drain"),
    ("GET", "/pricers"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_no_request_is_handed_to_a_thread_of_the_web_framework(
    grid: SmallGrid, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    """A function that is no coroutine would use one, which costs each request a good part of a millisecond."""

    async def hand_over(*_: object, **__: object) -> None:
        handed_over.append(path)

    handed_over: list[str] = []
    monkeypatch.setattr("fastapi.dependencies.utils.run_in_threadpool", hand_over)
    monkeypatch.setattr("fastapi.routing.run_in_threadpool", hand_over)
    waits = {"wait": "0"} if path in {"/submit/x", "/result/x", "/batches/x/results"} else None
    async with grid.http.stream(method, path, headers=RIGHT, params=waits):
        pass
    assert handed_over == []


@pytest.mark.parametrize(
    ("method", "path", "fragment"),
    [
        ("GET", "/jobs?stat=failed", "known are batch, cursor, limit, owner, state"),
        ("GET", "/status/x?wait=1", "there are none"),
        ("POST", "/submit/x?pricer=risk", "-F pricer=VALUE"),
        ("POST", "/batches?timeout_s=5", "-F timeout_s=VALUE"),
        ("DELETE", "/batches/x?state=queued", "there are none"),
        ("GET", "/jobs?state=failed&state=done", "given twice"),
    ],
)
async def test_a_query_parameter_that_a_route_does_not_have_is_refused(
    grid: SmallGrid, method: str, path: str, fragment: str
) -> None:
    """It would be ignored: everything listed or cancelled, or another pricer run, with an answer that looks right."""
    answer = await grid.http.request(method, path, headers=RIGHT)
    assert (answer.status_code, word(answer)) == (422, "invalid-request")
    assert fragment in answer.json()["detail"]
    assert (await grid.http.request(method, path)).status_code == 401, "without a key the answer reveals nothing"


@pytest.mark.parametrize("path", ["/health/ready", "/docs"])
async def test_probes_may_add_parameters(grid: SmallGrid, path: str) -> None:
    """Monitors add parameters of their own, against caches."""
    assert (await grid.http.get(f"{path}?t=1")).status_code == 200


async def test_a_path_with_a_slash_at_its_end_is_not_redirected(grid: SmallGrid) -> None:
    """A redirect names the scheme that the parent was asked with: a client behind TLS would go on in plain text."""
    answer = await grid.http.get("/jobs/", headers=RIGHT)
    assert (answer.status_code, word(answer), answer.headers.get("location")) == (404, "not-found", None)


DESCRIPTION = [("GET", "/openapi.json")]


@pytest.mark.parametrize(("method", "path"), ROUTES + DESCRIPTION)
@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer wrong-key-of-some-length", f"Basic {KEY}", KEY, f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer"],
)
async def test_without_the_right_key_there_is_no_answer(
    grid: SmallGrid, method: str, path: str, authorization: str | None
) -> None:
    """Every route but health refuses a missing, malformed or wrong key with 401, and describes how to send one."""
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = await grid.http.request(method, path, headers=headers)
    assert (answer.status_code, word(answer)) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert KEY not in answer.text


async def test_every_route_is_behind_the_key(grid: SmallGrid) -> None:
    """Every route of the application is in this test's list, so that none is open by accident."""
    described = (await grid.http.get("/openapi.json", headers=RIGHT)).json()["paths"]
    known = {(method, path.split("?")[0].replace("/x", "/{}")) for method, path in ROUTES}
    found = {
        (method.upper(), "/".join("{}" if part.startswith("{") else part for part in path.split("/")))
        for path, methods in described.items()
        for method in methods
    }
    assert found - known == {("GET", "/health/live"), ("GET", "/health/ready")}
    assert known <= found


async def test_the_page_of_the_description_opens_without_a_key_and_shows_nothing_of_the_grid(grid: SmallGrid) -> None:
    """A browser cannot send a key before the page has asked for it; all clients get the same page."""
    answer = await grid.http.get("/docs")
    assert answer.status_code == 200
    assert "text/html" in answer.headers["content-type"]
    page = files("raygrid.parent.http").joinpath("docs.html").read_text(encoding="utf-8")
    assert answer.text == page
    assert '"./openapi.json"' in page


async def test_the_page_of_the_description_loads_nothing_from_elsewhere(grid: SmallGrid) -> None:
    """It works offline: it names no other address, and its policy allows the browser no address but the grid."""
    answer = await grid.http.get("/docs")
    assert not re.findall(r"""https?:|//[a-z]+\.|<link|\bsrc=|@import|url\(""", answer.text)
    policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for tag in ("style", "script"):
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(sha256(content.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"


async def test_any_of_the_keys_opens(grid: SmallGrid) -> None:
    """Each configured key is good for everything; health needs none."""
    for key in (KEY, "a-second-key-of-length"):
        answer = await grid.http.get("/capacity", headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 200
    assert (await grid.http.get("/health/live")).status_code == 200
    assert (await grid.http.get("/health/ready")).status_code == 200


async def test_a_key_is_in_no_log_and_no_answer(grid: SmallGrid, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is requested, and however it fails, no log line, answer, job or job's environment contains the key."""
    with caplog.at_level(logging.DEBUG):
        answers = [
            await grid.http.post(
                "/submit/key-1", files={"file": ("a.sh", b"env")}, data={"pricer": "shell"}, headers=RIGHT
            ),
            await grid.http.get("/status/key-1", headers=RIGHT),
            await grid.http.get("/status/nobody", headers=RIGHT),
            await grid.http.post("/submit/key-1", content=b"no form", headers=RIGHT),
            await grid.http.get("/capacity", headers={"Authorization": f"bearer {KEY}, {KEY}"}),
            await grid.http.get("/openapi.json", headers=RIGHT),
        ]
    assert all(KEY not in answer.text and KEY.encode() not in answer.content for answer in answers)
    own = [record for record in caplog.records if not record.name.startswith(("httpcore", "httpx"))]
    assert all(KEY not in record.getMessage() for record in own)
    assert KEY not in repr(grid.settings)


@pytest.mark.parametrize(
    "path", ["/health/live", "/health/ready", "/capacity", "/status/head-1", "/result/head-1", "/docs", "/openapi.json"]
)
async def test_head_answers_as_get_does(grid: SmallGrid, path: str) -> None:
    """Status and headers are those of GET, the body is left out, and the connection stays usable."""
    await grid.submit("head-1", "head -c 100000 /dev/urandom > out")
    got = await grid.http.get(path, headers=RIGHT)
    for _ in range(2):
        head = await grid.http.head(path, headers=RIGHT)
        assert (head.status_code, head.content) == (got.status_code, b"")
        kept = ("content-type", "content-length", "etag")
        assert [head.headers.get(name) for name in kept] == [got.headers.get(name) for name in kept]


async def test_head_does_not_wait_for_a_stream(grid: SmallGrid) -> None:
    """A stream is answered with its headers at once, and the request ends, though the job goes on."""
    await grid.submit("head-2", "sleep 20", wait=0)
    async with asyncio.timeout(10):
        head = await grid.http.head("/events?job=head-2", headers=RIGHT)
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")

    async def no_request_is_open() -> bool:
        return grid.waiting() == 0

    await grid.until(no_request_is_open, within_s=5)
    await grid.http.delete("/jobs/head-2", headers=RIGHT)


async def test_head_changes_nothing(grid: SmallGrid) -> None:
    """Without GET there is no HEAD, and without a key there is neither."""
    refused = await grid.http.head("/submit/x", headers=RIGHT)
    assert refused.status_code == 405
    assert (await grid.http.head("/capacity")).status_code == 401
    assert (await grid.http.head("/nowhere", headers=RIGHT)).status_code == 404
    assert all(
        "head" not in methods
        for methods in (await grid.http.get("/openapi.json", headers=RIGHT)).json()["paths"].values()
    )


async def test_every_error_is_a_problem_document(grid: SmallGrid) -> None:
    """An unknown path, a wrong method and a wrong value all answer with a problem document."""
    lost = await grid.http.get("/nowhere", headers=RIGHT)
    assert (lost.status_code, word(lost)) == (404, "not-found")
    wrong = await grid.http.put("/status/x", headers=RIGHT)
    assert (wrong.status_code, word(wrong)) == (405, "method-not-allowed")
    assert wrong.headers["allow"] == "GET, HEAD"
    several = await grid.http.put("/nodes/x/drain", headers=RIGHT)
    assert (several.status_code, several.headers["allow"]) == (405, "DELETE, POST")
    invalid = await grid.http.get("/jobs?limit=many", headers=RIGHT)
    assert (invalid.status_code, word(invalid)) == (422, "invalid-request")


async def test_an_error_of_the_grid_itself_is_a_problem_without_internals(
    grid: SmallGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect answers 500 with a problem document that allows a retry, and has nothing of the cause."""

    async def broken(*_: object, **__: object) -> None:
        raise KeyError("the-innards")

    monkeypatch.setattr(grid.parent.store, "jobs", broken)
    answer = await grid.http.get("/jobs", headers=RIGHT)
    assert (answer.status_code, word(answer)) == (500, "internal")
    assert "the-innards" not in answer.text
    # The server closes the connection after such an error; a client that did not know would lose its next request.
    assert answer.headers["connection"] == "close"


async def test_a_failed_job_names_where_its_files_are(grid: SmallGrid) -> None:
    """The 422 has the address of what the job left."""
    submit: dict[str, Any] = {"files": {"file": ("a.sh", b"echo x > partial.csv; exit 3")}, "data": {"pricer": "shell"}}
    failed = (await grid.http.post("/submit/left-1", headers=RIGHT, **submit)).json()
    assert failed["result_url"] == "/result/left-1?even_if=failed"
    assert unzip(await grid.http.get(failed["result_url"], headers=RIGHT))["partial.csv"] == b"x\n"
    assert (await grid.http.get("/result/left-1", headers=RIGHT)).json()["result_url"] == failed["result_url"]


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_refused(grid: SmallGrid, announced: bool) -> None:
    """A body over http.max_body gets 413, with an announced length or without one, and leaves nothing."""
    body = form_body([('name="file"; filename="x"', b"x" * 300_000), ('name="pricer"', b"cat")])

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    for method, path in (("POST", "/submit/too-large"), ("POST", "/batches"), ("PUT", "/data/too-large")):
        content = body if announced else pieces()
        answer = await grid.http.request(method, path, content=content, headers={**RIGHT, **FORM_TYPE})
        assert (answer.status_code, word(answer)) == (413, "too-large")
        assert "200000 bytes" in answer.json()["detail"]
    assert (await grid.http.get("/status/too-large", headers=RIGHT)).status_code == 404
    assert not [path for path in (grid.settings.grid_dir / "blobs" / "uploads").glob("*") if path.stat().st_size]


async def test_an_early_refusal_reaches_a_client_that_still_sends(grid: SmallGrid) -> None:
    """A large body without a key is refused before it is read, and the client still gets the answer."""
    answer = await grid.http.post("/submit/early", content=b"x" * 20_000_000, headers=FORM_TYPE)
    assert (answer.status_code, word(answer)) == (401, "unauthorized")


async def test_the_description_documents_what_the_grid_answers(grid: SmallGrid, tmp_path: Path) -> None:
    """Each of a hundred kinds of answer is in /openapi.json with its status and content type."""
    described = (await grid.http.get("/openapi.json", headers=RIGHT)).json()
    http, gate = grid.http, tmp_path / "gate"
    submit: dict[str, Any] = {"files": {"file": ("a.sh", b"echo x")}, "data": {"pricer": "shell"}}
    failing = {"files": {"file": ("a.sh", b"exit 1")}, "data": {"pricer": "shell"}}
    waiting = {
        "files": {"file": ("a.sh", f"while [ ! -e {gate} ]; do sleep 0.02; done".encode())},
        "data": {"pricer": "shell"},
    }
    other = {"files": {"file": ("a.sh", b"echo other")}, "data": {"pricer": "shell"}}
    checked: set[tuple[str, str, int, str]] = set()

    async def ask(method: str, template: str, filled: str | None = None, **more: Any) -> httpx.Response:
        more["headers"] = {**RIGHT, **more.get("headers", {})}
        answer = await http.request(method, filled or template, **more)
        responses = described["paths"][template][method.lower()]["responses"]
        documented = responses.get(str(answer.status_code))
        assert documented is not None, f"{method} {template} answers {answer.status_code}, which is not documented"
        kind = answer.headers.get("content-type", "").split(";")[0]
        assert kind in documented.get("content", {"": {}}), f"{method} {template} {answer.status_code}: {kind!r}"
        checked.add((method, template, answer.status_code, kind))
        return answer

    sync, result, status = "/submit/{jobId}", "/result/{jobId}", "/status/{jobId}"
    etag = (await ask("POST", sync, "/submit/doc-1", **submit)).headers["etag"]
    await ask("POST", sync, "/submit/doc-1", **other)
    await ask("POST", sync, "/submit/doc-out", files={"file": b"x"}, data={"pricer": "cat"})
    await ask("POST", sync, "/submit/doc-bad", **failing)
    await ask("POST", sync, "/submit/doc-wait?wait=0", **waiting)
    await ask("POST", sync, "/submit/..%20", **submit)
    await ask("POST", sync, "/submit/doc-none", content=b"")
    await ask("POST", sync, "/submit/doc-large", files={"file": b"x" * 300_000})
    await ask("POST", sync, "/submit/doc-key", headers={"Authorization": "no"}, **submit)
    await ask("POST", "/submit", **submit)
    await ask("POST", "/submit", content=b"")
    await ask("POST", "/submit", headers={"Authorization": "no"})
    await ask("POST", "/submit", files={"file": b"other"}, data={"pricer": "cat", "jobId": "doc-1"})
    await ask("POST", "/submit", files={"file": b"x" * 300_000})
    await ask("GET", status, "/status/doc-1")
    await ask("GET", status, "/status/doc-nobody")
    await ask("GET", status, "/status/a%20b")
    await ask("GET", status, "/status/doc-1", headers={"Authorization": "no"})
    await ask("GET", result, "/result/doc-1")
    await ask("GET", result, "/result/doc-1", headers={"If-None-Match": etag})
    await ask("GET", result, "/result/doc-wait")
    await ask("GET", result, "/result/doc-bad")
    await ask("GET", result, "/result/doc-bad?even_if=failed")
    await ask("GET", result, "/result/doc-bad?even_if=x")
    await ask("GET", result, "/result/doc-1", headers={"Authorization": "no"})
    await ask("DELETE", "/jobs/{jobId}", "/jobs/doc-wait")
    await grid.until_state("doc-wait", "cancelled")
    await ask("GET", result, "/result/doc-wait")
    await ask("POST", sync, "/submit/doc-wait", **waiting)
    await ask("DELETE", "/jobs/{jobId}", "/jobs/doc-nobody")
    await ask("DELETE", "/jobs/{jobId}", "/jobs/a%20b")
    await ask("GET", "/jobs")
    await ask("GET", "/jobs", "/jobs?state=odd")
    await ask("GET", "/events", "/events?job=doc-1")
    await ask("GET", "/events")
    await ask("GET", "/events", "/events?job=doc-nobody")
    await ask("POST", "/batches", files={"doc-b-1": ("a.sh", b"echo x")}, data={"pricer": "shell", "batchId": "doc-b"})
    await ask("POST", "/batches", files={"doc-1": b"other"}, data={"pricer": "cat"})
    await ask("POST", "/batches", files={f"doc-m-{i}": b"x" for i in range(4)}, data={"pricer": "cat"})
    await ask("POST", "/batches", content=b"")
    batch = "/batches/{batchId}"
    await ask("GET", f"{batch}/results", "/batches/doc-b/results")
    await ask("GET", f"{batch}/results", "/batches/doc-nobody/results")
    await ask("GET", f"{batch}/results", "/batches/doc-b/results?cursor=-1")
    await ask("GET", batch, "/batches/doc-b")
    await ask("GET", batch, "/batches/doc-nobody")
    await ask("DELETE", batch, "/batches/doc-b")
    await ask("DELETE", batch, "/batches/doc-nobody")
    await ask("PUT", "/data/{name}", "/data/doc", content=b"x")
    await ask("PUT", "/data/{name}", "/data/doc", content=b"")
    await ask("PUT", "/data/{name}", "/data/doc", content=b"x" * 300_000)
    for method in ("POST", "DELETE"):
        await ask(method, "/nodes/{node}/drain", "/nodes/rack-a-1/drain")
        await ask(method, "/nodes/{node}/drain", "/nodes/nobody/drain")
        await ask(method, "/nodes/{node}/drain", "/nodes/nobody/drain", headers={"Authorization": "no"})
    await ask("POST", "/nodes/{node}/drain", "/nodes/rack-a-1/drain?deadline_s=-1")
    for path in ("/data", "/capacity", "/groups", "/nodes", "/traffic", "/pricers", "/health/live", "/health/ready"):
        await ask("GET", path)
        if not path.startswith("/health"):
            await ask("GET", path, headers={"Authorization": "no"})
    await grid.purge(timedelta(days=8))
    await ask("GET", result, "/result/doc-1")
    await ask("POST", sync, "/submit/doc-1", **submit)
    gate.touch()
    grid.hide_leaders()

    async def alone() -> bool:
        return (await http.get("/health/ready")).status_code == 503

    await grid.until(alone)
    await ask("GET", "/health/ready")
    await ask("POST", sync, "/submit/doc-503", **submit)
    await ask("POST", "/submit", **submit)
    await ask("POST", "/batches", files={"doc-b-9": b"x"}, data={"pricer": "cat"})
    grid.show_leaders()
    statuses = {status for _, _, status, _ in checked}
    assert statuses == {200, 201, 202, 304, 401, 404, 409, 410, 413, 422, 503}


async def test_the_description_names_no_media_type_that_does_not_come(grid: SmallGrid) -> None:
    """A generated client takes what is listed: results and streams are no JSON, all else is only JSON."""
    described = (await grid.http.get("/openapi.json", headers=RIGHT)).json()
    special = {
        ("post", "/submit/{jobId}", "200"): {"application/zip", "application/octet-stream"},
        ("get", "/result/{jobId}", "200"): {"application/zip"},
        ("get", "/result/{jobId}", "304"): set(),
        ("get", "/events", "200"): {"text/event-stream"},
        ("get", "/batches/{batchId}/results", "200"): {"multipart/mixed"},
        ("get", "/data/{name}", "200"): {"application/octet-stream"},
        ("delete", "/data/{name}", "204"): set(),
    }
    found = {
        (method, path, status): set(response.get("content", {}))
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        for status, response in operation["responses"].items()
        if status[0] in "23"
    }
    assert special.keys() <= found.keys()
    for where, kinds in found.items():
        assert kinds == special.get(where, {"application/json"}), where


async def test_the_description_says_what_is_refused(grid: SmallGrid) -> None:
    """Ids have patterns in paths, queries and forms, inputs are not empty, and `jobId` is in one form only."""
    paths = (await grid.http.get("/openapi.json", headers=RIGHT)).json()["paths"]

    def form(path: str) -> Any:
        return paths[path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]

    assert "jobId" not in form("/submit/{jobId}")["properties"]
    ids = [form("/submit")["properties"]["jobId"], form("/batches")["properties"]["batchId"]]
    ids += [form(path)["properties"]["data"]["items"] for path in ("/submit", "/submit/{jobId}", "/batches")]
    for path, methods in paths.items():
        for operation in methods.values():
            named = ("jobId", "batchId", "name", "job", "batch", "cursor")
            ids += [
                each["schema"]
                for each in operation.get("parameters", ())
                if each["name"] in named and path != "/batches/{batchId}/results"  # its cursor is a number
            ]
    assert len(ids) == 19
    assert all((each["pattern"], each["minLength"], each["maxLength"]) == (ID_PATTERN, 1, MOST_ID) for each in ids)
    assert form("/submit")["properties"]["file"]["minLength"] == 1
    assert form("/submit")["properties"]["timeout_s"]["exclusiveMinimum"] == 0
    assert form("/batches")["additionalProperties"]["minLength"] == 1
    stored = paths["/data/{name}"]["put"]["requestBody"]["content"]["application/octet-stream"]["schema"]
    assert stored["minLength"] == 1
    assert "exactly one of `job` and `batch`" in paths["/events"]["get"]["description"]


async def test_every_route_documents_its_answers(grid: SmallGrid) -> None:
    """No operation is without a summary, a success, and problem documents for what may go wrong."""
    described = (await grid.http.get("/openapi.json", headers=RIGHT)).json()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            statuses = set(operation["responses"])
            assert any(status.startswith("2") for status in statuses), where
            if not path.startswith("/health"):
                assert {"401", "403", "429"} <= statuses, where  # 429: the key has used up its requests
            for status, response in operation["responses"].items():
                assert response["description"], where
                if status[0] in "45":
                    assert set(response["content"]) == {"application/problem+json"}, f"{where} {status}"


async def test_without_a_key_readiness_has_no_reason(grid: SmallGrid) -> None:
    """Balancers need the status; the reason names nodes, groups and places."""

    async def is_ready() -> bool:
        return (await grid.http.get("/health/ready")).status_code == 200

    async def is_drained() -> bool:
        return not await is_ready()

    await grid.until(is_ready)
    nodes = [node["node"] for node in (await grid.http.get("/nodes", headers=RIGHT)).json()["nodes"]]
    for node in nodes:
        await grid.http.post(f"/nodes/{node}/drain", headers=RIGHT)
    try:
        await grid.until(is_drained)
        with_key, without = [await grid.http.get("/health/ready", headers=each) for each in (RIGHT, {})]
        assert nodes[0] in with_key.json()["detail"]
        assert (without.status_code, word(without)) == (503, "unavailable")
        assert not any(node in without.text for node in nodes)
        assert "with an API key" in without.json()["detail"]
    finally:
        for node in nodes:
            await grid.http.delete(f"/nodes/{node}/drain", headers=RIGHT)
        await grid.until(is_ready)


@pytest.mark.parametrize("path", ["/health/live", "/docs", "/jobs", "/nowhere"])
@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}],
)
async def test_pages_of_other_sites_and_other_names_of_this_machine_are_refused(
    grid: SmallGrid, path: str, headers: dict[str, str]
) -> None:
    """With and without a key, on every path."""
    answer = await grid.http.get(path, headers={**RIGHT, **headers})
    assert (answer.status_code, word(answer)) == (403, "forbidden")
    assert "access-control-allow-origin" not in answer.headers
