"""Two parents over one store: if one dies in the middle of a request, the client retries once; no work is lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from raygrid.client import AsyncClient, Client
from raygrid.errors import UnavailableError
from tests.support.http import ServerEvent, events_of, manifest, unzip
from tests.support.small_grid import SmallGrid

pytestmark = pytest.mark.leases


class Counting(httpx.AsyncHTTPTransport):
    """Carries requests, and counts them by entry."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"http://{request.url.host}:{request.url.port}")
        return await super().handle_async_request(request)


class Gate:
    """Lets jobs wait for the test: a job ends once its file is there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()

    def script(self, name: str) -> bytes:
        """What a job that waits for its turn runs; it notes each of its runs."""
        here = self._directory
        return (
            f"echo ran >> {here}/{name}.runs\nuntil [ -e {here}/{name} ]; do sleep 0.05; done\necho {name}\n".encode()
        )

    def open(self, *names: str) -> None:
        """Let jobs end."""
        for name in names:
            (self._directory / name).touch()

    def runs(self, name: str) -> int:
        """How often a job was started."""
        return len((self._directory / f"{name}.runs").read_text().splitlines())


@asynccontextmanager
async def two_parents(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[SmallGrid, list[str]]]:
    """A grid with two parents, and their URLs; the first is the one that `kill_parent` kills."""
    async with SmallGrid(tmp_path / "grid", **settings) as grid:
        first = grid.url
        await grid.deploy(beside=True)
        yield grid, [first, grid.url]


async def test_a_wait_for_a_result_outlives_the_parent_that_it_waits_at(tmp_path: Path) -> None:
    """The client asks the other parent once, with the same jobId, and gets the result of the one run."""
    gate = Gate(tmp_path / "gate")
    async with two_parents(tmp_path) as (grid, urls):
        carried = Counting()
        async with AsyncClient(urls, transport=carried) as client:
            job = await client.submit(gate.script("slow"), pricer="shell")
            await grid.until_state(job.job_id, "running")
            waiting = asyncio.create_task(job.result(timeout=30))
            await grid.until(_asked(carried, 2))

            await grid.kill_parent()
            await grid.until(_asked(carried, 3))
            gate.open("slow")

            assert (await waiting).stdout == "slow\n"
            assert carried.asked == [urls[0], urls[0], urls[1]]
            assert gate.runs("slow") == 1


def _asked(carried: Counting, times: int) -> Callable[[], Awaitable[bool]]:
    async def reached() -> bool:
        return len(carried.asked) >= times

    return reached


async def test_a_blocking_client_goes_to_the_other_parent_too(tmp_path: Path) -> None:
    """A thread that waits for a result is woken by the broken connection, not by a timeout."""
    gate = Gate(tmp_path / "gate")
    async with two_parents(tmp_path) as (grid, urls):
        with Client(",".join(urls)) as client:
            job = await asyncio.to_thread(client.submit, gate.script("slow"), pricer="shell")
            await grid.until_state(job.job_id, "running")
            waiting = asyncio.create_task(asyncio.to_thread(job.result, 30))
            await grid.until(_waits(grid))

            await grid.kill_parent()
            gate.open("slow")

            result = await waiting
            assert result.stdout == "slow\n"


def _waits(grid: SmallGrid) -> Callable[[], Awaitable[bool]]:
    """Whether the parent that came first has a request under way."""

    async def reached() -> bool:
        return grid.waiting() > 0

    return reached


async def test_a_synchronous_submit_sent_again_to_another_parent_gives_the_result_of_the_first(tmp_path: Path) -> None:
    """Plain HTTP needs only the same jobId: the second request attaches to the existing job."""
    gate = Gate(tmp_path / "gate")
    async with two_parents(tmp_path) as (grid, urls), httpx.AsyncClient(timeout=60) as http:

        async def submit(url: str) -> httpx.Response:
            files = {"file": ("job.sh", gate.script("slow"))}
            return await http.post(f"{url}/submit/slow", params={"wait": 30}, files=files, data={"pricer": "shell"})

        first = asyncio.create_task(submit(urls[0]))
        await grid.until_state("slow", "running")

        await grid.kill_parent()
        with pytest.raises(httpx.TransportError):
            await first
        again = asyncio.create_task(submit(urls[1]))
        gate.open("slow")

        answer = await again
        assert answer.status_code == 200
        assert unzip(answer)["stdout.txt"] == b"slow\n"
        assert manifest(answer)["attempt"] == 1
        assert gate.runs("slow") == 1


async def test_a_results_stream_goes_on_at_another_parent_behind_the_last_result_that_came(tmp_path: Path) -> None:
    """Each result of the batch comes once, and the stream is opened twice: once at each parent."""
    gate = Gate(tmp_path / "gate")
    names = [f"job-{n}" for n in range(6)]
    async with two_parents(tmp_path, slots=6) as (grid, urls):
        carried = Counting()
        async with AsyncClient(urls, transport=carried) as client:
            jobs = await client.map({name: gate.script(name) for name in names}, pricer="shell")
            gate.open("job-0", "job-1")
            seen = []
            async for job in jobs.as_completed(timeout=30):
                seen.append(job.job_id)
                if len(seen) == 2:
                    await grid.kill_parent()
                    gate.open(*names)

        assert sorted(seen) == names
        assert set(seen[:2]) == {"job-0", "job-1"}
        assert carried.asked == [urls[0], urls[0], urls[1]]
        assert {gate.runs(name) for name in names} == {1}


@pytest.mark.parametrize("what", ["job=slow", "batch=b"])
async def test_an_event_stream_goes_on_at_another_parent_behind_the_last_event_that_came(
    tmp_path: Path, what: str
) -> None:
    """`Last-Event-ID` means the same at every parent: nothing comes twice, and nothing is missing."""
    gate = Gate(tmp_path / "gate")
    async with two_parents(tmp_path) as (grid, urls), httpx.AsyncClient(timeout=60) as http:
        files = {"slow": ("job.sh", gate.script("slow"))}
        posted = await http.post(f"{urls[0]}/batches", files=files, data={"pricer": "shell", "batchId": "b"})
        assert posted.status_code == 202
        before: list[ServerEvent] = []

        async def read_events() -> None:
            async with http.stream("GET", f"{urls[0]}/events?{what}") as stream:
                async for text in stream.aiter_text():
                    before.extend(events_of(text))
                    if before[-1].data["state"] == "running":
                        await grid.kill_parent()
                        gate.open("slow")

        with pytest.raises(httpx.TransportError):
            await read_events()

        last = {"Last-Event-ID": str(before[-1].id)}
        after = events_of((await http.get(f"{urls[1]}/events?{what}", headers=last)).text)

        assert [event.kind for event in after] == ["state", "end"]
        assert after[0].data["state"] == "done"
        assert all(event.id > before[-1].id for event in after[:1])


async def test_a_client_leaves_a_parent_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If one parent's share is missing, a client with two entries is answered by the other within a moment."""
    async with two_parents(tmp_path) as (grid, urls):
        monkeypatch.setattr(grid.parent.blob_check, "require", _refuse)
        carried = Counting()
        async with AsyncClient(urls[::-1], transport=carried) as client:
            began = asyncio.get_running_loop().time()
            job = await client.submit(b"echo price", pricer="shell")
            took_s = asyncio.get_running_loop().time() - began

            assert (await job.result(timeout=30)).stdout == "price\n"
        assert carried.asked[:2] == [urls[1], urls[0]]
        assert took_s < 1.0  # the pause that the refusal asked for is for its own entry


