"""Frames of a direct channel: a relay can change, add, repeat, reorder or leave out none; strangers are limited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest

from raygrid.transport import messages, wire
from raygrid.transport.calls import call
from raygrid.transport.direct_client import ConnectionBrokenError, DirectChannel, connect_directly
from raygrid.transport.direct_server import MAX_STRANGERS, DirectAddress, DirectServer

HERE = "127.0.0.1"
HEAD = 20


class CounterCalls(Protocol):
    """The calls of a counter."""

    @call(5.0)
    async def add(self, number: int, /) -> int: ...


class Counter:
    """Adds up."""

    def __init__(self) -> None:
        self.sum = 0

    async def add(self, number: int) -> int:
        self.sum += number
        return self.sum


class Relay:
    """Passes the bytes of one connection on, frame by frame, as a process between two hosts could."""

    def __init__(self, to: DirectAddress) -> None:
        self._to = to
        self.calls: Callable[[list[bytes]], list[bytes]] = lambda frames: frames
        self.answers: Callable[[list[bytes]], list[bytes]] = lambda frames: frames
        self._tasks: list[asyncio.Task[Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._to.host, self._to.port)
        writer.write(await far_reader.readexactly(32))
        far_writer.write(await reader.readexactly(64))
        writer.write(await far_reader.readexactly(32))
        ways = [(reader, far_writer, lambda: self.calls), (far_reader, writer, lambda: self.answers)]
        self._tasks += [asyncio.ensure_future(self._pass(*way)) for way in ways]

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Callable[[], Callable[..., Any]]
    ) -> None:
        frames: list[bytes] = []
        try:
            while True:
                head = await reader.readexactly(HEAD)
                frames.append(head + await reader.readexactly(int.from_bytes(head[:4], "big")))
                passed = change()(frames)
                if passed:
                    frames = []
                writer.write(b"".join(passed))
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def counter() -> Counter:
    return Counter()


@pytest.fixture
async def address(counter: Counter) -> AsyncIterator[DirectAddress]:
    server: DirectServer[CounterCalls] = DirectServer(CounterCalls, counter)
    found = await server.address(HERE)
    assert found is not None
    yield found
    await server.close()


@asynccontextmanager
async def relayed(address: DirectAddress) -> AsyncIterator[tuple[Relay, DirectChannel]]:
    """A connection through a relay that does not know the secret."""
    relay = Relay(address)
    async with await asyncio.start_server(relay.serve, HERE, 0) as server:
        port = server.sockets[0].getsockname()[1]
        channel = await connect_directly(address._replace(port=port), CounterCalls)
        try:
            yield relay, channel
        finally:
            channel.close()
            await relay.close()


def flipped(frame: bytes, at: int) -> bytes:
    """The frame with one bit changed."""
    return frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]


async def test_a_relay_that_changes_nothing_goes_unnoticed(address: DirectAddress) -> None:
    async with relayed(address) as (_, channel):
        assert [await channel.ask("add", (number,)) for number in (1, 2, 3)] == [1, 3, 6]


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "changed body": lambda frames: [flipped(frames[0], -1)],
    "changed code": lambda frames: [flipped(frames[0], 4)],
    "longer than it is": lambda frames: [flipped(frames[0], 3) + b"x"],
    "forged": lambda frames: [(3).to_bytes(4, "big") + bytes(16) + b"abc"],
    "added before": lambda frames: [wire.Seal(b"guess").sealed(messages.request(1, "add", (50,))), *frames],
    "left out": lambda frames: frames[1:],
    "in another order": lambda frames: frames[::-1] if len(frames) == 2 else [],
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_call_that_a_relay_touches_is_not_carried_out(
    address: DirectAddress, counter: Counter, change: str
) -> None:
    """The connection ends, so that the caller learns that the outcome is unknown."""
    async with relayed(address) as (relay, channel), asyncio.timeout(20):
        relay.calls = CHANGES[change]
        asked = [channel.ask("add", (1,)), channel.ask("add", (1,))]
        for each in asked:
            with pytest.raises(ConnectionBrokenError):
                await each
        assert counter.sum == 0


async def test_a_call_that_a_relay_repeats_is_carried_out_once(address: DirectAddress, counter: Counter) -> None:
    async with relayed(address) as (relay, channel), asyncio.timeout(20):
        relay.calls = lambda frames: [frames[0], frames[0]]
        await asyncio.wait([channel.ask("add", (1,))])
        while channel.is_open:
            await asyncio.sleep(0.005)
        assert counter.sum == 1


@pytest.mark.parametrize("change", ["changed body", "changed code", "forged"])
async def test_an_answer_that_a_relay_touches_is_not_believed(address: DirectAddress, change: str) -> None:
    async with relayed(address) as (relay, channel), asyncio.timeout(20):
        relay.answers = CHANGES[change]
        with pytest.raises(ConnectionBrokenError):
            await channel.ask("add", (1,))


async def test_a_call_cannot_be_sent_back_as_its_answer(address: DirectAddress) -> None:
    """Each direction has its own key."""
    async with relayed(address) as (relay, channel), asyncio.timeout(20):
        sent: list[bytes] = []
        relay.calls = lambda frames: sent.extend(frames) or frames  # type: ignore[func-returns-value]
        relay.answers = lambda frames: sent[:1]
        with pytest.raises(ConnectionBrokenError):
            await channel.ask("add", (1,))


async def test_many_strangers_keep_no_caller_out(address: DirectAddress) -> None:
    """Each further stranger ends the oldest; callers that have authenticated themselves stay."""
    before = await connect_directly(address, CounterCalls)
    strangers = [await asyncio.open_connection(address.host, address.port) for _ in range(MAX_STRANGERS + 20)]
    async with asyncio.timeout(20):
        for reader, _ in strangers[:20]:
            assert len(await reader.read()) <= 32  # until the end
        caller = await connect_directly(address, CounterCalls)
        assert await caller.ask("add", (1,)) == 1
        assert await before.ask("add", (1,)) == 2
    for _, writer in strangers:
        writer.close()
    before.close()
    caller.close()


def test_an_address_shows_no_secret() -> None:
    """Neither alone nor in a message."""
    found = DirectAddress(HERE, 1234, b"very secret")
    assert "secret" not in f"{found!r} {found} {[found]}"
    assert "1234" in repr(found)
