"""Who may do what: keys, roles and owners over HTTP, and what the audit log has of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from raygrid.core.access import KEY, Role
from raygrid.parent.audit import AuditLog
from raygrid.parent.http import auth
from tests.support.http import raw_request, status_of, unzip, word
from tests.support.small_grid import SHELL, SmallGrid

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN = {"Authorization": "Bearer correct-horse-battery-staple"}
DAY_S = 86_400.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grid(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SmallGrid]:
    directory = tmp_path_factory.mktemp("grid")
    keys = [{"name": "boss", "key": "correct-horse-battery-staple"}]
    shared = {**SHELL, "reuse": "content", "reuse_across_owners": True}
    own = {**SHELL, "reuse": "content"}
    pricers = {"shell": SHELL, "other": SHELL, "shared": shared, "own": own}
    running = SmallGrid(directory, http={"api_keys": keys}, pricers=pricers, default_pricer="shell")
    running.audit = AuditLog(directory / "logs")
    async with running:
        yield running
    running.audit.close()


async def key(grid: SmallGrid, owner: str, *roles: str, **more: Any) -> dict[str, str]:
    """The header with a new key."""
    made = await grid.http.post("/keys", json={"owner": owner, "roles": roles, **more}, headers=ADMIN)
    assert made.status_code == 201, made.text
    return {"Authorization": f"Bearer {made.json()['key']}"}


def id_of(header: dict[str, str]) -> str:
    found = KEY.fullmatch(header["Authorization"].removeprefix("Bearer "))
    assert found is not None
    return found[1]


async def submit(grid: SmallGrid, job_id: str, header: dict[str, str], **more: str) -> httpx.Response:
    files = {"file": ("job.sh", b"echo priced")}
    return await grid.http.post(f"/submit/{job_id}", files=files, data=more, headers=header)


# --- roles ----------------------------------------------------------------------------------------------------------

FORM = {"files": {"file": ("job.sh", b"echo x")}}
EVERY = set(Role)
# What a request needs: the roles of which one is enough, and what it is answered if the key has it.
REQUESTS: list[tuple[str, str, dict[str, Any], set[Role], int]] = [
    ("POST", "/submit/role-{role}", FORM, {Role.SUBMIT}, 200),
    ("POST", "/submit", FORM, {Role.SUBMIT}, 202),
    ("POST", "/batches", {"files": {"b-{role}": ("job.sh", b"echo x")}}, {Role.SUBMIT}, 202),
    ("GET", "/batches", {}, {Role.READ, Role.OPERATE}, 200),
    ("GET", "/batches/none", {}, {Role.READ, Role.OPERATE}, 404),
    ("GET", "/batches/none/results", {}, {Role.READ}, 404),
    ("DELETE", "/batches/none", {}, {Role.SUBMIT, Role.OPERATE}, 404),
    ("GET", "/jobs", {}, {Role.READ, Role.OPERATE}, 200),
    ("GET", "/status/none", {}, {Role.READ, Role.OPERATE}, 404),
    ("GET", "/result/none", {}, {Role.READ}, 404),
    ("GET", "/events?job=none", {}, {Role.READ, Role.OPERATE}, 404),
    ("DELETE", "/jobs/none", {}, {Role.SUBMIT, Role.OPERATE}, 404),
    ("PUT", "/data/of-{role}", {"content": b"curve"}, {Role.DATA}, 201),
    ("GET", "/data", {}, {Role.READ, Role.DATA}, 200),
    ("GET", "/data/none", {}, {Role.READ, Role.DATA}, 404),
    ("DELETE", "/data/none", {}, {Role.DATA}, 404),
    ("GET", "/capacity", {}, EVERY, 200),
    ("GET", "/pricers", {}, EVERY, 200),
    ("GET", "/traffic", {}, EVERY, 200),
    ("GET", "/nodes", {}, EVERY, 200),
    ("GET", "/groups", {}, EVERY, 200),
    ("GET", "/openapi.json", {}, EVERY, 200),
    ("POST", "/nodes/none/drain", {}, {Role.OPERATE}, 404),
    ("DELETE", "/nodes/none/drain", {}, {Role.OPERATE}, 404),
    ("POST", "/groups/none/handover", {}, {Role.OPERATE}, 404),
    ("POST", "/keys", {"json": {"owner": "x", "roles": ["read"]}}, set(), 201),
    ("GET", "/keys", {}, set(), 200),
    ("POST", "/keys/none/rotate", {}, set(), 404),
    ("DELETE", "/keys/none", {}, set(), 404),
]


def named(values: dict[str, Any], role: str) -> dict[str, Any]:
    """The parts of a request, with the role in the names of files."""
    files = {name.format(role=role): file for name, file in values.get("files", {}).items()}
    return {**values, "files": files} if files else values


@pytest.mark.parametrize("role", list(Role))
async def test_a_key_may_do_what_its_role_allows_and_nothing_else(grid: SmallGrid, role: Role) -> None:
    """Each route is refused with 403 unless the key has one of its roles; an admin may do everything."""
    header = await key(grid, f"owner-{role}", role)
    for method, path, values, roles, status in REQUESTS:
        allowed = role in roles or role is Role.ADMIN
        answer = await grid.http.request(method, path.format(role=role), headers=header, **named(values, role))
        assert answer.status_code == (status if allowed else 403), (method, path, answer.text)
        if not allowed:
            assert word(answer) == "forbidden"
            assert str(role) in answer.json()["detail"]


async def test_every_route_is_in_the_table_and_refuses_a_request_without_a_key(grid: SmallGrid) -> None:
    """No route was forgotten: each asks for a key, and this file says which roles it needs."""
    described = grid.app.openapi()["paths"]
    routes = {(method.upper(), path) for path, methods in described.items() for method in methods}
    open_to_all = {("GET", "/health/live"), ("GET", "/health/ready")}
    known = {(method, shape_of(path)) for method, path, *_ in REQUESTS}
    assert {(method, shape_of(path)) for method, path in routes - open_to_all} | {("GET", "/openapi.json")} == known
    for method, path, values, *_ in REQUESTS:
        answer = await grid.http.request(method, path.format(role="none"), **named(values, "none"))
        assert (answer.status_code, word(answer)) == (401, "unauthorized"), (method, path)


async def test_a_body_that_is_no_text_is_an_invalid_request(grid: SmallGrid) -> None:
    """Its answer is the one of other bad bodies, and in the description."""
    for path in ("/keys", "/keys/none/rotate"):
        for body in (b"\xff", b"{", b"[" * 60_000):
            answer = await grid.http.post(path, content=body, headers={**ADMIN, "Content-Type": "application/json"})
            assert (answer.status_code, word(answer)) == (422, "invalid-request"), (path, answer.text)


@pytest.mark.parametrize("wrong", [{"lifetime_s": True}, {"lifetime_s": "60"}, {"limits": {"bytes": True}}])
async def test_a_number_of_a_key_is_a_number(grid: SmallGrid, wrong: dict[str, Any]) -> None:
    """`true` is not one second or one byte."""
    answer = await grid.http.post("/keys", json={"owner": "x", "roles": ["read"], **wrong}, headers=ADMIN)
    assert (answer.status_code, word(answer)) == (422, "invalid-request")
    limits = {"limits": {"bytes": 5.0}}  # JSON has one kind of numbers
    assert (await grid.http.post("/keys", json={"owner": "x", "roles": ["read"], **limits}, headers=ADMIN)).is_success
    answer = await grid.http.post("/keys/none/rotate", json={"overlap_s": False}, headers=ADMIN)
    assert (answer.status_code, word(answer)) == (422, "invalid-request")


async def test_a_stranger_cannot_fill_the_memory_of_a_parent(grid: SmallGrid) -> None:
    """A large JSON body is refused as soon as too much of it has arrived, also without a key."""
    for path in ("/keys", "/keys/none/rotate"):
        head = f"POST {path} HTTP/1.1\nContent-Type: application/json\nContent-Length: 1000000000"
        assert status_of(await raw_request(grid.url, head, b" " * 100_000)) == 413


def shape_of(path: str) -> str:
    """A path with `*` for everything that a request chooses."""
    return re.sub(r"(?<=/)(\{\w+\}|none|[a-z]+-\{role\})(?=/|$)", "*", path.partition("?")[0])


# --- owners ---------------------------------------------------------------------------------------------------------


async def test_what_another_owner_has_cannot_be_seen_or_changed(grid: SmallGrid) -> None:
    """Reading another owner's job, batch or data is 404, and writing it 409, whatever is sent."""
    rates = await key(grid, "rates", "read", "submit", "data")
    credit = await key(grid, "credit", "read", "submit", "data")
    assert (await submit(grid, "r-1", rates)).status_code == 200
    files = [("r-2", ("job.sh", b"echo 2"))]
    assert (await grid.http.post("/batches", files=files, data={"batchId": "r"}, headers=rates)).status_code == 202
    assert (await grid.http.put("/data/curve", content=b"1.5", headers=rates)).status_code == 201

    reads = ["/status/r-1", "/result/r-1", "/batches/r", "/batches/r/results", "/events?job=r-1", "/events?batch=r"]
    for path in (*reads, "/data/curve"):
        answer = await grid.http.get(path, headers=credit)
        assert answer.status_code == 404, path
    for answer in (
        await submit(grid, "r-1", credit),
        await grid.http.delete("/jobs/r-1", headers=credit),
        await grid.http.delete("/batches/r", headers=credit),
        await grid.http.post("/batches", files=[("c-1", ("job.sh", b"x"))], data={"batchId": "r"}, headers=credit),
        await grid.http.put("/data/curve", content=b"1.5", headers=credit),
        await grid.http.delete("/data/curve", headers=credit),
    ):
        assert (answer.status_code, word(answer)) == (409, "conflict"), answer.text
        assert "another owner" in answer.json()["detail"]
    assert (await grid.http.get("/status/c-1", headers=ADMIN)).status_code == 404
    files = [("r-1", ("job.sh", b"echo priced")), ("c-2", ("job.sh", b"echo 2"))]
    batch = (await grid.http.post("/batches", files=files, data={"batchId": "c"}, headers=credit)).json()
    assert ([each["jobId"] for each in batch["refused"]], batch["total"]) == (["r-1"], 1)
    uses = await submit(grid, "c-3", credit, data="curve")
    assert (uses.status_code, word(uses)) == (422, "unknown-data")

    for path, member in (("/jobs", "jobs"), ("/batches", "batches"), ("/data", "data")):
        theirs = (await grid.http.get(path, headers=credit)).json()[member]
        assert {each["owner"] for each in theirs} <= {"credit"}
    assert (await grid.http.get("/jobs?owner=rates", headers=credit)).json()["jobs"] == []
    assert (await grid.http.get("/result/r-1", headers=rates)).status_code == 200