def _refuse() -> None:
    raise UnavailableError("this parent takes no jobs: its share is missing")


class Balancer:
    """One entry before the parents that sends each connection to the next of them, as a layer-4 balancer does."""

    def __init__(self, urls: list[str]) -> None:
        self._turns = itertools.cycle([httpx.URL(url) for url in urls])
        self._ends: set[asyncio.StreamWriter] = set()
        self.connections = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            for writer in self._ends:
                writer.close()
            server.close()
            await server.wait_closed()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        to = next(self._turns)
        assert to.port is not None
        parent_reader, parent_writer = await asyncio.open_connection(to.host, to.port)
        self._ends |= {writer, parent_writer}
        await asyncio.gather(_pour(reader, parent_writer), _pour(parent_reader, writer))


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    writer.close()


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_refused_client_asks_again_over_a_connection_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocking: bool
) -> None:
    """Behind a balancer of connections the second try reaches another parent, not the one that refused again."""
    async with two_parents(tmp_path) as (grid, urls):
        monkeypatch.setattr(grid.parent.blob_check, "require", _refuse)
        balancer = Balancer(urls[::-1])
        async with balancer.open() as url:
            if blocking:
                with Client(url, retry_s=4) as client:
                    job = await asyncio.to_thread(client.submit, b"echo price", pricer="shell")
                    result = await asyncio.to_thread(job.result, 30)
            else:
                async with AsyncClient(url, retry_s=4) as patient:
                    result = await (await patient.submit(b"echo price", pricer="shell")).result(timeout=30)

        assert result.stdout == "price\n"
        assert balancer.connections == 2
