"""One node as its leader talks to it: a poll that waits for reports, and one hand-over at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from raygrid.config import GridSettings
from raygrid.core.events import AttemptOrder, Event, HandOverEnded, NodeLost, NodeReported
from raygrid.errors import RaygridError, StaleTermError, UnreachableError
from raygrid.leader.definitions import Definitions
from raygrid.models import AttemptId, Definition
from raygrid.ports import NodeLink

logger = logging.getLogger(__name__)

POLL_S = 1.0  # longest time that a poll waits at an idle node; well below the silence after which one is lost
PAUSE_S = 0.2
# A node whose process is gone, or whose connection broke, is asked again this often, and is lost after so long.
ASK_AGAIN_S = 0.1
UNREACHABLE_S = 0.4


class NodeConversation:
    """Polls a node and sends it orders and stops, whatever gathers in one call.

    Args:
        node_id: the node.
        link: how to reach it.
        term: the leader's term.
        happened: takes the events that come of it, but for replies.
        reported: takes a reply; gives whether it could be taken in, and otherwise it comes again.
        settle: `settle(action)` runs `action` once everything decided so far is committed.
        stale: called when the node follows a newer term.
        stands: whether an attempt is still this node's to run; one that was given up since it was ordered is not.
        clock: seconds since the epoch, never falling.
        settings: what the node is to follow; one that follows older settings is told.
        definitions: what jobs run; each is sent once to each life of the node, with the first order that needs it.
    """

    def __init__(
        self,
        node_id: str,
        link: NodeLink,
        term: int,
        happened: Callable[[Event], None],
        reported: Callable[[NodeReported], Awaitable[bool]],
        settle: Callable[[Callable[[], None]], None],
        stale: Callable[[], None],
        stands: Callable[[AttemptId], bool],
        clock: Callable[[], float],
        settings: GridSettings,
        definitions: Definitions,
    ) -> None:
        self.node_id = node_id
        self.link = link
        self._term = term
        self._happened = happened
        self._reported = reported
        self._settle = settle
        self._stale = stale
        self._stands = stands
        self._clock = clock
        self._settings = settings
        self._definitions = definitions
        self._given: set[str] = set()  # digests of definitions that this life of the node has
        self._lacks: set[str] = set()  # those that it waits for
        self._behind = False  # whether the node is known to follow older settings, and not told yet
        self._orders: list[AttemptOrder] = []
        self._sending: list[AttemptOrder] = []
        self._stops: list[AttemptId] = []
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._incarnation = ""
        self._after = self._settled = 0
        self._unreachable_since: float | None = None
        self._lost = False

    def open(self) -> None:
        """Begin the conversation."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._poll(), name=f"poll {self.node_id}"),
            loop.create_task(self._send(), name=f"send {self.node_id}"),
        ]

    async def close(self) -> None:
        """End it. Hand-overs that have no answer by now get one: nobody knows whether they arrived."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        unanswered = tuple(order.attempt for order in (*self._sending, *self._orders))
        if unanswered:
            self._happened(HandOverEnded(self.node_id, unanswered, arrived=False))

    def configure(self, settings: GridSettings) -> None:
        """Have the node follow newer settings soon; its next reply says when it does."""
        self._settings = settings
        self._given.clear()  # their limits may be others now
        self._behind = True
        self._wake.set()

    def start(self, orders: tuple[AttemptOrder, ...]) -> None:
        """Hand attempts over soon."""
        self._orders.extend(orders)
        self._wake.set()

    def stop(self, attempts: tuple[AttemptId, ...]) -> None:
        """Have attempts killed soon."""
        self._stops.extend(attempts)
        self._wake.set()

    async def _poll(self) -> None:
        wait_s = 0.0
        while True:
            asked_at = self._clock()
            try:
                reply = await self.link.reports(self._term, self._after, self._settled, wait_s)
            except StaleTermError:
                self._stale()
                return
            except UnreachableError as error:
                logger.info("node %s cannot be reached: %s", self.node_id, error)
                self._unreachable()
                wait_s = 0.0  # once it is back it is to say so at once
                await asyncio.sleep(ASK_AGAIN_S)
                continue
            except RaygridError as error:
                # Silence is counted by the group's clock; here only keep asking.
                logger.info("node %s did not answer a poll: %s", self.node_id, error)
                await asyncio.sleep(PAUSE_S)
                continue
            except Exception:
                logger.exception("polling node %s failed unexpectedly", self.node_id)
                await asyncio.sleep(PAUSE_S)
                continue
            self._unreachable_since, self._lost = None, False
            wait_s = min(POLL_S, self._settings.placement.node_timeout_s / 4)
            if reply.state.incarnation != self._incarnation:
                self._incarnation = reply.state.incarnation
                self._given.clear()
                if self._after:
                    # A new life of the agent numbers its reports anew: ask again, from the beginning.
                    self._after = self._settled = 0
                    wait_s = 0.0
                    continue
            if reply.state.deployed_at < self._settings.deployed_at:
                self._behind = True
                self._wake.set()
            if reply.state.lacks:
                self._given.difference_update(reply.state.lacks)
                self._lacks.update(reply.state.lacks)
                self._wake.set()
            if not await self._reported(NodeReported(reply.state, reply.reports, asked_at)):
                wait_s = 0.0
                await asyncio.sleep(PAUSE_S)
                continue  # the same reports once more
            self._after = reply.last
            if reply.reports:
                self._settle(self._settler(reply.state.incarnation, reply.last))

    def _unreachable(self) -> None:
        """Give the node up unless it is back within a moment: no answer can come over what is broken.

        If it was the connection only, the node is taken back with its next answer, as after any silence.
        """
        now = self._clock()
        if self._unreachable_since is None:
            self._unreachable_since = now
        if now - self._unreachable_since >= UNREACHABLE_S and not self._lost:
            self._lost = True
            logger.warning("node %s is lost: it cannot be reached", self.node_id)
            self._happened(NodeLost(self.node_id))

    def _settler(self, incarnation: str, last: int) -> Callable[[], None]:
        def settle() -> None:
            if incarnation == self._incarnation:
                self._settled = max(self._settled, last)

        return settle

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            orders, self._orders = self._orders, []
            self._sending = orders
            stops, self._stops = self._stops, []
            try:
                if self._behind:
                    await self._tell_settings()
                # Orders go first: a stop may be for one of them.
                definitions = await self._needed(orders)
                await self._hand_over(orders, definitions)
                if stops:
                    await self.link.stop(self._term, stops)
            except StaleTermError:
                self._stale()
                return
            except RaygridError as error:
                logger.warning("node %s could not be told to stop %d attempts: %s", self.node_id, len(stops), error)
                await asyncio.sleep(PAUSE_S)
                self.stop(tuple(stops))
            except Exception:
                logger.exception("telling node %s failed unexpectedly", self.node_id)
                if self._sending:
                    self._hand_over_ended(arrived=False)  # they were not sent
                await asyncio.sleep(PAUSE_S)
                self.stop(tuple(stops))

    async def _tell_settings(self) -> None:
        self._behind = False
        try:
            await self.link.configure(self._term, self._settings)
        except StaleTermError:
            raise
        except RaygridError as error:
            # Its next reply shows that it is behind still.
            logger.warning("node %s could not be told of newer settings: %s", self.node_id, error)

    async def _needed(self, orders: list[AttemptOrder]) -> list[Definition]:
        """What these orders, or earlier ones, need and the node is not known to have; lost definitions among it."""
        wanted = {order.spec.definition for order in orders if order.spec.definition} - self._given | self._lacks
        if not wanted:
            return []
        self._lacks.clear()
        try:
            return await self._definitions.get(wanted)
        except RaygridError as error:
            # Its attempts wait for a while, and its next reply says again what it lacks.
            logger.warning("node %s is not sent what its jobs run: %s", self.node_id, error)
            return []

    async def _hand_over(self, orders: list[AttemptOrder], definitions: list[Definition]) -> None:
        # Orders wait here for calls before them, for settings and for definitions. The node may have been lost
        # meanwhile, so that its attempts were given up; what was not sent by then must never arrive.
        orders = [order for order in orders if self._stands(order.attempt)]
        self._sending = orders
        if not orders and not definitions:
            return
        incarnation = self._incarnation
        try:
            if definitions:
                await self.link.start(self._term, orders, definitions)
            else:
                await self.link.start(self._term, orders)
        except StaleTermError:
            raise
        except RaygridError as error:
            logger.warning("node %s may not have got %d attempts: %s", self.node_id, len(orders), error)
            self._hand_over_ended(arrived=False)
        except Exception:
            logger.exception("node %s may not have got %d attempts", self.node_id, len(orders))
            self._hand_over_ended(arrived=False)
        else:
            if incarnation == self._incarnation:
                self._given.update(each.digest for each in definitions if not each.is_lost)
            self._hand_over_ended(arrived=True)

    def _hand_over_ended(self, *, arrived: bool) -> None:
        attempts, self._sending = tuple(order.attempt for order in self._sending), []
        self._happened(HandOverEnded(self.node_id, attempts, arrived))
