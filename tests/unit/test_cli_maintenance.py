"""`raygrid drain` and `raygrid undrain`: their requests, how they wait, and what they print."""

from __future__ import annotations

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from raygrid.cli import app, grid
from raygrid.cli.duration import seconds_of, words_of
from raygrid.client import AsyncClient
from raygrid.errors import NodeNotFoundError
from tests.support.client_fakes import URL, Answers, FakeTime, problem


@pytest.fixture(autouse=True)
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """No real time passes."""
    fake = FakeTime()
    monkeypatch.setenv("RAYGRID_URL", URL)
    monkeypatch.delenv("RAYGRID_API_KEY", raising=False)
    monkeypatch.setattr("raygrid.cli.maintenance.time.monotonic", fake.clock)
    monkeypatch.setattr("raygrid.cli.maintenance.time.sleep", fake.sleep)
    return fake


def node(state: str, running: int = 0, **more: object) -> dict[str, object]:
    return {"node": "n-1", "group": "rack-1", "slots": 4, "running": running, "state": state, "why": None, **more}


def one(state: str, running: int = 0, **more: object) -> httpx.Response:
    return httpx.Response(200, json=node(state, running, **more))


def listed(*states: tuple[str, int] | tuple[str]) -> httpx.Response:
    return httpx.Response(200, json={"nodes": [node(*state) for state in states]})


def run(monkeypatch: pytest.MonkeyPatch, answers: Answers, *words: str) -> Result:
    monkeypatch.setattr(grid, "Client", lambda url, key: answers.client(FakeTime(), key))
    return CliRunner().invoke(app, words)


def test_drain_prints_what_will_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is sent in seconds, and the text states what happens to running jobs."""
    answers = Answers(one("draining", 2), one("draining", 2))
    ended = run(monkeypatch, answers, "drain", "n-1", "--deadline", "10m")
    assert (ended.exit_code, ended.stdout) == (
        0,
        "draining node n-1: no new jobs; what still runs there in 10m is moved to other nodes\n",
    )
    ended = run(monkeypatch, answers, "drain", "n-1")
    assert ended.stdout == "draining node n-1: no new jobs; everything that runs there may finish\n"
    first, second = answers.requests
    assert (first.method, first.url.path, dict(first.url.params)) == (
        "POST",
        "/nodes/n-1/drain",
        {"deadline_s": "600.000"},
    )
    assert dict(second.url.params) == {}


def test_waiting_shows_how_many_are_left_and_ends_when_none_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers are: no drain noticed yet, two jobs, one job, drained."""
    answers = Answers(
        one("draining", 2),
        listed(("ok", 2)),
        listed(("draining", 2)),
        listed(),  # a change of leader
        listed(("draining", 1)),
        listed(("drained",)),
    )
    ended = run(monkeypatch, answers, "drain", "n-1", "--wait")
    assert ended.exit_code == 0
    assert ended.stdout.endswith("node n-1 is drained\n")
    assert [line for line in ended.stderr.splitlines() if line] == [
        "node n-1: 2 jobs still there",
        "node n-1: no leader sees it now",
        "node n-1: 1 job still there",
        "node n-1: drained",
    ]


def test_a_wait_that_is_over_exits_with_1(monkeypatch: pytest.MonkeyPatch, time: FakeTime) -> None:
    """If the node still has a job at the end, the exit code is 1 and the text has what can be done."""
    answers = Answers(one("draining", 1), *(listed(("draining", 1)) for _ in range(10)))
    ended = run(monkeypatch, answers, "drain", "n-1", "--wait", "--timeout", "5s")
    assert ended.exit_code == 1
    assert "node n-1 is not drained: 1 job still there" in ended.stderr
    assert "raygrid undrain n-1" in ended.stderr
    assert time.now == 1005.0


def test_the_wait_is_a_minute_more_than_the_deadline(monkeypatch: pytest.MonkeyPatch, time: FakeTime) -> None:
    """The wait follows from the deadline, so that it need not be given."""
    answers = Answers(one("draining", 1), *(listed(("draining", 1)) for _ in range(180)))
    ended = run(monkeypatch, answers, "drain", "n-1", "--wait", "--deadline", "30s")
    assert (ended.exit_code, time.now) == (1, 1090.0)


def test_a_node_that_no_leader_sees_does_not_count_as_drained(monkeypatch: pytest.MonkeyPatch, time: FakeTime) -> None:
    """A node that vanished may still run jobs behind a cut link, so the wait fails."""
    answers = Answers(one("draining", 1), *(listed() for _ in range(100)))
    ended = run(monkeypatch, answers, "drain", "n-1", "--wait")
    assert ended.exit_code == 1
    assert "no leader sees it now" in ended.stderr
    assert time.now < 1032.0


def test_undrain_prints_that_the_node_gets_jobs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other trouble of the node is printed with it."""
    answers = Answers(one("ok"), one("unhealthy", why="disk full"))
    assert run(monkeypatch, answers, "undrain", "n-1").stdout == "node n-1 gets jobs again\n"
    ended = run(monkeypatch, answers, "undrain", "n-1")
    assert ended.stdout == "node n-1 gets jobs again, but it is unhealthy: disk full\n"
    assert answers.requests[0].method == "DELETE"


def test_an_unknown_node_is_an_error_with_the_grids_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grid lists the known nodes; the command prints that."""
    ended = run(monkeypatch, Answers(problem("node-not-found", 404)), "drain", "n 1/x")
    assert ended.exit_code == 1
    assert ended.stderr.strip()


async def test_the_async_client_drains_and_undrains() -> None:
    """Paths are escaped, and errors are those of the blocking client."""
    grid = Answers(one("draining", 1), one("ok"), problem("node-not-found", 404))
    async with AsyncClient(URL, transport=httpx.MockTransport(grid)) as client:
        assert (await client.drain("n 1/x", 90)).state == "draining"
        assert (await client.undrain("n-1")).state == "ok"
        with pytest.raises(NodeNotFoundError):
            await client.drain("n-2")
    assert grid.requests[0].url.raw_path == b"/nodes/n%201%2Fx/drain?deadline_s=90.000"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("1.5m", 90), ("45", 45), ("0", 0), ("1d", 86_400)],
)
def test_a_duration_is_parsed_with_units(text: str, seconds: float) -> None:
    """Units may be combined; a bare number is seconds."""
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "ten minutes", "10x", "-5s", "-1", "m", "nan", "inf", "10m5"])
def test_a_malformed_duration_is_refused(text: str) -> None:
    """The error shows an example."""
    with pytest.raises(typer.BadParameter, match="write for instance 90s, 10m"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.6, "1m"), (90, "1m30s"), (5400, "1h30m"), (90_061, "1d1h1m1s")]
)
def test_a_duration_is_written_with_units(seconds: float, text: str) -> None:
    """To the second, without zeros."""
    assert words_of(seconds) == text
