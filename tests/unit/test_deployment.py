"""How the stamp of a deployment gets from the parents to the leader, without Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from raygrid.composition import ACTORS
from raygrid.errors import SettingsError, UnavailableError
from raygrid.leader import actor
from raygrid.leader.actor import LeaderActor
from raygrid.leader.dispatch import Leader
from raygrid.parent import ingress
from raygrid.settings.model import GridSettings, load_settings
from raygrid.transport.ports import NodeCalls


class NoNodes:
    """A group without nodes; keeps the settings that new agents would be made with."""

    def __init__(self, _group_id: str, settings: GridSettings, _agent_class: type[Any]) -> None:
        self.settings = settings

    def configure(self, settings: GridSettings) -> None:
        self.settings = settings

    async def nodes(self) -> Mapping[str, NodeCalls]:
        return {}

    def close(self) -> None:
        pass


@pytest.fixture
def settings(tmp_path: Path) -> GridSettings:
    (tmp_path / "small").mkdir()
    return load_settings(name="small", storage={"state_dir": tmp_path}).deployed(1.0)


@pytest.fixture
async def leader(settings: GridSettings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LeaderActor]:
    monkeypatch.setattr(actor, "RayNodes", NoNodes)
    # The guard of a real leader kills a process that stands still for 8 s: here that process would be the test's own.
    monkeypatch.setattr(actor, "FROZEN_S", 3600.0)
    made = LeaderActor("rack-a", settings, "leader:rack-a:1", object)
    yield made
    await made.close()


async def stamp_of(leader: LeaderActor) -> float:
    """The stamp in a leader's answer, once it leads."""
    async with asyncio.timeout(10):
        while True:
            try:
                return (await leader.calls.changes("", 0, 0)).deployed_at
            except UnavailableError:
                await asyncio.sleep(0.02)


def test_what_is_deployed_carries_the_time(settings: GridSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each build of the application is newer than those before it, and all its replicas have one stamp."""
    makers: list[Callable[[], float]] = []

    def take(make: Callable[[], float]) -> Callable[[], type]:
        makers.append(make)
        return lambda: type("Replica", (), {})

    monkeypatch.setattr("raygrid.parent.ingress.serve.ingress", take)
    monkeypatch.setattr(ingress, "asgi", lambda given, _actors, *, listens: given.deployed_at)
    before = time.time()
    ingress.build(settings, ACTORS)
    ingress.build(settings, ACTORS)
    first, again, second = makers[0](), makers[0](), makers[1]()
    assert before <= first == again < second <= time.time()


async def test_a_leader_follows_newer_settings_and_no_older_ones(leader: LeaderActor, settings: GridSettings) -> None:
    """It reports which it follows; new agents are made with them, too."""
    assert await stamp_of(leader) == 1.0
    await leader.calls.configure(settings.deployed(3.0))
    await leader.calls.configure(settings.deployed(2.0))
    assert await stamp_of(leader) == 3.0
    assert isinstance(leader._nodes, NoNodes)
    assert leader._nodes.settings.deployed_at == 3.0


async def test_settings_that_arrive_before_the_lease_are_used_with_it(
    leader: LeaderActor, settings: GridSettings
) -> None:
    """A candidate that was just restarted keeps the settings until it has the lease."""
    with pytest.raises(UnavailableError):
        await leader.calls.configure(settings.deployed(3.0))
    assert await stamp_of(leader) == 3.0


async def test_settings_that_arrive_while_it_begins_to_lead_are_used(
    leader: LeaderActor, settings: GridSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings that arrive between the lease and the first answer count."""
    begins, reported = asyncio.Event(), asyncio.Event()
    take_up = Leader.open

    async def slowly(self: Leader) -> None:
        begins.set()
        await reported.wait()
        await take_up(self)

    monkeypatch.setattr(Leader, "open", slowly)
    await leader.open()
    async with asyncio.timeout(10):
        await begins.wait()
    with pytest.raises(UnavailableError):
        await leader.calls.configure(settings.deployed(3.0))
    reported.set()
    assert await stamp_of(leader) == 3.0


@pytest.mark.parametrize("recorded", [None, b"craygrid.config\nGridSettings\n."])
def test_settings_of_another_release_are_an_error_with_the_remedy(
    recorded: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grid that recorded no settings, or some that name classes which have moved, is stopped and started again."""
    monkeypatch.setattr("ray.experimental.internal_kv._internal_kv_get", lambda _key: recorded)
    with pytest.raises(SettingsError, match=r"another release of raygrid.*`raygrid down`"):
        ingress.deployed_here()
