"""Direct calls to an actor: which callers are accepted, what they get, and what remains when a connection breaks."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from raygrid.errors import BusyError, UnavailableError
from raygrid.transport import wire
from raygrid.transport.calls import call
from raygrid.transport.direct_client import ConnectionBrokenError, DirectChannel, connect_directly
from raygrid.transport.direct_server import DirectAddress, DirectServer

HERE = "127.0.0.1"


class ActorCalls(Protocol):
    """The calls of the actor of these tests; `hidden` may not be called directly."""

    @call(1.0)
    async def double(self, number: int, /) -> int: ...

    @call(1.0)
    async def wait(self, answer: int, /) -> int: ...

    @call(1.0)
    async def refuse(self) -> None: ...

    @call(1.0)
    async def break_down(self) -> None: ...

    @call(1.0)
    async def await_what_is_cancelled(self) -> None: ...

    @call(1.0)
    async def not_a_number(self) -> int: ...

    @call(1.0)
    async def unsendable(self) -> Any: ...

    @call(1.0, direct=False)
    async def hidden(self) -> None: ...


class Actor:
    """An actor that can be called."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.entered = 0
        self.ended = 0

    async def double(self, number: int) -> int:
        return 2 * number

    async def wait(self, answer: int) -> int:
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

    async def await_what_is_cancelled(self) -> None:
        asleep = asyncio.get_running_loop().create_task(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(asleep.cancel)
        await asleep

    async def not_a_number(self) -> Any:
        return "seven"

    async def unsendable(self) -> Any:
        return lambda: None

    async def hidden(self) -> None:
        raise AssertionError("it is not a direct call")

    async def private(self) -> None:
        raise AssertionError("this method is not declared as a call")


@pytest.fixture
def actor() -> Actor:
    return Actor()


@pytest.fixture
async def server(actor: Actor) -> AsyncIterator[DirectServer[ActorCalls]]:
    opened: DirectServer[ActorCalls] = DirectServer(ActorCalls, actor)
    yield opened
    await opened.close()


@pytest.fixture
async def connection(server: DirectServer[ActorCalls]) -> AsyncIterator[DirectChannel]:
    address = await server.address(HERE)
    assert address is not None
    opened = await connect_directly(address, ActorCalls)
    yield opened
    opened.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_connection_that_is_closed_at_once_fails_the_calls_on_it(server: DirectServer[ActorCalls]) -> None:
    """It does so even if nothing was read from it yet."""
    address = await server.address(HERE)
    assert address is not None
    closed = await connect_directly(address, ActorCalls)
    call = closed.ask("double", (1,))
    closed.close()
    async with asyncio.timeout(60):
        with pytest.raises(ConnectionBrokenError):
            await call


async def test_a_call_whose_inner_call_was_cancelled_is_answered_nevertheless(connection: DirectChannel) -> None:
    """The caller gets an error at once and does not wait for its time limit."""
    async with asyncio.timeout(60):
        with pytest.raises(UnavailableError, match="the call failed"):
            await connection.ask("await_what_is_cancelled", ())


async def test_many_calls_at_once_each_get_their_own_answer(connection: DirectChannel, actor: Actor) -> None:
    """Calls may be answered out of order, and be more than the server carries out at once."""
    slow = [connection.ask("wait", (number,)) for number in range(150)]
    async with asyncio.timeout(60):
        assert await asyncio.gather(*(connection.ask("double", (number,)) for number in range(30))) == list(
            range(0, 60, 2)
        )
        slow += [connection.ask("wait", (number,)) for number in range(150, 500)]
        actor.go.set()
        assert await asyncio.gather(*slow) == list(range(500))


async def test_errors_of_the_grid_arrive_as_they_are_and_others_as_unknown_outcome(connection: DirectChannel) -> None:
    with pytest.raises(BusyError, match="full") as refused:
        await connection.ask("refuse", ())
    assert refused.value.retry_after_s == 7.0
    for method in ("break_down", "not_a_number", "private", "hidden", "__class__"):
        with pytest.raises(UnavailableError):
            await connection.ask(method, ())
    assert await connection.ask("double", (4,)) == 8


async def test_a_connection_that_is_cut_fails_the_calls_on_it_and_takes_no_more(
    connection: DirectChannel, server: DirectServer[ActorCalls], actor: Actor
) -> None:
    waiting = connection.ask("wait", (1,))
    await until(lambda: actor.entered)
    await server.close()
    async with asyncio.timeout(60):
        with pytest.raises(ConnectionBrokenError):
            await waiting
    await until(lambda: not connection.is_open)


async def test_a_server_that_closes_cancels_every_call(
    connection: DirectChannel, server: DirectServer[ActorCalls], actor: Actor
) -> None:
    waiting = [connection.ask("wait", (number,)) for number in range(20)]
    await until(lambda: actor.entered == 20)
    await server.close()
    assert actor.ended == 20
    assert not server._calls
    await asyncio.wait(waiting, timeout=10)
    assert all(isinstance(each.exception(), ConnectionBrokenError) for each in waiting)
    assert await server.address(HERE) is None


async def test_a_call_that_is_given_up_leaves_nothing_behind(connection: DirectChannel, actor: Actor) -> None:
    """Its late answer is dropped; a connection that is retired closes with the last call."""
    given_up = connection.ask("wait", (1,))
    await until(lambda: actor.entered)
    given_up.cancel()
    other = connection.ask("wait", (2,))
    connection.retire()
    assert not connection.is_open
    actor.go.set()
    assert await other == 2
    await until(connection._reading.done)
    assert not connection._pending


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("opening", [b"", bytes(64), bytes(63)])
async def test_nothing_from_an_unauthenticated_caller_is_unpickled(
    server: DirectServer[ActorCalls], tmp_path: Path, opening: bytes
) -> None:
    """The connection is closed as soon as the caller fails to prove that it knows the secret."""
    address = await server.address(HERE)
    assert address is not None
    reader, writer = await asyncio.open_connection(address.host, address.port)
    trap = pickle.dumps(Trap(tmp_path / "trace"))
    writer.write(opening + len(trap).to_bytes(4, "big") + trap)
    writer.write_eof()
    async with asyncio.timeout(60):
        assert len(await reader.read()) == 32  # the challenge, and no more
    writer.close()
    assert not (tmp_path / "trace").exists()


async def test_a_wrong_secret_is_refused(server: DirectServer[ActorCalls]) -> None:
    address = await server.address(HERE)
    assert address is not None
    with pytest.raises(wire.NotAuthenticatedError):
        await connect_directly(address._replace(secret=b"another life's"), ActorCalls)


async def test_another_process_at_the_address_is_not_trusted(tmp_path: Path) -> None:
    """The port may belong to another process by now; what it sends is not unpickled either."""

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        trap = pickle.dumps(Trap(tmp_path / "trace"))
        writer.write(bytes(64) + len(trap).to_bytes(4, "big") + trap)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(impostor, HERE, 0) as server:
        with pytest.raises(wire.NotAuthenticatedError):
            await connect_directly(DirectAddress(HERE, server.sockets[0].getsockname()[1], b"secret"), ActorCalls)
    assert not (tmp_path / "trace").exists()


async def test_an_oversized_frame_is_refused_on_both_sides(
    connection: DirectChannel, server: DirectServer[ActorCalls], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender refuses it; if it is announced all the same, the receiver does not read it."""
    with monkeypatch.context() as patch:
        patch.setattr(wire, "MAX_FRAME_BYTES", 1_000)
        with pytest.raises(wire.FrameTooLargeError):
            connection.ask("double", (b"x" * 1_000,))
        assert await connection.ask("double", (2,)) == 4
        connection._writer.write((1_001).to_bytes(4, "big") + bytes(16))
        await until(lambda: not connection.is_open)


async def test_no_server_listens_where_ray_encrypts(
    server: DirectServer[ActorCalls], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    assert await server.address(HERE) is None


async def test_a_server_that_cannot_listen_has_no_address(server: DirectServer[ActorCalls]) -> None:
    assert await server.address("192.0.2.1") is None