async def test_an_operator_sees_and_cancels_every_job_but_reads_no_result(grid: SmallGrid) -> None:
    """Operators need the state of all jobs, and not what they priced."""
    desk, operator = await key(grid, "desk", "submit"), await key(grid, "ops", "operate")
    files = {"file": ("job.sh", b"sleep 1000")}
    assert (await grid.http.post("/submit/slow?wait=0", files=files, headers=desk)).status_code == 202
    status = (await grid.http.get("/status/slow", headers=operator)).json()
    assert (status["owner"], status["cancelled_by"]) == ("desk", None)
    assert "slow" in {
        each["jobId"] for each in (await grid.http.get("/jobs?owner=desk", headers=operator)).json()["jobs"]
    }
    assert (await grid.http.delete("/jobs/slow", headers=operator)).status_code == 202

    async def cancelled() -> bool:
        return bool((await grid.http.get("/status/slow", headers=operator)).json()["state"] == "cancelled")

    await grid.until(cancelled)
    assert (await grid.http.get("/status/slow", headers=operator)).json()["cancelled_by"] == "ops"
    assert (await grid.http.get("/result/slow", headers=operator)).status_code == 403


async def test_an_owner_is_in_the_manifest_and_in_the_drain(grid: SmallGrid) -> None:
    """Results and drains tell whose they are."""
    header = await key(grid, "fx", "submit", "operate")
    manifest = json.loads(unzip(await submit(grid, "of-fx", header))["manifest.json"])
    assert (manifest["owner"], manifest["jobId"]) == ("fx", "of-fx")
    drained = await grid.http.post("/nodes/rack-a-1/drain", headers=header)
    assert drained.json()["drained_by"] == "fx"

    async def shown() -> bool:
        [node] = (await grid.http.get("/nodes", headers=header)).json()["nodes"]
        return bool(node["drained_by"] == "fx")

    await grid.until(shown)
    assert (await grid.http.delete("/nodes/rack-a-1/drain", headers=header)).json()["drained_by"] is None


