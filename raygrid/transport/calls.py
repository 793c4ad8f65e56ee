"""The declaration of calls between tiers, and what is derived from it.

A call is declared once, as a method of a Protocol in `ports.py` with the decorator `call`. From the Protocol come the
typed link of the caller (`link_to`), the methods of the actor (`exposes`), the names that a direct server accepts
(`direct_calls`), and the fakes of tests. A `Carrier` transports the calls.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

_DECLARED = "__declared_call__"

Calls = TypeVar("Calls")
Calls_co = TypeVar("Calls_co", covariant=True)
Method = TypeVar("Method", bound=Callable[..., Coroutine[Any, Any, Any]])


@dataclass(frozen=True, slots=True)
class DeclaredCall:
    """One declared call.

    Attributes:
        name: the method's name, on both sides.
        limit_s: seconds until the caller gives up, without the time that the callee may wait.
        wait_index: position of the argument that gives how long the callee may wait; None if it does not wait.
        direct: whether it may use a direct channel; not for answers that do not fit into a frame.
    """

    name: str
    limit_s: float
    wait_index: int | None
    direct: bool

    def timeout_s(self, args: tuple[Any, ...]) -> float:
        """Seconds until the caller gives up on a call with these arguments."""
        return self.limit_s if self.wait_index is None else self.limit_s + float(args[self.wait_index])


class Carrier(Protocol):
    """Transports a call to the callee and returns the answer."""

    def __call__(self, call: DeclaredCall, args: tuple[Any, ...], /) -> Coroutine[Any, Any, Any]:
        """The callee's answer.

        Raises:
            RaygridError: the callee's own error, or `UnavailableError` if it is unknown whether the call was
                carried out.
        """


def call(timeout_s: float, *, waits: str | None = None, direct: bool = True) -> Callable[[Method], Method]:
    """Declare a method of a Protocol as a call between tiers; its parameters must be positional-only.

    `waits` is the name of the parameter for how long the callee may wait; for the others see `DeclaredCall`.
    """

    def declare(method: Method) -> Method:
        _, *parameters = inspect.signature(method).parameters.values()
        if any(each.kind is not each.POSITIONAL_ONLY for each in parameters):
            raise TypeError(f"the parameters of {method.__qualname__} must be positional-only")
        names = [each.name for each in parameters]
        index = None if waits is None else names.index(waits)
        setattr(method, _DECLARED, DeclaredCall(method.__name__, timeout_s, index, direct))
        return method

    return declare


@functools.cache
def calls_of(protocol: Callable[..., Any]) -> tuple[DeclaredCall, ...]:
    """The calls that a Protocol declares.

    Raises:
        TypeError: it has a public method without the decorator `call`, or none at all.
    """
    methods = [each for name, each in inspect.getmembers(protocol, inspect.isfunction) if not name.startswith("_")]
    undeclared = [each.__qualname__ for each in methods if not hasattr(each, _DECLARED)]
    if undeclared or not methods:
        raise TypeError(f"{protocol} declares no calls, or has methods without the decorator `call`: {undeclared}")
    return tuple(getattr(each, _DECLARED) for each in methods)


def direct_calls(protocol: Callable[..., Any]) -> frozenset[str]:
    """The names of the calls that may use a direct channel."""
    return frozenset(each.name for each in calls_of(protocol) if each.direct)


def link_to(protocol: Callable[..., Calls], carry: Carrier) -> Calls:
    """An object with the methods of a Protocol; each passes its call to `carry`."""
    return cast(Calls, _link_class(protocol)(carry))


class _TypedLink:
    __slots__ = ("_carry",)

    def __init__(self, carry: Carrier) -> None:
        self._carry = carry


@functools.cache
def _link_class(protocol: Callable[..., Any]) -> type[_TypedLink]:
    def method(call: DeclaredCall) -> Callable[..., Coroutine[Any, Any, Any]]:
        def carried(self: _TypedLink, *args: Any) -> Coroutine[Any, Any, Any]:
            return self._carry(call, args)

        return carried

    members = {each.name: method(each) for each in calls_of(protocol)}
    return type(f"LinkTo{getattr(protocol, '__name__', 'Calls')}", (_TypedLink,), {"__slots__": (), **members})


class _Serving(Protocol[Calls_co]):
    @property
    def calls(self) -> Calls_co: ...


def exposes(protocol: Callable[..., Calls]) -> Callable[[type[_Serving[Calls]]], Any]:
    """Add the calls of a Protocol to an actor class, as methods that call its attribute `calls`."""

    def expose(actor: type[Any]) -> type[Any]:
        for each in calls_of(protocol):
            setattr(actor, each.name, _delegate(each.name))
        return actor

    return expose


def _delegate(name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def delegated(self: _Serving[Any], *args: Any) -> Any:
        return await getattr(self.calls, name)(*args)

    delegated.__name__ = delegated.__qualname__ = name
    return delegated
