"""The messages on a direct channel, derived from a Protocol: MessagePack with the types that its calls declare.

A message is decoded into those types only, so that no message can run code. A call is `[number, method, arguments]`,
an answer `[number, succeeded, value or error]`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, get_type_hints

import msgspec

from raygrid import errors
from raygrid.errors import BusyError, RaygridError, UnavailableError
from raygrid.transport.calls import direct_calls
from raygrid.transport.wire import FrameTooLargeError

_ENCODER = msgspec.msgpack.Encoder()


class NoMessageError(FrameTooLargeError):
    """A value cannot be part of a message; such calls use Ray."""


class CallError(NamedTuple):
    """An error that the callee raised.

    Attributes:
        kind: the name of its class in `raygrid.errors`, or of `FrameTooLargeError`.
        text: its text.
        retry_after_s: that of a `BusyError`.
    """

    kind: str
    text: str
    retry_after_s: float | None = None


class Request(NamedTuple):
    """A call, with undecoded arguments."""

    number: int
    method: str
    args: msgspec.Raw


class Answer(NamedTuple):
    """An answer, with an undecoded value or error."""

    number: int
    succeeded: bool
    value: msgspec.Raw


_REQUESTS = msgspec.msgpack.Decoder(Request)
_ANSWERS = msgspec.msgpack.Decoder(Answer)
_ERRORS = msgspec.msgpack.Decoder(CallError)


class Messages:
    """The messages of the direct calls of a Protocol; `messages_of` makes it."""

    def __init__(self, protocol: Callable[..., Any]) -> None:
        self._args: dict[str, msgspec.msgpack.Decoder[msgspec.Struct]] = {}
        self._values: dict[str, msgspec.msgpack.Decoder[Any]] = {}
        for name in direct_calls(protocol):
            method = getattr(protocol, name)
            self._values[name] = msgspec.msgpack.Decoder(get_type_hints(method)["return"])
            self._args[name] = msgspec.msgpack.Decoder(_arguments_of(method))

    def args(self, request: Request) -> tuple[Any, ...]:
        """The arguments of a call; those that the caller leaves out have their defaults.

        Raises:
            UnavailableError: there is no such direct call, or the arguments are not of the declared types.
        """
        decoder = self._args.get(request.method)
        if decoder is None:
            raise UnavailableError(f"there is no direct call {request.method!r}")
        try:
            return msgspec.structs.astuple(decoder.decode(request.args))
        except msgspec.MsgspecError as error:
            raise UnavailableError(f"the arguments of the call {request.method!r} cannot be read: {error}") from None

    def value(self, method: str, answer: Answer) -> Any:
        """The value of an answer to a call of a method.

        Raises:
            RaygridError: the error that the callee raised.
            FrameTooLargeError: the answer did not fit into a message.
            UnavailableError: the value is not of the declared type.
        """
        try:
            if answer.succeeded:
                return self._values[method].decode(answer.value)
            error = _ERRORS.decode(answer.value)
        except msgspec.MsgspecError as wrong:
            raise UnavailableError(f"the answer to the call {method!r} cannot be read: {wrong}") from None
        raise _error_of(error)


def _arguments_of(method: Callable[..., Any]) -> type[msgspec.Struct]:
    """The arguments of a method as one type."""
    hints = get_type_hints(method)
    _, *parameters = inspect.signature(method).parameters.values()
    fields = [
        (each.name, hints[each.name], msgspec.NODEFAULT if each.default is each.empty else each.default)
        for each in parameters
    ]
    return msgspec.defstruct(f"Arguments of {method.__name__}", fields, array_like=True, forbid_unknown_fields=True)


@functools.cache
def messages_of(protocol: Callable[..., Any]) -> Messages:
    """The messages of the direct calls of a Protocol."""
    return Messages(protocol)


def request(number: int, method: str, args: tuple[Any, ...]) -> bytes:
    """A call as a message.

    Raises:
        NoMessageError: an argument cannot be part of a message.
    """
    return _encoded((number, method, args))


def answer(number: int, value: Any) -> bytes:
    """The answer to a call as a message.

    Raises:
        NoMessageError: the value cannot be part of a message.
    """
    return _encoded((number, True, value))


def failure(number: int, error: BaseException) -> bytes:
    """The answer to a call that raised an error.

    Errors of the grid and `FrameTooLargeError` are passed on; after any other error the outcome is unknown.
    """
    if isinstance(error, FrameTooLargeError):
        found = CallError(FrameTooLargeError.__name__, _text_of(error))
    elif isinstance(error, RaygridError):
        kinds = (each.__name__ for each in type(error).__mro__)
        kind = next(each for each in kinds if each in _KINDS)
        found = CallError(kind, _text_of(error), error.retry_after_s if isinstance(error, BusyError) else None)
    else:
        found = CallError(UnavailableError.__name__, _text_of(f"the call failed: {error!r}"))
    return _ENCODER.encode((number, False, found))


def read_request(body: bytes) -> Request:
    """A call from a message.

    Raises:
        msgspec.MsgspecError: it is no call.
    """
    return _REQUESTS.decode(body)


def read_answer(body: bytes) -> Answer:
    """An answer from a message.

    Raises:
        msgspec.MsgspecError: it is no answer.
    """
    return _ANSWERS.decode(body)


def _encoded(value: Any) -> bytes:
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise NoMessageError(f"a value cannot be sent directly: {error}") from None


def _text_of(error: object) -> str:
    return str(error).encode(errors="backslashreplace").decode()


def _kinds() -> dict[str, type[RaygridError]]:
    """The errors of the grid whose only argument is their text."""
    kinds = {}
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, RaygridError) and kind is not errors.JobFailedError:
            kinds[name] = kind
    return kinds


_KINDS = _kinds()


def _error_of(error: CallError) -> Exception:
    if error.kind == FrameTooLargeError.__name__:
        return FrameTooLargeError(error.text)
    made = _KINDS.get(error.kind, UnavailableError)(error.text)
    if isinstance(made, BusyError) and error.retry_after_s is not None:
        made.retry_after_s = error.retry_after_s
    return made