async def test_equal_jobs_of_two_owners_share_a_result_only_if_the_pricer_allows_it(grid: SmallGrid) -> None:
    """By default each owner's job runs; with `reuse_across_owners` the source stays hidden, in the manifest too."""
    one, two = await key(grid, "one", "submit", "read"), await key(grid, "two", "submit", "read")
    assert (await submit(grid, "own-1", one, pricer="own")).status_code == 200
    assert "Raygrid-Reused-From" not in (await submit(grid, "own-2", two, pricer="own")).headers
    assert (await submit(grid, "own-3", one, pricer="own")).headers["Raygrid-Reused-From"] == "own-1"

    assert (await submit(grid, "shared-1", one, pricer="shared")).status_code == 200
    answer = await submit(grid, "shared-2", two, pricer="shared")
    assert answer.headers["Raygrid-Reused-From"] == "*"
    assert (await grid.http.get("/status/shared-2", headers=two)).json()["reusedFrom"] == "*"
    manifest = json.loads(unzip(answer)["manifest.json"])
    assert manifest.keys().isdisjoint({"jobId", "owner", "node"})
    assert "shared-1" not in unzip(answer)["manifest.json"].decode()


# --- shared data ----------------------------------------------------------------------------------------------------


async def test_data_can_be_fetched_and_removed_and_jobs_keep_what_they_were_submitted_with(grid: SmallGrid) -> None:
    """A removed name is gone, and its content only when nothing needs it any more."""
    header = await key(grid, "market", "submit", "read", "data")
    content = b"EUR 1.0812\n" * 1_000_000  # more than one piece
    digest = (await grid.http.put("/data/rates", content=content, headers=header)).json()["digest"]
    fetched = await grid.http.get("/data/rates", headers=header)
    assert (fetched.content, fetched.headers["etag"]) == (content, f'"{digest}"')
    files = {"file": ("job.sh", b"sleep 0.5; head -1 data/rates")}
    waiting = await grid.http.post("/submit/with-data?wait=0", files=files, data={"data": "rates"}, headers=header)
    assert waiting.status_code == 202
    assert (await grid.http.delete("/data/rates", headers=header)).status_code == 204
    assert (await grid.http.get("/data/rates", headers=header)).status_code == 404
    result = await grid.http.get("/result/with-data?wait=60", headers=header)
    assert unzip(result)["stdout.txt"] == b"EUR 1.0812\n"

    path = Path(grid.settings.blobs_url) / "data" / digest
    await grid.purge(timedelta(days=grid.settings.storage.retention_days) - timedelta(hours=1))
    assert path.exists()
    await grid.purge(timedelta(days=grid.settings.storage.retention_days, hours=1))
    assert not path.exists()
    assert (await grid.http.put("/data/rates", content=content, headers=header)).status_code == 201
    assert path.exists()


