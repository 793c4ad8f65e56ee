"""A leader's calls to one node: a long poll for reports, and one hand-over of attempts at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from raygrid.core.group.events import AttemptOrder, Event, HandOverEnded, NodeLost, NodeReported
from raygrid.errors import RaygridError, StaleTermError, UnreachableError
from raygrid.leader.definitions import DefinitionReader
from raygrid.models import AttemptId, Definition
from raygrid.settings.model import GridSettings
from raygrid.system.failure_log import log_failure
from raygrid.transport.ports import NodeCalls

logger = logging.getLogger(__name__)

POLL_S = 1.0  # longest wait of a poll at an idle node; well below the node timeout
PAUSE_S = 0.2
ASK_AGAIN_S = 0.1  # between polls of a node whose process is gone or whose connection broke
UNREACHABLE_S = 0.4  # after this long, such a node is lost


class NodeConversation:
    """Polls a node, and sends it orders and stops; those that arrive during a call are sent in the next one.

    Args:
        node_id: the node.
        link: how to reach it.
        term: the leader's term.
        on_event: takes all resulting events except replies.
        on_reply: takes a reply; returns whether it was processed. If not, the reply is fetched again.
        settle: `settle(action)` runs `action` once all decisions so far are committed.
        on_stale: called when the node follows a newer term.
        is_held: whether an attempt is still on record for this node; False once the attempt was given up.
        clock: seconds since the epoch, never decreasing.
        settings: the group's settings; they are sent to a node that has older ones.
        definitions: reads definitions; each is sent once per start of the node, with the first order that needs it.
    """

    def __init__(
        self,
        node_id: str,
        link: NodeCalls,
        term: int,
        on_event: Callable[[Event], None],
        on_reply: Callable[[NodeReported], Awaitable[bool]],
        settle: Callable[[Callable[[], None]], None],
        on_stale: Callable[[], None],
        is_held: Callable[[AttemptId], bool],
        clock: Callable[[], float],
        settings: GridSettings,
        definitions: DefinitionReader,
    ) -> None:
        self.node_id = node_id
        self.link = link
        self._term = term
        self._on_event = on_event
        self._on_reply = on_reply
        self._settle = settle
        self._on_stale = on_stale
        self._is_held = is_held
        self._clock = clock
        self._settings = settings
        self._definitions = definitions
        self._given: set[str] = set()  # digests of definitions that the node has since its start
        self._lacks: set[str] = set()  # digests of definitions that the node waits for
        self._behind = False  # whether the node has older settings, and the newer ones were not sent yet
        self._orders: list[AttemptOrder] = []
        self._sending: list[AttemptOrder] = []
        self._stops: list[AttemptId] = []
        self._recalls: list[AttemptId] = []
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._incarnation = ""
        self._after = self._settled = 0
        self._unreachable_since: float | None = None
        self._lost = False

    def open(self) -> None:
        """Start polling and sending."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._poll(), name=f"poll {self.node_id}"),
            loop.create_task(self._send(), name=f"send {self.node_id}"),
        ]

    async def close(self) -> None:
        """Stop; attempts whose hand-over has no answer yet are reported as not arrived."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        unanswered = tuple(order.attempt for order in (*self._sending, *self._orders))
        if unanswered:
            self._on_event(HandOverEnded(self.node_id, unanswered, arrived=False))

    def configure(self, settings: GridSettings) -> None:
        """Send newer settings to the node soon; a later reply shows that the node has them."""
        self._settings = settings
        self._given.clear()  # the limits of definitions may have changed
        self._behind = True
        self._wake.set()

    def start(self, orders: tuple[AttemptOrder, ...]) -> None:
        """Hand attempts over soon."""
        self._orders.extend(orders)
        self._wake.set()

    def stop(self, attempts: Sequence[AttemptId], recalled: Sequence[AttemptId] = ()) -> None:
        """Kill attempts soon, and take back those of `recalled` that have not begun."""
        self._stops.extend(attempts)
        self._recalls.extend(recalled)
        self._wake.set()

    async def _poll(self) -> None:
        wait_s = 0.0
        while True:
            asked_at = self._clock()
            try:
                reply = await self.link.reports(self._term, self._after, self._settled, wait_s)
            except StaleTermError:
                self._on_stale()
                return
            except UnreachableError as error:
                logger.info("node %s cannot be reached; asking again: %s", self.node_id, error)
                self._unreachable()
                wait_s = 0.0  # the first poll that reaches the node again must be answered at once
                await asyncio.sleep(ASK_AGAIN_S)
                continue
            except RaygridError as error:
                # `GroupState` measures how long the node is silent.
                logger.info("node %s did not answer a poll; asking again: %s", self.node_id, error)
                await asyncio.sleep(PAUSE_S)
                continue
            except Exception:
                logger.exception("polling node %s failed unexpectedly; asking again", self.node_id)
                await asyncio.sleep(PAUSE_S)
                continue
            self._unreachable_since, self._lost = None, False
            wait_s = min(POLL_S, self._settings.placement.node_timeout_s / 4)
            if reply.state.incarnation != self._incarnation:
                self._incarnation = reply.state.incarnation
                self._given.clear()
                if self._after:
                    # A restarted agent numbers its reports anew: poll again, from the beginning.
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
            if not await self._on_reply(NodeReported(reply.state, reply.reports, asked_at)):
                wait_s = 0.0
                await asyncio.sleep(PAUSE_S)
                continue  # fetch the same reports again
            self._after = reply.last
            if reply.reports:
                self._settle(self._settler(reply.state.incarnation, reply.last))

    def _unreachable(self) -> None:
        """Report the node as lost unless it answers again within `UNREACHABLE_S`.

        If only the connection broke, the node rejoins with its next answer.
        """
        now = self._clock()
        if self._unreachable_since is None:
            self._unreachable_since = now
        if now - self._unreachable_since >= UNREACHABLE_S and not self._lost:
            self._lost = True
            logger.warning("node %s is lost: it cannot be reached; its jobs run elsewhere", self.node_id)
            self._on_event(NodeLost(self.node_id))

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
            recalls, self._recalls = self._recalls, []
            try:
                if self._behind:
                    await self._send_settings()
                # Orders go first, because a stop may be for one of them.
                definitions = await self._needed(orders)
                await self._hand_over(orders, definitions)
                if stops or recalls:
                    await self.link.stop(self._term, stops, recalls)
            except StaleTermError:
                self._on_stale()
                return
            except RaygridError as error:
                logger.warning(
                    "node %s did not get the order to stop %d attempts; sending it again: %s",
                    self.node_id,
                    len(stops) + len(recalls),
                    error,
                )
                await asyncio.sleep(PAUSE_S)
                self.stop(stops, recalls)
            except Exception:
                logger.exception("a call to node %s failed unexpectedly; trying again", self.node_id)
                if self._sending:
                    self._hand_over_ended(arrived=False)  # the orders were not sent
                await asyncio.sleep(PAUSE_S)
                self.stop(stops, recalls)

    async def _send_settings(self) -> None:
        self._behind = False
        try:
            await self.link.configure(self._term, self._settings.for_nodes)
        except StaleTermError:
            raise
        except RaygridError as error:
            # The node's next reply shows its older settings, which are then replaced.
            logger.warning("node %s did not get the newer settings; sending them again: %s", self.node_id, error)

    async def _needed(self, orders: list[AttemptOrder]) -> list[Definition]:
        """The definitions that the orders or the node need and the node may lack, including lost ones."""
        wanted = {order.spec.definition for order in orders if order.spec.definition} - self._given | self._lacks
        if not wanted:
            return []
        self._lacks.clear()
        try:
            return await self._definitions.get(wanted)
        except RaygridError as error:
            # The node's attempts wait for a while, and its next reply lists the missing definitions again.
            logger.warning(
                "node %s waits for definitions that cannot be read now; sending them later: %s", self.node_id, error
            )
            return []

    async def _hand_over(self, orders: list[AttemptOrder], definitions: list[Definition]) -> None:
        # Orders wait for earlier calls, settings and definitions. If the node was lost meanwhile, its attempts were
        # given up, and their orders must not be sent any more.
        orders = [order for order in orders if self._is_held(order.attempt)]
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
        except Exception as error:
            message = "node %s may not have received %d attempts; its next reply shows it"
            log_failure(logger, error, message, self.node_id, len(orders))
            self._hand_over_ended(arrived=False)
        else:
            if incarnation == self._incarnation:
                self._given.update(each.digest for each in definitions if not each.is_lost)
            self._hand_over_ended(arrived=True)

    def _hand_over_ended(self, *, arrived: bool) -> None:
        attempts, self._sending = tuple(order.attempt for order in self._sending), []
        self._on_event(HandOverEnded(self.node_id, attempts, arrived))
