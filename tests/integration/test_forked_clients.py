"""A client that was made before a fork: each process has connections of its own, and every answer is compared."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import multiprocessing as mp
import os
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from raygrid.client import AsyncClient, BatchJobs, Client, Job, sockets
from tests.support.small_grid import PRICERS, SmallGrid

CHILDREN = 3
JOBS = 60
# Long enough for all processes to wait for an answer at the same time.
SLOW = {"command": ["sh", "-c", 'sleep 0.02; cat "$1"', "sh", "{input}"]}


def in_child(work: Callable[[], dict[str, int]]) -> Callable[[], dict[str, int]]:
    """Fork, and do the work in the child; gives a function that waits for the child and for what it found."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.write(writing, json.dumps(work()).encode())
        except BaseException:
            os.write(writing, json.dumps({traceback.format_exc(): 1}).encode())
        finally:
            os._exit(0)
    os.close(writing)

    def found() -> dict[str, int]:
        with os.fdopen(reading, "rb") as pipe:
            counts: dict[str, int] = json.loads(pipe.read())
        os.waitpid(child, 0)
        return counts

    return found


def price(client: Client, who: str) -> dict[str, int]:
    """Submit jobs one after the other; counts results that are the job's own, and every other end."""
    seen: Counter[str] = Counter()
    for number in range(JOBS):
        text = f"{who}-{number}\n"
        try:
            result = client.submit(text.encode(), pricer="slow").result(30)
            seen["right" if result.stdout == text else f"another job's result: {result.stdout}"] += 1
        except Exception as error:
            seen[f"{type(error).__name__}: {error}"] += 1
    return dict(seen)


async def price_async(client: AsyncClient, who: str) -> dict[str, int]:
    """The same, in an event loop."""
    seen: Counter[str] = Counter()
    for number in range(JOBS):
        text = f"{who}-{number}\n"
        try:
            result = await (await client.submit(text.encode(), pricer="slow")).result(30)
            seen["right" if result.stdout == text else f"another job's result: {result.stdout}"] += 1
        except Exception as error:
            seen[f"{type(error).__name__}: {error}"] += 1
    return dict(seen)


def connections() -> set[str]:
    """The connections that this process holds open."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(fd)
        except FileNotFoundError:  # the listing's own
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


async def test_a_client_is_used_by_parent_and_children_at_once_and_every_result_is_the_jobs_own(tmp_path: Path) -> None:
    """240 jobs from four processes with one inherited client: all right, none answered with another job's result."""
    async with SmallGrid(tmp_path, slots=4, pricers={**PRICERS, "slow": SLOW}) as grid:

        def work() -> list[dict[str, int]]:
            with Client(grid.url) as client:
                client.submit(b"warm\n", pricer="cat").result(30)  # a connection is open now
                together = mp.get_context("fork").Barrier(CHILDREN + 1)

                def priced(who: str) -> dict[str, int]:
                    together.wait(30)  # all processes ask at the same moment
                    return price(client, who)

                children = [in_child(functools.partial(priced, f"child-{i}")) for i in range(CHILDREN)]
                mine = priced("parent")
                return [mine, *(found() for found in children)]

        assert await asyncio.to_thread(work) == [{"right": JOBS}] * (CHILDREN + 1)


async def test_an_async_client_that_was_inherited_has_its_own_connections_too(tmp_path: Path) -> None:
    """The client for event loops: parent and child at once, each in a loop of its own."""
    async with SmallGrid(tmp_path, slots=4, pricers={**PRICERS, "slow": SLOW}) as grid:

        def work() -> list[dict[str, int]]:
            client = AsyncClient(grid.url)

            async def begin() -> list[dict[str, int]]:
                await (await client.submit(b"warm\n", pricer="cat")).result(30)
                child = in_child(lambda: in_fresh_loop(price_async(client, "child")))
                mine = await price_async(client, "parent")
                found = await asyncio.to_thread(child)
                await client.close()
                return [mine, found]

            return asyncio.run(begin())

        assert await asyncio.to_thread(work) == [{"right": JOBS}] * 2


def in_fresh_loop(work: Coroutine[object, object, dict[str, int]]) -> dict[str, int]:
    """Run a coroutine in a child that was forked out of a running event loop."""
    asyncio._set_running_loop(None)
    found: dict[str, int] = asyncio.run(work)
    return found


async def test_a_stream_that_was_open_at_the_fork_goes_on_in_both_processes(tmp_path: Path) -> None:
    """Parent and child both read on in a batch that was half read: each gets every job, neither takes the other's."""
    texts = [f"input-{number}\n" for number in range(JOBS)]

    def read_on(batch: BatchJobs, ended: Iterator[Job]) -> dict[str, int]:
        for _ in ended:
            pass
        right = [
            job.ending is not None and job.ending.get().stdout == text for job, text in zip(batch, texts, strict=True)
        ]
        return {"right": right.count(True), "wrong": right.count(False)}

    async with SmallGrid(tmp_path, slots=4, pricers={**PRICERS, "slow": SLOW}) as grid:

        def work() -> list[dict[str, int]]:
            with Client(grid.url) as client:
                batch = client.map([text.encode() for text in texts], pricer="cat")
                ended = batch.as_completed(60)
                next(ended)
                child = in_child(lambda: read_on(batch, ended))
                return [read_on(batch, ended), child()]

        mine, in_child_process = await asyncio.to_thread(work)
    assert mine == in_child_process == {"right": JOBS, "wrong": 0}


@contextmanager
def one_connection(client: Client) -> Iterator[set[str]]:
    before = connections()
    client.pricers()
    yield connections() - before


async def test_a_child_that_uses_or_closes_an_inherited_client_leaves_the_parents_connection_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child's request drops its copy of the parent's connection, which the parent goes on using."""
    # A client drops what was idle for 5 s, which a busy machine may take.
    limits = httpx.Limits(keepalive_expiry=120)
    monkeypatch.setattr(
        sockets, "transport", lambda *_: httpx.HTTPTransport(socket_options=sockets.options(), limits=limits)
    )
    async with SmallGrid(tmp_path) as grid:

        def work() -> tuple[dict[str, int], set[str], set[str]]:
            with Client(grid.url) as client, one_connection(client) as mine:

                def child() -> dict[str, int]:
                    client.pricers()
                    gc.collect()
                    kept = len(connections() & mine)
                    client.close()
                    return {"had": len(mine), "kept": kept}

                found = in_child(child)()
                client.pricers()
                return found, mine, connections() & mine

        found, mine, used = await asyncio.to_thread(work)
    assert found == {"had": 2, "kept": 1}  # the other end is the grid's, in the same process
    assert used == mine


def test_each_process_makes_one_value_and_a_grandchild_with_a_known_pid_gets_none_of_its_forebears() -> None:
    """Process ids are used again: a process is identified by its id and by the number of forks that led to it."""
    from raygrid.client.per_process import PerProcess, this_process

    values = PerProcess(object)
    mine = values.get()
    assert values.get() is mine

    def child() -> dict[str, int]:
        forks = this_process()[1]
        return {"inherited": int(values.made() is not None), "another": int(values.get() is not mine), "forks": forks}

    forks = this_process()[1]
    assert in_child(child)() == {"inherited": 0, "another": 1, "forks": forks + 1}
    assert values.get() is mine


if not hasattr(os, "fork"):
    pytest.skip("this system cannot fork", allow_module_level=True)