# --- keys -----------------------------------------------------------------------------------------------------------


async def test_only_digests_of_keys_are_kept(grid: SmallGrid) -> None:
    """A key is shown once; neither its list nor the job store has it."""
    header = await key(grid, "secretive", "read")
    text = header["Authorization"].removeprefix("Bearer ")
    listed = await grid.http.get("/keys", headers=ADMIN)
    assert id_of(header) in listed.text
    assert text.rpartition("_")[2] not in listed.text
    stored = b"".join(path.read_bytes() for path in grid.settings.grid_dir.glob("jobs.db*"))
    assert id_of(header).encode() in stored
    assert text.rpartition("_")[2].encode() not in stored


async def test_a_revoked_key_is_refused_by_every_parent_within_a_second(grid: SmallGrid) -> None:
    """One parent revokes it; the other one reads that in the job store."""
    header = await key(grid, "leaver", "read")
    other = await grid.deploy(beside=True)

    async def accepted() -> bool:
        return (await other.get("/jobs", headers=header)).status_code == 200

    await grid.until(accepted, within_s=5)
    assert (await grid.http.delete(f"/keys/{id_of(header)}", headers=ADMIN)).status_code == 200
    assert (await grid.http.get("/jobs", headers=header)).status_code == 401
    loop = asyncio.get_running_loop()
    revoked_at = loop.time()

    async def refused() -> bool:
        return (await other.get("/jobs", headers=header)).status_code == 401

    await grid.until(refused, within_s=5)
    # The limit of this test is wide, because the machine may be busy; the parent reads twice per second.
    assert loop.time() - revoked_at < 3


