"""Calls to an actor beside Ray: who is let in, what comes back, and what is left when a connection breaks."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from raygrid import wire
from raygrid.channel import BrokenError, Channel, open_channel
from raygrid.door import Door, DoorAddress
from raygrid.errors import BusyError, UnavailableError

HERE = "127.0.0.1"


class Actor:
    """Something that can be called."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.entered = 0
        self.ended = 0

    async def double(self, number: int) -> int:
        return 2 * number

    async def wait(self, answer: object) -> object:
        self.entered += 1
        try:
            await self.go.wait()
        finally:
            self.ended += 1
        return answer

    async def refuse(self) -> None:
        raise BusyError("full", retry_after_s=7.0)

    async def break_down(self) -> None:
        raise KeyError("unexpected")

    async def lean_on_what_is_given_up(self) -> None:
        asleep = asyncio.get_running_loop().create_task(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(asleep.cancel)
        await asleep

    async def unspeakable(self) -> object:
        return lambda: None

    async def private(self) -> None:
        raise AssertionError("nobody may call this")


@pytest.fixture
def actor() -> Actor:
    return Actor()


@pytest.fixture
async def door(actor: Actor) -> AsyncIterator[Door]:
    opened = Door(actor, ("double", "wait", "refuse", "break_down", "unspeakable", "lean_on_what_is_given_up"))
    yield opened
    await opened.close()


@pytest.fixture
async def channel(door: Door) -> AsyncIterator[Channel]:
    address = await door.address(HERE)
    assert address is not None
    opened = await open_channel(address)
    yield opened
    opened.close()


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_connection_that_is_closed_at_once_fails_the_calls_on_it(door: Door) -> None:
    """Also before anything was read from it."""
    address = await door.address(HERE)
    assert address is not None
    closed = await open_channel(address)
    call = closed.ask("double", (1,))
    closed.close()
    async with asyncio.timeout(60):
        with pytest.raises(BrokenError):
            await call


async def test_a_call_that_was_let_down_is_answered_all_the_same(channel: Channel) -> None:
    """Something that it waited for was given up: nobody is left waiting for its time limit."""
    async with asyncio.timeout(60):
        with pytest.raises(UnavailableError, match="the call failed"):
            await channel.ask("lean_on_what_is_given_up", ())


async def test_many_calls_at_once_each_get_their_own_answer(channel: Channel, actor: Actor) -> None:
    """Also those that are called later and answered earlier, and more than the door carries out at once."""
    slow = [channel.ask("wait", (number,)) for number in range(150)]
    async with asyncio.timeout(60):
        assert await asyncio.gather(*(channel.ask("double", (number,)) for number in range(30))) == list(
            range(0, 60, 2)
        )
        slow += [channel.ask("wait", (number,)) for number in range(150, 500)]
        actor.go.set()
        assert await asyncio.gather(*slow) == list(range(500))


async def test_errors_of_the_grid_come_through_and_others_mean_that_nobody_knows(channel: Channel) -> None:
    with pytest.raises(BusyError, match="full") as refused:
        await channel.ask("refuse", ())
    assert refused.value.retry_after_s == 7.0
    for method in ("break_down", "unspeakable", "private", "__class__"):
        with pytest.raises(UnavailableError):
            await channel.ask(method, ())
    assert await channel.ask("double", (4,)) == 8


async def test_a_connection_that_is_cut_fails_the_calls_on_it_and_takes_no_more(
    channel: Channel, door: Door, actor: Actor
) -> None:
    waiting = channel.ask("wait", (1,))
    await until(lambda: actor.entered)
    await door.close()
    async with asyncio.timeout(60):
        with pytest.raises(BrokenError):
            await waiting
    await until(lambda: not channel.is_open)


async def test_a_door_that_closes_ends_every_call(channel: Channel, door: Door, actor: Actor) -> None:
    waiting = [channel.ask("wait", (number,)) for number in range(20)]
    await until(lambda: actor.entered == 20)
    await door.close()
    assert actor.ended == 20
    assert not door._calls
    await asyncio.wait(waiting, timeout=10)
    assert all(isinstance(each.exception(), BrokenError) for each in waiting)
    assert await door.address(HERE) is None


async def test_a_call_that_is_given_up_leaves_nothing_behind(channel: Channel, actor: Actor) -> None:
    """Its late answer is nobody's; a channel that is retired closes with the last call."""
    given_up = channel.ask("wait", (1,))
    await until(lambda: actor.entered)
    given_up.cancel()
    other = channel.ask("wait", (2,))
    channel.retire()
    assert not channel.is_open
    actor.go.set()
    assert await other == 2
    await until(channel._reading.done)
    assert not channel._waiting


class Trap:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("opening", [b"", bytes(64), bytes(63)])
async def test_nothing_of_a_stranger_is_unpickled(door: Door, tmp_path: Path, opening: bytes) -> None:
    """It is let go as soon as it fails to prove that it knows the secret."""
    address = await door.address(HERE)
    assert address is not None
    reader, writer = await asyncio.open_connection(address.host, address.port)
    trap = pickle.dumps(Trap(tmp_path / "trace"))
    writer.write(opening + len(trap).to_bytes(4, "big") + trap)
    writer.write_eof()
    async with asyncio.timeout(60):
        assert len(await reader.read()) == 32  # what it was to prove the secret over, and no more
    writer.close()
    assert not (tmp_path / "trace").exists()


async def test_a_wrong_secret_opens_nothing_on_either_side(door: Door) -> None:
    address = await door.address(HERE)
    assert address is not None
    with pytest.raises(wire.StrangerError):
        await open_channel(address._replace(secret=b"another life's"))


async def test_another_process_at_the_address_is_not_believed(tmp_path: Path) -> None:
    """A port may be another's by now; what it says is not unpickled either."""

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        trap = pickle.dumps(Trap(tmp_path / "trace"))
        writer.write(bytes(64) + len(trap).to_bytes(4, "big") + trap)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(impostor, HERE, 0) as server:
        with pytest.raises(wire.StrangerError):
            await open_channel(DoorAddress(HERE, server.sockets[0].getsockname()[1], b"secret"))
    assert not (tmp_path / "trace").exists()


async def test_an_oversized_frame_is_refused_on_both_sides(
    channel: Channel, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is sent, and where it is announced all the same, before it is read."""
    with monkeypatch.context() as patch:
        patch.setattr(wire, "LARGEST", 1_000)
        with pytest.raises(wire.FrameTooLargeError):
            channel.ask("double", (b"x" * 1_000,))
        assert await channel.ask("double", (2,)) == 4
        channel._writer.write((1_001).to_bytes(4, "big"))
        await until(lambda: not channel.is_open)


async def test_a_door_stays_shut_where_ray_encrypts(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    assert await door.address(HERE) is None


async def test_a_door_that_cannot_open_says_so(door: Door) -> None:
    assert await door.address("192.0.2.1") is None
