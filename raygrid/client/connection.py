"""The drivers that carry flows out over HTTP, for threads and for an event loop; only they know sockets."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

import httpx

from raygrid.client import large_body, sockets
from raygrid.client.calls import Body, Call, Flow
from raygrid.client.endpoint import Endpoint
from raygrid.client.fit import BodyCheck, MixedUpAnswerError, require_own
from raygrid.client.flows import Flows
from raygrid.client.per_loop import PerLoop
from raygrid.client.per_process import Mark, PerProcess, this_process
from raygrid.client.retry import speaks_for_one_entry

T = TypeVar("T")

_CONNECT_S = 3.0  # where there is another entry to try: time for a lost packet, not for a machine that is gone


class Connection:
    """Carries flows out, blocking; safe to share between threads, and with forked processes.

    Each process has sockets of its own; a transport that was given is used in all of them.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        timeout_s: float,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.flows = Flows(endpoint)
        self._timeout_s = timeout_s
        self._sleep = endpoint.retry.sleep
        self._endpoint = endpoint
        self._http = PerProcess(
            lambda: httpx.Client(
                transport=transport or sockets.transport(endpoint),
                mounts=None if transport else sockets.mounts(endpoint),
                headers=endpoint.headers(),
                # A proxy from the environment is meant for the way out, not for a grid on this machine.
                trust_env=not endpoint.is_local,
            )
        )
        self._http.get()  # says now what is wrong with a proxy of the environment

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: sockets belong to a process, and the API key should not be written anywhere."""
        raise _cannot_be_pickled(self._endpoint)

    def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end."""
        try:
            step = next(flow)
            while True:
                if not isinstance(step, Call):
                    self._sleep(step.seconds)
                    step = flow.send(None)
                    continue
                try:
                    response = self._send(step)
                except httpx.TransportError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(response)
        except StopIteration as end:
            value: T = end.value
            return value

    @contextmanager
    def stream(self, call: Call) -> Iterator[httpx.Response]:
        """Open an answer whose body is read piece by piece; that of a refusal is read at once."""
        entry, http, process = self._endpoint.entry, self._http.get(), this_process()
        with _leaving(self._endpoint, entry):
            request = http.build_request(**_request(call, self._endpoint, entry, self._timeout_s))
            response = http.send(request, stream=True)
            try:
                require_own(call, response, entry)
                if not response.is_success:
                    response.read()
                    _leave_if_refused(self._endpoint, entry, response)
                yield response
            except MixedUpAnswerError:
                self._http.replace(http)  # other answers may be as mixed up
                raise
            finally:
                if this_process() == process:
                    response.close()

    def chunks(self, response: httpx.Response) -> Iterator[bytes]:
        """Read the body of an answer piece by piece, in the process that opened it.

        Raises:
            ReadError: the reader goes on in a forked process; the bytes that follow belong to the other one.
        """
        process = this_process()
        for chunk in response.iter_bytes():
            yield chunk
            _require_same(process)

    def pause(self, seconds: float) -> None:
        """Do nothing for some seconds."""
        self._sleep(seconds)

    def close(self) -> None:
        """Give the sockets back."""
        if (http := self._http.made()) is not None:
            http.close()

    def _send(self, call: Call) -> httpx.Response:
        with self.stream(call) as response:
            check = BodyCheck(call, response, self._endpoint.entry)
            if call.save_to is None:
                check.update(response.read())
                check.require()
            elif response.is_success:
                with _written_whole(call.save_to) as file:
                    for piece in large_body.pieces(response):
                        file.write(piece)
                        check.update(piece)
                    check.require()
        return response


