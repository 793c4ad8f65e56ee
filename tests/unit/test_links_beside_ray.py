"""An actor's link takes the way beside Ray once that is open, and goes through Ray whenever it is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined]  # made at run time

from raygrid.errors import ProcessEndedError, StaleTermError, UnavailableError, UnreachableError
from raygrid.transport import direct_client, links, wire
from raygrid.transport.direct_server import Door, DoorAddress
from raygrid.transport.links import ActorLink


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
        self.front: Door | None = Door(self, ("double", "stale", "hang"))
        self.hanging = 0

    async def door(self) -> DoorAddress | None:
        return await self.front.address("127.0.0.1") if self.front is not None else None

    async def double(self, number: int | bytes) -> int | bytes:
        return 2 * number

    async def stale(self) -> None:
        raise StaleTermError("a newer term")

    async def hang(self) -> None:
        self.hanging += 1
        await asyncio.Event().wait()


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
async def link(target: Target) -> AsyncIterator[ActorLink]:
    made = ActorLink("node a1", Handle(target))
    yield made
    made.close()
    if target.front is not None:
        await target.front.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def opened(link: ActorLink) -> None:
    """The first call goes through Ray, and opens the way for those that follow."""
    assert await link._do("double", 1) == 2
    await until(lambda: link._channel is not None and link._channel.is_open)
    link.actor.through_ray.clear()


async def test_calls_go_beside_ray_once_the_door_is_known(link: ActorLink) -> None:
    await opened(link)
    assert await asyncio.gather(*(link._do("double", number) for number in range(10))) == list(range(0, 20, 2))
    with pytest.raises(StaleTermError):
        await link._do("stale")
    assert link.actor.through_ray == []


async def test_without_a_door_every_call_goes_through_ray(link: ActorLink, target: Target) -> None:
    target.front = None
    for _ in range(3):
        assert await link._do("double", 1) == 2
        await asyncio.sleep(0)
    assert link.actor.through_ray.count("double") == 3


async def test_what_is_too_large_for_a_frame_goes_through_ray(link: ActorLink, monkeypatch: pytest.MonkeyPatch) -> None:
    await opened(link)
    monkeypatch.setattr(wire, "LARGEST", 1_000)
    assert len(await link._do("double", b"x" * 1_000)) == 2_000
    assert link.actor.through_ray == ["double"]


async def test_an_answer_that_is_too_large_for_a_frame_comes_through_ray(
    link: ActorLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is lost once, for the call may not be one to repeat; whoever asks again is answered."""
    await opened(link)
    monkeypatch.setattr(wire, "LARGEST", 1_000)
    with pytest.raises(UnavailableError, match="its answer was too large"):
        await link._do("double", b"x" * 600)
    assert len(await link._do("double", b"x" * 600)) == 1_200
    assert link.actor.through_ray == ["double"]
    with pytest.raises(StaleTermError):
        await link._do("stale")
    assert link.actor.through_ray == ["double"]  # other calls go beside Ray as before


async def test_a_link_that_was_let_go_opens_no_way_again(link: ActorLink) -> None:
    await opened(link)
    link.close()
    assert await link._do("double", 1) == 2
    assert link.actor.through_ray == ["double"]


async def test_a_connection_that_breaks_is_no_dead_process_and_ray_is_next(link: ActorLink, target: Target) -> None:
    """The call on it may have been carried out, so it is not made again; the next one goes through Ray."""
    await opened(link)
    assert target.front is not None
    call = asyncio.create_task(link._do("hang"))
    await until(lambda: target.hanging)
    await target.front.close()
    with pytest.raises(UnreachableError, match="the connection broke") as broken:
        await call
    assert not isinstance(broken.value, ProcessEndedError)
    assert target.hanging == 1
    assert await link._do("double", 3) == 6
    assert "double" in link.actor.through_ray


async def test_the_end_of_a_process_is_told_apart_from_a_broken_connection(link: ActorLink, target: Target) -> None:
    """Ray says so a moment after the connection broke."""
    await opened(link)
    assert target.front is not None
    call = asyncio.create_task(link._do("hang"))
    await until(lambda: target.hanging)
    await target.front.close()
    asyncio.get_running_loop().call_later(0.02, setattr, link.actor, "state", "RESTARTING")
    with pytest.raises(ProcessEndedError):
        await call


async def test_a_way_that_leads_nowhere_is_left_to_those_who_wait_on_it(link: ActorLink, target: Target) -> None:
    """A call in vain sends the next ones through Ray; what else is under way is not made to fail by it."""
    await opened(link)
    other = asyncio.create_task(link._do("hang"))
    await until(lambda: target.hanging)
    with pytest.raises(UnavailableError, match="did not answer within"):
        await link._do("hang", timeout_s=0.01)
    assert not other.done()
    assert await link._do("double", 3) == 6
    assert "double" in link.actor.through_ray
    other.cancel()


async def test_a_door_that_cannot_be_reached_is_tried_again(link: ActorLink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls do not wait for it."""
    monkeypatch.setattr(links, "KNOCK_AGAIN_S", 0.01)
    link._pause_s = 0.01
    reach, tries = direct_client.open_channel, 0

    async def blocked(address: DoorAddress) -> direct_client.Channel:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise TimeoutError
        return await reach(address)

    monkeypatch.setattr(links, "open_channel", blocked)
    async with asyncio.timeout(10):
        while link._channel is None:
            assert await link._do("double", 1) == 2
            await asyncio.sleep(0.005)
    assert tries == 3
