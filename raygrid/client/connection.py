"""The two drivers that carry out flows over HTTP, for threads and for an event loop; all I/O of the client is here."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any, Generic, NoReturn, TypeVar

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
AnyClient = TypeVar("AnyClient", httpx.Client, httpx.AsyncClient)

_CONNECT_S = 3.0  # if there is another entry: time for a lost packet, but a machine that is gone is left soon


class _Connection(Generic[AnyClient]):
    """What both drivers share: the sockets, the requests, and what follows a failure."""

    def __init__(self, endpoint: Endpoint, timeout_s: float, http: PerProcess[AnyClient] | PerLoop[AnyClient]) -> None:
        self.flows = Flows(endpoint)
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._http: PerProcess[AnyClient] | PerLoop[AnyClient] = http
        http.get()  # raises now if a proxy of the environment is not valid

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: sockets belong to one process, and the API key must not be written anywhere."""
        raise TypeError(
            "a client, and a job or batch that it gave, cannot be sent to another process: connections and API key "
            f"stay in this one. Make a client there, raygrid.connect({self._endpoint.url!r}), and send job ids, inputs "
            "or results"
        )

    def _request(self, call: Call, entry: str) -> dict[str, Any]:
        """Arguments for httpx's build_request; a body with a known length is not sent in HTTP chunks."""
        timeout_s = self._timeout_s if call.at_most_s is None else min(self._timeout_s, call.at_most_s)
        connect_s = min(timeout_s, _CONNECT_S) if len(self._endpoint.entries) > 1 else timeout_s
        request: dict[str, Any] = {
            "method": call.method,
            "url": entry + call.path,
            "timeout": httpx.Timeout(timeout_s, connect=connect_s, read=timeout_s + call.wait_s),
        }
        if call.params:
            request["params"] = list(call.params)
        if call.body is not None:
            request["content"] = call.body.chunks()
            request["headers"] = {"Content-Type": call.body.content_type, "Content-Length": str(call.body.length)}
        return request

    @contextmanager
    def _handling_failures(self, entry: str, http: AnyClient) -> Iterator[None]:
        """Leave an entry whose connection fails; after the answer to another call, use new sockets, too."""
        try:
            yield
        except httpx.TransportError as error:
            if isinstance(error, MixedUpAnswerError):
                self._http.replace(http)  # other answers on these sockets may belong to other calls as well
            self._endpoint.leave(entry)
            raise

    def _leave_if_refused(self, entry: str, response: httpx.Response) -> None:
        """After a refusal that concerns one parent, send the next call to another entry or over another connection."""
        if speaks_for_one_entry(response):
            self._endpoint.leave(entry)
            sockets.hang_up(response)


class BlockingConnection(_Connection[httpx.Client]):
    """Carries out flows, blocking; threads and forked processes may share it.

    Each process has its own sockets; a given transport is used in all processes.
    """

    def __init__(self, endpoint: Endpoint, timeout_s: float, transport: httpx.BaseTransport | None = None) -> None:
        def client() -> httpx.Client:
            return httpx.Client(
                transport=transport or sockets.transport(endpoint, httpx.HTTPTransport),
                mounts=None if transport else sockets.mounts(endpoint, httpx.HTTPTransport),
                headers=endpoint.headers(),
                # A proxy of the environment is for other machines, not for a grid on this one.
                trust_env=not endpoint.is_local,
            )

        super().__init__(endpoint, timeout_s, PerProcess(client))
        self.pause = endpoint.retry.sleep

    def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end."""
        try:
            step = next(flow)
            while True:
                if not isinstance(step, Call):
                    self.pause(step.seconds)
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
        """Send a call and give the response before its body is read; the body of a refusal is read at once."""
        entry, http, process = self._endpoint.entry, self._http.get(), this_process()
        with self._handling_failures(entry, http):
            response = http.send(http.build_request(**self._request(call, entry)), stream=True)
            try:
                require_own(call, response, entry)
                if not response.is_success:
                    response.read()
                    self._leave_if_refused(entry, response)
                yield response
            finally:
                if this_process() == process:
                    response.close()

    def chunks(self, response: httpx.Response) -> Iterator[bytes]:
        """Read the body of a response piece by piece, in the process that opened it.

        Raises:
            ReadError: the process was forked meanwhile; the following bytes belong to the other process.
        """
        process = this_process()
        for chunk in response.iter_bytes():
            yield chunk
            _require_same(process)

    def close(self) -> None:
        """Close the sockets."""
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


class AsyncConnection(_Connection[httpx.AsyncClient]):
    """Carries out flows in an event loop; several loops may use it, one after another or at once."""

    def __init__(self, endpoint: Endpoint, timeout_s: float, transport: httpx.AsyncBaseTransport | None = None) -> None:
        def client() -> httpx.AsyncClient:
            return httpx.AsyncClient(
                transport=transport or sockets.transport(endpoint, httpx.AsyncHTTPTransport),
                mounts=None if transport else sockets.mounts(endpoint, httpx.AsyncHTTPTransport),
                headers=endpoint.headers(),
                trust_env=not endpoint.is_local,
            )

        super().__init__(endpoint, timeout_s, PerLoop(client))
        self.pause = endpoint.retry.sleep_async

    async def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end."""
        try:
            step = next(flow)
            while True:
                if not isinstance(step, Call):
                    await self.pause(step.seconds)
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
        """Send a call and give the response before its body is read; see `BlockingConnection.stream`."""
        entry, http, process = self._endpoint.entry, self._http.get(), this_process()
        request = self._request(call, entry)
        if call.body is not None:
            request["content"] = _in_loop(call.body)
        with self._handling_failures(entry, http):
            response = await http.send(http.build_request(**request), stream=True)
            try:
                require_own(call, response, entry)
                if not response.is_success:
                    await response.aread()
                    self._leave_if_refused(entry, response)
                yield response
            finally:
                if this_process() == process:
                    await response.aclose()

    async def chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """Read the body of a response piece by piece; see `BlockingConnection.chunks`."""
        process = this_process()
        async for chunk in response.aiter_bytes():
            yield chunk
            _require_same(process)

    async def close(self) -> None:
        """Close the sockets."""
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


def _require_same(process: Mark) -> None:
    if this_process() != process:
        raise httpx.ReadError("this process was forked while it read a response; it continues on its own connection")


async def _in_loop(body: Body) -> AsyncIterator[bytes]:
    for chunk in body.chunks():
        yield chunk


@contextmanager
def _written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears under its name only when it is complete.

    A symbolic link is kept, and its target is written. A path that is not a file, such as /dev/null or a FIFO, is
    written directly: a new file in its place would remove the device for all processes of the machine.
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