class AsyncConnection:
    """Carries flows out in an event loop; safe to use in several, one after another or at once."""

    def __init__(
        self,
        endpoint: Endpoint,
        timeout_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.flows = Flows(endpoint)
        self._timeout_s = timeout_s
        self._sleep = endpoint.retry.sleep_async
        self._endpoint = endpoint
        self._http = PerLoop(
            lambda: httpx.AsyncClient(
                transport=transport or sockets.async_transport(endpoint),
                mounts=None if transport else sockets.async_mounts(endpoint),
                headers=endpoint.headers(),
                trust_env=not endpoint.is_local,
            )
        )
        self._http.get()  # as in `Connection`

    def __reduce__(self) -> NoReturn:
        """As `Connection`."""
        raise _cannot_be_pickled(self._endpoint)

    async def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end."""
        try:
            step = next(flow)
            while True:
                if not isinstance(step, Call):
                    await self._sleep(step.seconds)
                    step = flow.send(None)
                    continue
                try:
                    response = await self._send(step)
                except httpx.TransportError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(response)
        except StopIteration as end:
            value: T = end.value
            return value

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[httpx.Response]:
        """Open an answer whose body is read piece by piece; that of a refusal is read at once."""
        entry, http, process = self._endpoint.entry, self._http.get(), this_process()
        options = _request(call, self._endpoint, entry, self._timeout_s)
        if call.body is not None:
            options["content"] = _in_loop(call.body)
        with _leaving(self._endpoint, entry):
            response = await http.send(http.build_request(**options), stream=True)
            try:
                require_own(call, response, entry)
                if not response.is_success:
                    await response.aread()
                    _leave_if_refused(self._endpoint, entry, response)
                yield response
            except MixedUpAnswerError:
                self._http.replace(http)
                raise
            finally:
                if this_process() == process:
                    await response.aclose()

    async def chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """Read the body of an answer piece by piece; as `Connection.chunks`."""
        process = this_process()
        async for chunk in response.aiter_bytes():
            yield chunk
            _require_same(process)

    async def pause(self, seconds: float) -> None:
        """Do nothing for some seconds."""
        await self._sleep(seconds)

    async def close(self) -> None:
        """Give the sockets back."""
        if (http := self._http.made()) is not None:
            await http.aclose()

    async def _send(self, call: Call) -> httpx.Response:
        async with self.stream(call) as response:
            check = BodyCheck(call, response, self._endpoint.entry)
            if call.save_to is None:
                check.update(await response.aread())
                check.require()
            elif response.is_success:
                with _written_whole(call.save_to) as file:
                    async for piece in large_body.pieces_async(response):
                        file.write(piece)
                        check.update(piece)
                    check.require()
        return response


def _cannot_be_pickled(endpoint: Endpoint) -> TypeError:
    return TypeError(
        "a client, and a job or batch that it gave, cannot be sent to another process: connections and API key stay "
        f"in this one. Make a client there, raygrid.connect({endpoint.url!r}), and send job ids, inputs or results"
    )


def _request(call: Call, endpoint: Endpoint, entry: str, timeout_s: float) -> dict[str, Any]:
    """Arguments for httpx's build_request; a body with a known length is not sent in HTTP chunks."""
    if call.at_most_s is not None:
        timeout_s = min(timeout_s, call.at_most_s)
    connect_s = min(timeout_s, _CONNECT_S) if len(endpoint.entries) > 1 else timeout_s
    options: dict[str, Any] = {
        "method": call.method,
        "url": entry + call.path,
        "timeout": httpx.Timeout(timeout_s, connect=connect_s, read=timeout_s + call.wait_s),
    }
    if call.params:
        options["params"] = list(call.params)
    if call.body is not None:
        options["content"] = call.body.chunks()
        options["headers"] = {"Content-Type": call.body.content_type, "Content-Length": str(call.body.length)}
    return options


@contextmanager
def _leaving(endpoint: Endpoint, entry: str) -> Iterator[None]:
    """Leave an entry whose connection fails, be it before the answer or in the middle of it."""
    try:
        yield
    except httpx.TransportError:
        endpoint.leave(entry)
        raise


def _require_same(process: Mark) -> None:
    if this_process() != process:
        raise httpx.ReadError("this process was forked while it read an answer; it reads on over its own connection")


def _leave_if_refused(endpoint: Endpoint, entry: str, response: httpx.Response) -> None:
    """After a refusal that is one parent's alone, go on elsewhere: at another entry, or over another connection."""
    if speaks_for_one_entry(response):
        endpoint.leave(entry)
        sockets.hang_up(response)


async def _in_loop(body: Body) -> AsyncIterator[bytes]:
    for chunk in body.chunks():
        yield chunk


@contextmanager
def _written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears under its name only when it is whole.

    A link stays a link, and what it leads to is written. What is no file, such as /dev/null or a FIFO, is written
    into: a new file in its place would take the device away from everything on the machine.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        with path.open("wb") as device:
            yield device
        return
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with unfinished.open("xb") as file:
            yield file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
