"""The leader at work: brings events to `GroupState` and carries its commands out.

Decides nothing itself. It takes jobs from the parents' pokes and from scans of the store, keeps a conversation with
every node of the group, writes through the outbox, and tells the parents what was committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from uuid import uuid4

from raygrid.config import GridSettings
from raygrid.core.blob_marker import UNDECIDED
from raygrid.core.events import (
    CancelRequested,
    Event,
    JobsArrived,
    JobsMoved,
    NodeDraining,
    NodeHeard,
    NodeLost,
    NodeReported,
    NodesExpected,
    PolicyChanged,
    StartAttempts,
    StopAttempts,
    Tick,
    WriteUpdates,
)
from raygrid.core.lease import Lease
from raygrid.errors import GroupRefusedError, RaygridError, UnavailableError
from raygrid.leader.definitions import Definitions
from raygrid.leader.lookup import AT_ONCE, Lookup
from raygrid.leader.news import News
from raygrid.leader.node_link import NodeConversation
from raygrid.leader.outbox import Outbox
from raygrid.leader.policy import fresh_state, group_policy, group_site
from raygrid.models import DoneJob, Drain, JobSpec, JobState, JobUpdate, QueuedJob
from raygrid.ports import JobChange, LeaderReply, NodeDirectory
from raygrid.store import BLOBS, JobStore

logger = logging.getLogger(__name__)

TICK_S = 0.1
SCAN_S = 1.0
READ_S = 10.0  # changes under way blur the count of queued jobs, so they are read this often in any case
DISCOVER_S = 1.0
PARENTS_SILENT_S = 5.0  # parents ask at least every second
FEW = 16  # so many ends are told whole; those who wait for a crowd share one question to the store
SPARE_ROWS = 2_000  # a scan also meets jobs that were started but are not yet recorded as running


def steady_clock() -> Callable[[], float]:
    """Seconds since the epoch that never fall, whatever happens to the machine's clock."""
    loop = asyncio.get_running_loop()
    base = time.time() - loop.time()
    return lambda: base + loop.time()


