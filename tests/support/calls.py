"""Fakes of the calls between the tiers, derived from the Protocols that declare them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raygrid.transport.calls import Calls, DeclaredCall, link_to
from raygrid.transport.ports import LeaderCalls


class CallRecorder:
    """Carries calls to an object in this process and records their names. Calls that the object lacks do nothing."""

    def __init__(self, target: object) -> None:
        self.target = target
        self.names: list[str] = []

    async def __call__(self, call: DeclaredCall, args: tuple[Any, ...]) -> Any:
        self.names.append(call.name)
        return await answer_of(self.target, call, args)


async def answer_of(target: object, call: DeclaredCall, args: tuple[Any, ...]) -> Any:
    """The answer of an object to a call; None if it has no such method."""
    method = getattr(target, call.name, None)
    answer = method(*args) if method is not None else None
    return await answer if inspect.isawaitable(answer) else answer


def fake_of(protocol: Callable[..., Calls], target: object) -> Calls:
    """A link whose calls an object in this process answers; see `CallRecorder`."""
    return link_to(protocol, CallRecorder(target))


class FakeGroups:
    """Groups whose candidates are objects in this process."""

    def __init__(self, candidates: Mapping[str, Sequence[object]]) -> None:
        self._links = {group_id: [fake_of(LeaderCalls, each) for each in some] for group_id, some in candidates.items()}

    async def groups(self) -> Mapping[str, Sequence[LeaderCalls]]:
        return self._links
