"""What a drill asks for when it wants something broken, and the process of its own that does it.

The drill itself never joins the Ray cluster: it must outlive the head. `RayInjector` starts `ray_faults.py`, says on
its standard input what to do, a line of JSON each, and reads a line of JSON for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from raygrid.errors import RaygridError, UnavailableError
from raygrid.system.supervision import environment_beside_ray

LOOK_S = 60.0
INJECT_S = 10.0
CLOSE_S = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """A machine (a Ray node).

    Attributes:
        name: the node's name in the grid.
        group: its group; None for a machine without pricers.
        address: its network address.
        agent: whether its agent lives.
        spared: why the whole of it must not fall silent; None where it may.
    """

    name: str
    group: str | None
    address: str
    agent: bool = True
    spared: str | None = None


@dataclass(frozen=True, slots=True)
class RunningCandidate:
    """A leader candidate that lives: of which group, on which machine, and whether it leads."""

    group: str
    place: str
    leads: bool


@dataclass(frozen=True, slots=True)
class GridSnapshot:
    """What runs where.

    Attributes:
        places: the machines.
        candidates: the leader candidates that live.
        parents: the machine of each parent that lives.
        head: `host:port` of the head.
        head_spared: why the head must not be killed; None where it may be.
    """

    places: tuple[Place, ...]
    candidates: tuple[RunningCandidate, ...]
    parents: tuple[str, ...]
    head: str = ""
    head_spared: str | None = None

    def place(self, name: str) -> Place | None:
        """The machine of a name."""
        return next((place for place in self.places if place.name == name), None)

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> GridSnapshot:
        """Read what `asdict` has written."""
        return cls(
            tuple(Place(**each) for each in said["places"]),
            tuple(RunningCandidate(**each) for each in said["candidates"]),
            tuple(said["parents"]),
            said["head"],
            said["head_spared"],
        )


@dataclass(frozen=True, slots=True)
class FaultTarget:
    """What to hit.

    Attributes:
        what: `agent`, `leader`, `node` (everything on its machine), `parent` or `head`.
        places: the machines that it concerns.
        group: of a leader.
        freeze_s: freeze it for so long; 0 kills.
    """

    what: str
    places: tuple[str, ...] = ()
    group: str = ""
    freeze_s: float = 0.0


class Injector(Protocol):
    """Breaks one thing."""

    async def look(self) -> GridSnapshot:
        """What runs where, now."""
        ...

    async def aim(self, aim: FaultTarget) -> str:
        """Make everything ready; gives what will be hit, in words."""
        ...

    async def inject(self) -> None:
        """Do it; returns when it is done."""
        ...

    async def heal(self) -> None:
        """Thaw what is frozen, at once; harmless where nothing is."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


class RayInjector:
    """Breaks things through Ray, by a process of its own.

    Args:
        environment: what that process finds in its environment besides this one's, such as where the cluster is.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._freezes = False

    async def look(self) -> GridSnapshot:
        """See `Injector.look`."""
        return GridSnapshot.of(await self._ask({"do": "look"}, LOOK_S))

    async def aim(self, aim: FaultTarget) -> str:
        """See `Injector.aim`."""
        self._freezes = aim.freeze_s > 0
        return str((await self._ask({"do": "aim", "aim": asdict(aim)}, LOOK_S))["what"])

    async def inject(self) -> None:
        """See `Injector.inject`."""
        await self._ask({"do": "inject"}, INJECT_S)

    async def heal(self) -> None:
        """See `Injector.heal`."""
        if self._freezes and self._process is not None and self._process.returncode is None:
            with contextlib.suppress(RaygridError):  # it is thawed by itself when its time is over
                await self._ask({"do": "heal"}, INJECT_S)

    async def close(self) -> None:
        """See `Injector.close`."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            with contextlib.suppress(TimeoutError):  # it cannot take its leave of a head that is dead
                async with asyncio.timeout(CLOSE_S):
                    await self._process.wait()
            await self._end()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _ask(self, question: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        process = self._process or await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            await process.stdin.drain()
            async with asyncio.timeout(timeout_s):
                line = await process.stdout.readline()
        except (OSError, TimeoutError) as error:
            await self._end()  # a late answer would be taken for that to the next question
            raise UnavailableError(f"no answer to {question['do']!r} within {timeout_s:g} s ({error!r})") from error
        if not line:
            raise UnavailableError(f"the process that breaks things has ended while asked to {question['do']}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise UnavailableError(answer["error"])
        return answer

    async def _start(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "raygrid.drill.ray_faults"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**environment_beside_ray(os.environ), **self._environment},
            start_new_session=True,  # Ctrl-C is for the drill, which then ends this process
        )
        return self._process


__all__ = ["FaultTarget", "GridSnapshot", "Injector", "Place", "RayInjector", "RunningCandidate"]