class Leader:
    """Leads one group for one term.

    Args:
        lease: the right to lead, with the term.
        settings: the grid's settings; newer ones may come later.
        store: the job store.
        directory: the group's nodes.
        on_stale: called when somebody shows a newer term; the owner then closes this leader.
        clock: seconds since the epoch, never falling; this machine's where none is given.
    """

    def __init__(
        self,
        lease: Lease,
        settings: GridSettings,
        store: JobStore,
        directory: NodeDirectory,
        on_stale: Callable[[], None],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._lease = lease
        self._settings = settings
        self._state = fresh_state(settings, lease.group_id)
        self._store = store
        self._directory = directory
        self._definitions = Definitions(store, settings.pricers)
        self._on_stale = on_stale
        self._epoch = f"{lease.term}-{uuid4().hex[:8]}"
        self._clock = clock or steady_clock()
        self._news = News()
        self._lookup = Lookup(store, lease.group_id, self._is_unknown)
        self._outbox = Outbox(store, lease, self._committed, on_stale)
        self._nodes: dict[str, NodeConversation] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._rescan = asyncio.Event()
        self._introduced = self._closed = False
        self._returned: set[str] = set()  # jobs that came here and have ended here, if the store took it
        self._beyond = 0  # queued jobs that are in the store only
        self._read_at = -READ_S
        self._asked_at = -PARENTS_SILENT_S  # when a parent was last here
        self._drains: dict[str, Drain] = {}
        self._drains_read_at = -SCAN_S
        self._room = (0, 0)  # slots and nodes, as they were last told of

    # --- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take up what the store knows of the group, then begin."""
        self._state.blobs = UNDECIDED
        await self._read_drains()  # before any node speaks: none that is being drained gets a job
        self._happened(JobsArrived(tuple(await self._store.running(self._lease.group_id))))
        await self._scan()
        loops = (self._outbox.run(), self._tick(), self._scan_forever(), self._discover_forever())
        self._tasks = [asyncio.get_running_loop().create_task(loop) for loop in loops]

    async def close(self) -> None:
        """Stop at once; the store and the next leader have everything that matters."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(node.close() for node in self._nodes.values()))
        self._nodes.clear()

    async def settle(self, within_s: float) -> None:
        """Wait until everything decided so far is written, or the time is over."""
        written = asyncio.Event()
        self._outbox.afterwards(written.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await written.wait()

    # --- what parents ask ---------------------------------------------------------------------------------------

    def enqueue(self, jobs: Sequence[JobSpec | QueuedJob]) -> None:
        """Take jobs that a parent has just stored or moved here; those beyond the window stay in the store.

        Raises:
            GroupRefusedError: no node takes jobs now; they are kept until somebody moves them.
        """
        self._arrived(job if isinstance(job, QueuedJob) else QueuedJob(job) for job in jobs)
        if self._introduced and not self._state.takes_jobs(self._clock()):
            raise GroupRefusedError(f"group {self._lease.group_id} has no node that takes jobs now")

    async def forget(self, job_ids: Sequence[str]) -> None:
        """Let go of those of these jobs that are not this group's any more; the store knows."""
        own = {job.spec.job_id for job in await self._store.unfinished_of(self._lease.group_id, job_ids)}
        self._happened(JobsMoved(tuple(job_id for job_id in job_ids if job_id not in own)))

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Cancel jobs whose cancelling the store knows."""
        self._happened(CancelRequested(tuple(job_ids)))

    async def changes(self, epoch: str, after: int, wait_s: float) -> LeaderReply:
        """Wait for committed changes; see `LeaderLink.changes`."""
        self._asked_at = self._clock()
        if epoch == self._epoch:
            await self._news.wait(after, wait_s)
            changes, gap = self._news.after(after)
        else:
            changes, gap = (), True
        capacity = self._state.capacity(self._clock(), queued=self._state.queued + self._beyond)
        deployed_at, lease = self._settings.deployed_at, self._lease
        return LeaderReply(self._epoch, self._news.last, changes, gap, capacity, deployed_at, lease.term, lease.holder)

    def configure(self, settings: GridSettings) -> None:
        """Lead by newer settings from now on, and tell the nodes; see `LeaderLink.configure`.

        Nothing that runs is touched, and the term stays: only what is decided from now on is decided anew.
        """
        if settings.deployed_at <= self._settings.deployed_at:
            return
        self._settings = settings
        logger.warning("group %s: follows newer settings", self._lease.group_id)
        group_id = self._lease.group_id
        self._happened(PolicyChanged(group_policy(settings, group_id), group_site(settings, group_id)))
        self._definitions.follow(settings.pricers)
        for node in self._nodes.values():
            node.configure(settings)

    # --- events in, commands out --------------------------------------------------------------------------------

    def _happened(self, event: Event) -> None:
        if self._closed:
            return  # a late poke, or the last word of a conversation
        try:
            self._decide(event)
        except Exception:
            # What is in memory may be half changed. The store is not: the next leader begins with that.
            logger.exception("group %s: %s broke the leader, which steps down", self._lease.group_id, event)
            self._on_stale()

    def _decide(self, event: Event) -> None:
        for command in self._state.handle(event, self._clock()):
            match command:
                case WriteUpdates(updates):
                    self._outbox.put(updates)
                case StartAttempts(node_id, orders):
                    self._nodes[node_id].start(orders)  # only nodes that have spoken get orders
                case StopAttempts(node_id, attempts):
                    if node_id in self._nodes:
                        self._nodes[node_id].stop(attempts)
        if self._beyond and self._state.wants_more:
            self._rescan.set()
        if isinstance(event, NodeReported | NodeLost | NodeDraining):
            self._tell_of_nodes()

    def _tell_of_nodes(self) -> None:
        """Have parents hear at once that there is more or less room, as when a new leader hears of its first nodes."""
        capacity = self._state.capacity(self._clock())
        room = capacity.slots, len(capacity.nodes)
        if room != self._room:
            self._room = room
            self._news.wake()

    def _committed(self, updates: Sequence[JobUpdate], surely: bool) -> None:
        whole = surely and len(updates) <= FEW
        self._news.publish(
            JobChange(update.job_id, update.state, self._done(update) if whole else None) for update in updates
        )

    def _done(self, update: JobUpdate) -> DoneJob | None:
        """What whoever waits for a job needs to know of its success, so that nobody has to ask the store."""
        report = update.report
        if update.state is not JobState.DONE or report is None or report.result is None or update.reason:
            return None
        return DoneJob(update.job_id, self._lease.group_id, update.node_id, report.result, report.exit_code)

    async def _node_reported(self, reply: NodeReported) -> bool:
        """Take a node's reply in; False where it says something that only the store can judge, which is away."""
        complete = await self._lookup.complete(reply)
        if reply.state.node_id not in self._nodes:
            return False  # it left the grid meanwhile, and its attempts were given up
        self._happened(NodeHeard(reply.state.node_id) if complete is None else complete)
        return complete is not None

    def _is_unknown(self, job_id: str) -> bool:
        return self._state.is_unknown(job_id) and job_id not in self._outbox

    def _arrived(self, jobs: Iterable[QueuedJob], *, scanned: bool = False) -> None:
        # A job with a change under way is no news, however the store still has it.
        fresh = tuple(job for job in jobs if job.spec.job_id not in self._outbox)
        self._returned.update(job.spec.job_id for job in fresh if self._state.has_ended(job.spec.job_id))
        self._happened(JobsArrived(fresh, scanned))
        if any(job.spec.job_id not in self._state and job.spec.job_id not in self._outbox for job in fresh):
            self._beyond = max(self._beyond, 1)

    # --- loops --------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._happened(Tick(confirmed=self._clock() - self._asked_at < PARENTS_SILENT_S))

    async def _scan_forever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SCAN_S):
                    await self._rescan.wait()
            self._rescan.clear()
            try:
                if self._clock() - self._drains_read_at >= SCAN_S:
                    await self._read_drains()
                await self._scan()
            except UnavailableError as error:
                logger.warning("group %s: cannot scan the job store: %s", self._lease.group_id, error)
                await asyncio.sleep(SCAN_S)
            except Exception:
                logger.exception("group %s: cannot scan the job store; trying again", self._lease.group_id)
                await asyncio.sleep(SCAN_S)

    async def _scan(self) -> None:
        """Take up queued jobs of the store that no poke has brought."""
        if self._state.blobs == UNDECIDED:
            self._state.blobs = await self._store.agreed(BLOBS) or UNDECIDED
        await self._take_back()
        if not self._state.wants_more:
            return
        total = await self._store.count_queued(self._lease.group_id)
        accounted = total <= self._state.queued + self._state.handed_over + len(self._outbox)
        if accounted and self._clock() - self._read_at < READ_S:
            # Most likely all that the store holds as queued is known here; counting is far cheaper than reading.
            self._beyond = 0
            return
        self._read_at = self._clock()
        limit = self._state.policy.window + SPARE_ROWS
        before = [job_id for job_id in self._state.waiting if job_id not in self._outbox]
        found = await self._store.queued(self._lease.group_id, limit)
        self._beyond = 0
        self._arrived(found, scanned=True)
        if len(found) < limit:
            listed, waiting = {job.spec.job_id for job in found}, set(self._state.waiting)
            if gone := [each for each in before if each not in listed and each in waiting]:
                await self.forget(gone)  # most likely moved to another group, of which nobody could tell
        if len(found) == limit:
            self._beyond = max(0, total - self._state.queued)

    async def _take_back(self) -> None:
        """Take up jobs that are queued though they ended here, if the store confirms it.

        Such a job was another group's when its end was written, so that nothing was, and has been moved back since.
        Most are merely old news: read from the store before their end was.
        """
        while asked := [job_id for job_id in self._returned if self._has_ended(job_id)][:AT_ONCE]:
            found = await self._store.unfinished_of(self._lease.group_id, asked)
            self._returned.difference_update(asked)
            if back := tuple(job for job in found if self._has_ended(job.spec.job_id)):
                self._happened(JobsMoved(tuple(job.spec.job_id for job in back)))
                self._happened(JobsArrived(back))
        self._returned.clear()

    def _has_ended(self, job_id: str) -> bool:
        """Whether a job ended here, and there is nothing of it that the store has not been told."""
        return self._state.has_ended(job_id) and job_id not in self._outbox

    async def _read_drains(self) -> None:
        """Tell the group which drains are new, changed or over.

        A deadline is an instant of the store's clock and is held against this leader's: where the two differ, what
        still runs is moved that much early or late.
        """
        found = await self._store.drains()
        self._drains_read_at = self._clock()
        for node_id in self._drains.keys() - found.keys():
            self._happened(NodeDraining(node_id, False))
        for node_id, drain in found.items():
            if drain != self._drains.get(node_id):
                deadline = drain.deadline_at.timestamp() if drain.deadline_at else None
                self._happened(NodeDraining(node_id, True, deadline))
        self._drains = found

    async def _discover_forever(self) -> None:
        while True:
            try:
                await self._discover()
            except RaygridError as error:
                logger.warning("group %s: cannot look for nodes: %s", self._lease.group_id, error)
            except Exception:
                logger.exception("group %s: looking for nodes failed unexpectedly", self._lease.group_id)
            await asyncio.sleep(DISCOVER_S)

    async def _discover(self) -> None:
        found = await self._directory.nodes()
        if not self._introduced:
            self._introduced = True
            self._happened(NodesExpected(tuple(found)))
        for node_id in self._nodes.keys() - found.keys():
            gone = self._nodes.pop(node_id)
            self._happened(NodeLost(node_id))
            await gone.close()
        for node_id, link in found.items():
            known = self._nodes.get(node_id)
            if known is not None and known.link is link:
                continue
            conversation = NodeConversation(
                node_id,
                link,
                self._lease.term,
                self._happened,
                self._node_reported,
                self._outbox.afterwards,
                self._on_stale,
                partial(self._state.is_held, node_id),
                self._clock,
                self._settings,
                self._definitions,
            )
            self._nodes[node_id] = conversation
            conversation.open()
            if known is not None:
                await known.close()
