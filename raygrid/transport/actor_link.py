"""The link to one actor: calls use a direct channel while one is open, and Ray otherwise.

The address of the actor's direct server is requested through Ray. Every call has a timeout, and Ray's errors are
translated into raygrid's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined]  # made at run time
from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError

from raygrid.errors import ProcessEndedError, RaygridError, UnavailableError, UnreachableError
from raygrid.transport.calls import Calls, DeclaredCall, link_to
from raygrid.transport.direct_client import ConnectionBrokenError, DirectChannel, connect_directly
from raygrid.transport.ports import CALL_TIMEOUT_S
from raygrid.transport.wire import FrameTooLargeError

logger = logging.getLogger(__name__)

RECONNECT_S, LONGEST_PAUSE_S = 0.5, 30.0  # between tries to connect directly
GONE_WITHIN_S = 0.2  # on an idle machine, Ray reports the end of a process within some 20 ms
LOOK_S = 0.1  # a waiting call checks this often whether the actor is alive
Answer = TypeVar("Answer")


class ActorLink(Generic[Calls]):
    """A link to an actor. The owner closes it.

    Args:
        protocol: the calls that the actor answers.
        what: the actor's name in errors and logs, such as `node n1`.
        actor: its handle.

    Attributes:
        calls: the actor's calls, typed.
        is_dead: whether Ray has reported that the actor will not be restarted.
    """

    def __init__(self, protocol: Callable[..., Calls], what: str, actor: Any) -> None:
        self.calls = link_to(protocol, self._carry)
        self._protocol = protocol
        self.is_dead = False
        self._what = what
        self._actor = actor
        self._channel: DirectChannel | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._pause_s = RECONNECT_S
        self._closed = False
        self._too_large: set[str] = set()  # calls whose answers were not sent directly; they use Ray since then

    async def _carry(self, call: DeclaredCall, args: tuple[Any, ...]) -> Any:
        timeout_s = call.timeout_s(args)
        channel = self._open_channel() if call.direct else None
        if channel is not None and call.name not in self._too_large:
            try:
                answer = channel.ask(call.name, args)
            except FrameTooLargeError:
                pass  # nothing was sent
            else:
                return await self._answered_directly(channel, call, answer, timeout_s)
        return await self._ask(self._through_ray(call.name, *args), timeout_s)

    def _through_ray(self, name: str, *args: Any) -> Awaitable[Any]:
        """Call the actor through Ray, unless it is being restarted.

        Ray lets a call that is made during a restart fail 1 to 2.2 s later, though the actor is back.
        """
        if self._is_gone():
            raise ProcessEndedError(f"{self._what} failed: its process has ended")
        answer: Awaitable[Any] = getattr(self._actor, name).remote(*args)
        return answer

    async def _answered_directly(
        self, channel: DirectChannel, call: DeclaredCall, answer: Awaitable[Any], timeout_s: float
    ) -> Any:
        try:
            return await self._ask(answer, timeout_s)
        except FrameTooLargeError as error:
            self._too_large.add(call.name)
            raise UnavailableError(f"the answer of {self._what} was not sent directly, and is lost: {error}") from error
        except UnavailableError as error:
            if isinstance(error.__cause__, TimeoutError):
                channel.retire()  # perhaps only the channel is broken, so the next call uses Ray
            raise

    def _open_channel(self) -> DirectChannel | None:
        """The direct channel, if it is open; otherwise a task starts to open one."""
        if self._channel is not None and self._channel.is_open:
            return self._channel
        if not self._closed and (self._connecting is None or self._connecting.done()):
            self._connecting = asyncio.get_running_loop().create_task(self._connect(), name=f"connect {self._what}")
        return None

    async def _connect(self) -> None:
        try:
            address = await self._ask(self._through_ray("direct_address"))
            if address is not None:
                self._channel = await connect_directly(address, self._protocol)
                self._pause_s = RECONNECT_S
                return
        except (RaygridError, OSError, TimeoutError) as error:
            logger.info("%s has no direct channel; calling it through Ray: %s", self._what, error)
        except Exception:
            logger.exception("%s has no direct channel; calling it through Ray", self._what)
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)

    def close(self) -> None:
        """Close the direct channel permanently; later calls use Ray."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._channel is not None:
            self._channel.close()

    async def _ask(self, reference: Awaitable[Answer], timeout_s: float = CALL_TIMEOUT_S) -> Answer:
        try:
            return await _answered(self._what, reference, timeout_s, self._is_gone)
        except UnavailableError as error:
            self.is_dead = self.is_dead or isinstance(error.__cause__, ActorDiedError)
            raise

    def _is_gone(self) -> bool:
        """Whether Ray reports that the actor's process has ended.

        Every process with a handle gets that report within some 20 ms, while pending calls fail only after 1 to 2.2 s.
        Reading the state is cheap, because Ray keeps it in this process.
        """
        state = self._actor._get_local_state()
        self.is_dead = self.is_dead or state == ActorTableData.DEAD
        return self.is_dead or state == ActorTableData.RESTARTING


async def _answered(what: str, reference: Awaitable[Answer], timeout_s: float, is_gone: Callable[[], bool]) -> Answer:
    """Await a call. The callee's own errors are raised unchanged; after any other error the outcome is unknown."""
    call = asyncio.ensure_future(reference)
    try:
        async with asyncio.timeout(timeout_s):
            while not (await asyncio.wait((call,), timeout=LOOK_S))[0]:
                if is_gone():
                    raise ProcessEndedError(f"{what} failed: its process has ended")
        return call.result()
    except ConnectionBrokenError as error:
        # The process may have ended, which Ray reports a moment later.
        until = asyncio.get_running_loop().time() + GONE_WITHIN_S
        while not is_gone() and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110 - Ray gives no event
            await asyncio.sleep(GONE_WITHIN_S / 20)
        if is_gone():
            raise ProcessEndedError(f"{what} failed: its process has ended") from error
        raise UnreachableError(f"{what} failed: {error}") from error
    except RayTaskError as error:
        if isinstance(error.cause, RaygridError):
            raise error.cause from None
        raise UnavailableError(f"{what} failed: {error.cause!r}") from error
    except ActorDiedError as error:
        raise ProcessEndedError(f"{what} failed: its actor is dead") from error
    except RayActorError as error:
        raise UnreachableError(f"{what} failed: {type(error).__name__}") from error
    except RayError as error:
        raise UnavailableError(f"{what} failed: {type(error).__name__}") from error
    except TimeoutError as error:
        raise UnavailableError(f"{what} did not answer within {timeout_s:g} s") from error
    finally:
        call.cancel()
