"""The interface by which a drill injects faults, and the implementation for Ray clusters.

The drill never joins the Ray cluster, because it must outlive the head. `RayInjector` starts `ray_faults.py` as a
process, writes each request to its standard input as a line of JSON, and reads each answer as a line of JSON.
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
from raygrid.system.ray_environment import environment_beside_ray

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
        agent: whether it has a running agent.
        spared: why the whole machine must not be frozen; None if it may.
    """

    name: str
    group: str | None
    address: str
    agent: bool = True
    spared: str | None = None


@dataclass(frozen=True, slots=True)
class RunningCandidate:
    """A running leader candidate: its group, its machine, and whether it leads."""

    group: str
    place: str
    leads: bool


@dataclass(frozen=True, slots=True)
class GridSnapshot:
    """The parts of a grid and where they run.

    Attributes:
        places: the machines.
        candidates: the running leader candidates.
        parents: the machine of each running parent.
        head: `host:port` of the head.
        head_spared: why the head must not be killed; None if it may.
    """

    places: tuple[Place, ...]
    candidates: tuple[RunningCandidate, ...]
    parents: tuple[str, ...]
    head: str = ""
    head_spared: str | None = None

    def place(self, name: str) -> Place | None:
        """The machine with a name; None if there is none."""
        return next((place for place in self.places if place.name == name), None)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> GridSnapshot:
        """Read the output of `asdict`."""
        return cls(
            tuple(Place(**each) for each in values["places"]),
            tuple(RunningCandidate(**each) for each in values["candidates"]),
            tuple(values["parents"]),
            values["head"],
            values["head_spared"],
        )


@dataclass(frozen=True, slots=True)
class FaultTarget:
    """The target of a fault.

    Attributes:
        what: `agent`, `leader`, `node` (everything on its machine), `parent` or `head`.
        places: the target machines.
        group: of a leader.
        freeze_s: how long to freeze the target; 0 kills it.
    """

    what: str
    places: tuple[str, ...] = ()
    group: str = ""
    freeze_s: float = 0.0


class Injector(Protocol):
    """Injects one fault."""

    async def look(self) -> GridSnapshot:
        """The present parts of the grid."""

    async def aim(self, aim: FaultTarget) -> str:
        """Prepare a fault; returns what will be hit, in words."""

    async def inject(self) -> None:
        """Inject the prepared fault; returns when that is done."""

    async def heal(self) -> None:
        """Thaw all frozen processes at once, if there are any."""

    async def close(self) -> None:
        """Release all resources."""


class RayInjector:
    """Injects faults through Ray, from a separate process.

    Args:
        environment: variables for that process in addition to this one's, such as the cluster's address.
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
            with contextlib.suppress(RaygridError):  # without an answer, the target thaws when its time is over
                await self._ask({"do": "heal"}, INJECT_S)

    async def close(self) -> None:
        """See `Injector.close`."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            with contextlib.suppress(TimeoutError):  # while the head is dead, it cannot leave the cluster
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
            await self._end()  # a late answer would be read as the answer to the next request
            raise UnavailableError(f"no answer to {question['do']!r} within {timeout_s:g} s ({error!r})") from error
        if not line:
            raise UnavailableError(f"the process that injects faults ended during the request {question['do']!r}")
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
            start_new_session=True,  # Ctrl-C goes to the drill only, which then ends this process
        )
        return self._process
