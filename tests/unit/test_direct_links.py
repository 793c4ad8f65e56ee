"""An actor's link uses its direct connection while one is open, and Ray otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import pytest
from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined]  # made at run time

from raygrid.errors import ProcessEndedError, StaleTermError, UnavailableError, UnreachableError
from raygrid.transport import actor_link, direct_client, wire
from raygrid.transport.actor_link import ActorLink
from raygrid.transport.calls import call
from raygrid.transport.direct_server import DirectAddress, DirectServer


class TargetCalls(Protocol):
    """The calls that the actor of these tests answers."""

    @call(5.0)
    async def double(self, number: Any, /) -> Any: ...

    @call(5.0)
    async def stale(self) -> None: ...

    @call(5.0)
    async def hang(self) -> None: ...

    @call(0.0, waits="wait_s")
    async def hang_for(self, wait_s: float, /) -> None: ...

    @call(5.0, direct=False)
    async def large(self, number: int, /) -> int: ...


class Method:
    """A method of an actor's handle: it runs here, and is counted as a call through Ray."""

    def __init__(self, handle: Handle, name: str) -> None:
        self._handle, self._name = handle, name

    def remote(self, *args: Any) -> Any:
        self._handle.through_ray.append(self._name)
        return getattr(self._handle.target, self._name)(*args)


class Target:
    """The actor itself."""

    def __init__(self) -> None:
        self.server: DirectServer[TargetCalls] | None = DirectServer(TargetCalls, self)
        self.hanging = 0

    async def direct_address(self) -> DirectAddress | None:
        return await self.server.address("127.0.0.1") if self.server is not None else None

    async def double(self, number: int | bytes) -> int | bytes:
        return 2 * number

    async def stale(self) -> None:
        raise StaleTermError("a newer term")

    async def hang(self) -> None:
        self.hanging += 1
        await asyncio.Event().wait()

    async def hang_for(self, wait_s: float) -> None:
        await asyncio.Event().wait()

    async def large(self, number: int) -> int:
        return number


class Handle:
    """An actor's handle."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.state = "ALIVE"
        self.through_ray: list[str] = []

    def __getattr__(self, name: str) -> Method:
        return Method(self, name)

    def _get_local_state(self) -> int:
        return int(ActorTableData.ActorState.Value(self.state))


@pytest.fixture
def target() -> Target:
    return Target()


@pytest.fixture
async def link(target: Target) -> AsyncIterator[ActorLink[TargetCalls]]:
    made = ActorLink(TargetCalls, "node a1", Handle(target))
    yield made
    made.close()
    if target.server is not None:
        await target.server.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def opened(link: ActorLink[TargetCalls]) -> None:
    """The first call goes through Ray, and opens the way for those that follow."""
    assert await link.calls.double(1) == 2
    await until(lambda: link._channel is not None and link._channel.is_open)
    link._actor.through_ray.clear()


async def test_calls_are_direct_once_a_connection_is_open(link: ActorLink[TargetCalls]) -> None:
    await opened(link)
    assert await asyncio.gather(*(link.calls.double(number) for number in range(10))) == list(range(0, 20, 2))
    with pytest.raises(StaleTermError):
        await link.calls.stale()
    assert link._actor.through_ray == []


async def test_a_call_that_is_not_direct_goes_through_ray(link: ActorLink[TargetCalls]) -> None:
    await opened(link)
    assert await link.calls.large(3) == 3
    assert link._actor.through_ray == ["large"]


async def test_without_a_direct_server_every_call_goes_through_ray(
    link: ActorLink[TargetCalls], target: Target
) -> None:
    target.server = None
    for _ in range(3):
        assert await link.calls.double(1) == 2
        await asyncio.sleep(0)
    assert link._actor.through_ray.count("double") == 3


async def test_what_is_too_large_for_a_frame_goes_through_ray(
    link: ActorLink[TargetCalls], monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(link)
    monkeypatch.setattr(wire, "MAX_FRAME_BYTES", 1_000)
    assert len(await link.calls.double(b"x" * 1_000)) == 2_000
    assert link._actor.through_ray == ["double"]


async def test_an_answer_that_is_too_large_for_a_frame_comes_through_ray(
    link: ActorLink[TargetCalls], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer is lost, because the call may not be one to repeat; a second call is answered."""
    await opened(link)
    monkeypatch.setattr(wire, "MAX_FRAME_BYTES", 1_000)
    with pytest.raises(UnavailableError, match=r"the answer of .* was not sent directly"):
        await link.calls.double(b"x" * 600)
    assert len(await link.calls.double(b"x" * 600)) == 1_200
    assert link._actor.through_ray == ["double"]
    with pytest.raises(StaleTermError):
        await link.calls.stale()
    assert link._actor.through_ray == ["double"]  # other calls go beside Ray as before


async def test_a_closed_link_opens_no_connection(link: ActorLink[TargetCalls]) -> None:
    await opened(link)
    link.close()
    assert await link.calls.double(1) == 2
    assert link._actor.through_ray == ["double"]


async def call_on_a_broken_connection(link: ActorLink[TargetCalls], target: Target) -> asyncio.Task[object]:
    """A call that was under way on the direct connection when its target closed it."""
    await opened(link)
    assert target.server is not None
    call: asyncio.Task[object] = asyncio.create_task(link.calls.hang())
    await until(lambda: target.hanging)
    await target.server.close()
    return call


async def test_after_a_broken_connection_the_next_call_goes_through_ray(
    link: ActorLink[TargetCalls], target: Target
) -> None:
    """The call on it may have been carried out, so it is not made again; the process does not count as dead."""
    call = await call_on_a_broken_connection(link, target)
    with pytest.raises(UnreachableError, match="the connection broke") as broken:
        await call
    assert not isinstance(broken.value, ProcessEndedError)
    assert target.hanging == 1
    assert await link.calls.double(3) == 6
    assert "double" in link._actor.through_ray


async def test_the_end_of_a_process_is_distinguished_from_a_broken_connection(
    link: ActorLink[TargetCalls], target: Target
) -> None:
    """Ray reports it a moment after the connection broke."""
    call = await call_on_a_broken_connection(link, target)
    asyncio.get_running_loop().call_later(0.02, setattr, link._actor, "state", "RESTARTING")
    with pytest.raises(ProcessEndedError):
        await call


async def test_a_connection_on_which_a_call_timed_out_accepts_no_new_calls(
    link: ActorLink[TargetCalls], target: Target
) -> None:
    """The next calls go through Ray; calls that are pending on the connection do not fail."""
    await opened(link)
    other = asyncio.create_task(link.calls.hang())
    await until(lambda: target.hanging)
    with pytest.raises(UnavailableError, match="did not answer within"):
        await link.calls.hang_for(0.01)
    assert not other.done()
    assert await link.calls.double(3) == 6
    assert "double" in link._actor.through_ray
    other.cancel()


async def test_a_server_that_cannot_be_reached_is_tried_again(
    link: ActorLink[TargetCalls], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls do not wait for it."""
    monkeypatch.setattr(actor_link, "RECONNECT_S", 0.01)
    link._pause_s = 0.01
    reach, tries = direct_client.connect_directly, 0

    async def blocked(address: DirectAddress, protocol: Callable[..., Any]) -> direct_client.DirectChannel:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise TimeoutError
        return await reach(address, protocol)

    monkeypatch.setattr(actor_link, "connect_directly", blocked)
    async with asyncio.timeout(10):
        while link._channel is None:
            assert await link.calls.double(1) == 2
            await asyncio.sleep(0.005)
    assert tries == 3