async def test_during_a_rotation_two_keys_are_valid(grid: SmallGrid) -> None:
    """The successor has the same rights, and the old key ends with the overlap."""
    old = await key(grid, "desk", "read", "submit", pricers=["other"], lifetime_s=DAY_S)
    answer = await grid.http.post(f"/keys/{id_of(old)}/rotate", json={"overlap_s": 1.5}, headers=ADMIN)
    made = answer.json()
    new = {"Authorization": f"Bearer {made['key']}"}
    assert (made["owner"], made["roles"], made["pricers"], made["replaces"]) == (
        "desk",
        ["read", "submit"],
        ["other"],
        id_of(old),
    )
    for header in (old, new):
        assert (await grid.http.get("/jobs", headers=header)).status_code == 200

    async def old_is_refused() -> bool:
        return (await grid.http.get("/jobs", headers=old)).status_code == 401

    await grid.until(old_is_refused, within_s=10)
    assert (await grid.http.get("/jobs", headers=new)).status_code == 200
    assert (await grid.http.post(f"/keys/{id_of(old)}/rotate", headers=ADMIN)).status_code == 404


async def test_an_expired_key_is_refused(grid: SmallGrid) -> None:
    """A key ends with its lifetime."""
    header = await key(grid, "visitor", "read", lifetime_s=0.2)

    async def refused() -> bool:
        return (await grid.http.get("/jobs", headers=header)).status_code == 401

    await grid.until(refused, within_s=10)


async def test_a_key_holds_its_owner_to_its_limits(grid: SmallGrid) -> None:
    """Pricers, unfinished jobs, bytes and requests."""
    header = await key(
        grid, "small", "submit", "data", "read", pricers=["shell"], limits={"queued_jobs": 2, "bytes": 10_000}
    )
    assert [each["name"] for each in (await grid.http.get("/pricers", headers=header)).json()["pricers"]] == ["shell"]
    refused = await submit(grid, "not-mine", header, pricer="other")
    assert (refused.status_code, word(refused)) == (403, "forbidden")

    slow = {"file": ("job.sh", b"sleep 1000")}
    for name in ("q-1", "q-2"):
        assert (await grid.http.post(f"/submit/{name}?wait=0", files=slow, headers=header)).status_code == 202
    full = await submit(grid, "q-3", header)
    assert (full.status_code, word(full)) == (429, "busy")
    assert "Retry-After" in full.headers
    for name in ("q-1", "q-2"):
        await grid.http.delete(f"/jobs/{name}", headers=header)

    async def room() -> bool:
        return (await submit(grid, "q-3", header)).status_code == 200

    await grid.until(room)
    many = [(f"m-{n}", ("job.sh", b"x")) for n in range(3)]

    async def too_many() -> bool:  # before that, the jobs above may still count, so that there is no room for any
        status = (await grid.http.post("/batches", files=many, headers=header)).status_code
        assert status in (413, 429)
        return status == 413

    await grid.until(too_many)
    assert (await grid.http.put("/data/large", content=b"x" * 20_000, headers=header)).status_code == 413
    assert (await grid.http.put("/data/fits", content=b"x" * 9_000, headers=header)).status_code == 201

    async def counted() -> bool:
        return (await grid.http.put("/data/more", content=b"x" * 9_000, headers=header)).status_code == 413

    await grid.until(counted)

    hasty = await key(grid, "hasty", "read", limits={"requests_per_minute": 3})
    states = [(await grid.http.get("/jobs", headers=hasty)).status_code for _ in range(4)]
    assert states == [200, 200, 200, 429]


async def test_guesses_of_keys_are_limited_and_valid_keys_are_not(
    grid: SmallGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some wrong keys an address gets 429, but a right key is always accepted."""
    monkeypatch.setattr(auth, "MOST_FAILURES", 5)
    wrong = {"Authorization": "Bearer rg_aaaaaaaaaa_" + "x" * 43}
    states = [(await grid.http.get("/jobs", headers=wrong)).status_code for _ in range(12)]
    assert set(states) <= {401, 429}
    assert states[-1] == 429
    assert (await grid.http.get("/jobs", headers=ADMIN)).status_code == 200


@pytest.mark.parametrize(
    "values",
    [
        {"owner": "", "roles": ["read"]},
        {"owner": "a b", "roles": ["read"]},
        {"owner": "x", "roles": []},
        {"owner": "x", "roles": ["root"]},
        {"owner": "x", "roles": ["read"], "lifetime_s": -1},
        {"owner": "x", "roles": ["read"], "limits": {"queued_jobs": 0}},
        {"owner": "x", "roles": ["read"], "until": "tomorrow"},
        {"roles": ["read"]},
        [],
    ],
)
async def test_a_wrong_request_for_a_key_is_refused(grid: SmallGrid, values: Any) -> None:
    """No key is made of it."""
    before = len((await grid.http.get("/keys", headers=ADMIN)).json()["keys"])
    answer = await grid.http.post("/keys", json=values, headers=ADMIN)
    assert (answer.status_code, word(answer)) == (422, "invalid-request")
    assert len((await grid.http.get("/keys", headers=ADMIN)).json()["keys"]) == before


# --- audit ----------------------------------------------------------------------------------------------------------


def audited(grid: SmallGrid) -> list[dict[str, Any]]:
    path = grid.directory / "logs" / "audit.log"
    assert path.stat().st_mode & 0o777 == 0o600
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_the_audit_log_has_changes_results_and_refusals(grid: SmallGrid) -> None:
    """And nothing else; each with who, what, where from, and the id that the answer has."""
    header = await key(grid, "audited", "read", "submit")
    before = len(audited(grid))
    submitted = await submit(grid, "a-1", header)
    await grid.http.get("/status/a-1", headers=header)
    await grid.http.get("/capacity", headers=header)
    fetched = await grid.http.get("/result/a-1", headers=header)
    hidden = await grid.http.get("/status/r-1", headers=header)
    forbidden = await grid.http.get("/keys", headers=header)
    nobody = await grid.http.delete("/jobs/a-1")
    entries = audited(grid)[before:]
    assert [(each["action"], each["status"]) for each in entries] == [
        ("POST /submit/{jobId}", 200),
        ("GET /result/{jobId}", 200),
        ("GET /status/{jobId}", hidden.status_code),
        ("GET /keys", 403),
        ("DELETE /jobs/{jobId}", nobody.status_code),
    ]
    answers = (submitted, fetched, hidden, forbidden, nobody)
    assert [each["request"] for each in entries] == [each.headers["Raygrid-Request-Id"] for each in answers]
    first, last = entries[0], entries[-1]
    assert (first["owner"], first["key"], first["roles"], first["job"], first["address"]) == (
        "audited",
        id_of(header),
        ["read", "submit"],
        "a-1",
        "127.0.0.1",
    )
    assert (last["owner"], last["key"], last["path"]) == (None, None, "/jobs/a-1")
    text = (grid.directory / "logs" / "audit.log").read_text()
    assert header["Authorization"].rpartition("_")[2] not in text


async def test_no_path_can_forge_a_line_of_the_audit_log(grid: SmallGrid) -> None:
    """Line breaks and control characters are escaped."""
    before = len(audited(grid))
    await grid.http.delete('/jobs/x%0A{"owner":"boss"}%1b[2J', headers=ADMIN)
    [entry] = audited(grid)[before:]
    assert entry["path"] == '/jobs/x\n{"owner":"boss"}\x1b[2J'
