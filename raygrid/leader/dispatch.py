"""A leader: passes events to `GroupState`, which makes the decisions, and carries out its commands.

It takes jobs from the parents' calls and from scans of the store, polls every node of the group, writes through the
outbox, and publishes committed changes to the parents.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from uuid import uuid4

from raygrid.core.blob_marker import UNDECIDED
from raygrid.core.group.events import (
    CancelRequested,
    Event,
    JobsArrived,
    JobsMoved,
    NodeDraining,
    NodeHeard,
    NodeLost,
    NodeReported,
    PolicyChanged,
    StartAttempts,
    StopAttempts,
    Tick,
    WriteUpdates,
)
from raygrid.core.lease import Lease
from raygrid.errors import GroupRefusedError
from raygrid.leader.change_feed import ChangeFeed
from raygrid.leader.definitions import DefinitionReader
from raygrid.leader.drains import DrainReader
from raygrid.leader.lookup import AT_ONCE, Lookup
from raygrid.leader.node_conversation import NodeConversation
from raygrid.leader.node_conversations import NodeConversations
from raygrid.leader.outbox import Outbox
from raygrid.leader.policy import fresh_state, group_policy, group_site
from raygrid.models import DoneJob, JobState, JobUpdate, QueuedJob
from raygrid.settings.model import GridSettings
from raygrid.store import BLOBS, JobStore
from raygrid.system.failure_log import log_failure
from raygrid.transport.ports import JobChange, LeaderReply, NodeCalls, NodeDiscovery

logger = logging.getLogger(__name__)

TICK_S = 0.1
SCAN_S = 1.0
READ_S = 10.0  # pending writes make the count of queued jobs inexact, so the jobs are read this often in any case
PARENTS_SILENT_S = 5.0  # parents poll at least every second
FEW = 16  # up to this many results are published in full; parents read larger sets from the store in one query
SPARE_ROWS = 2_000  # a scan also returns jobs that were started but are not yet recorded as running


def steady_clock() -> Callable[[], float]:
    """Make a clock of seconds since the epoch that never decreases, even if the machine's clock is set back."""
    loop = asyncio.get_running_loop()
    base = time.time() - loop.time()
    return lambda: base + loop.time()


class Leader:
    """Leads one group for one term.

    Args:
        lease: the right to lead, with the term.
        settings: the grid's settings; `configure` replaces them.
        store: the job store.
        discovery: finds the group's nodes.
        on_stale: called when a node or the store shows a newer term; the owner then closes this leader.
        clock: seconds since the epoch, never decreasing; by default this machine's.
    """

    def __init__(
        self,
        lease: Lease,
        settings: GridSettings,
        store: JobStore,
        discovery: NodeDiscovery,
        on_stale: Callable[[], None],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._lease = lease
        self._settings = settings
        self._state = fresh_state(settings, lease.group_id)
        self._store = store
        self._definitions = DefinitionReader(store, settings.pricers)
        self._on_stale = on_stale
        self._epoch = f"{lease.term}-{uuid4().hex[:8]}"
        self._clock = clock or steady_clock()
        self._changes = ChangeFeed()
        self._lookup = Lookup(store, lease.group_id, self._is_unknown)
        self._outbox = Outbox(store, lease, self._committed, on_stale)
        self._nodes = NodeConversations(lease.group_id, discovery, self._converse, self._handle)
        self._drains = DrainReader(store, self._handle)
        self._tasks: list[asyncio.Task[None]] = []
        self._rescan = asyncio.Event()
        self._closed = False
        self._returned: set[str] = set()  # jobs that arrived here after their end here; the store may differ
        self._beyond = 0  # queued jobs that are in the store only
        self._read_at = -READ_S
        self._asked_at = -PARENTS_SILENT_S  # time of the last poll by a parent
        self._drains_read_at = -SCAN_S
        self._room = (0, 0)  # slots and nodes, as last published

    # --- life cycle ---------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Load the group's jobs from the store, then start the loops."""
        self._state.blobs = UNDECIDED
        await self._drains.read()  # before any node answers, so that a draining node gets no job
        self._drains_read_at = self._clock()
        self._handle(JobsArrived(tuple(await self._store.running(self._lease.group_id))))
        await self._scan()
        loops = (self._outbox.run(), self._tick(), self._scan_forever(), self._nodes.run())
        self._tasks = [asyncio.get_running_loop().create_task(loop) for loop in loops]

    async def close(self) -> None:
        """Stop at once; the next leader continues from the store."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._nodes.close()

    async def settle(self, within_s: float) -> None:
        """Wait until all decisions so far are written, at most `within_s`."""
        written = asyncio.Event()
        self._outbox.afterwards(written.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await written.wait()

    # --- what parents call ---------------------------------------------------------------------------------------

    def enqueue(self, jobs: Sequence[QueuedJob]) -> None:
        """Take jobs that a parent has stored or moved here; those beyond the window stay in the store.

        Raises:
            GroupRefusedError: no node takes jobs now; the jobs stay here until they are moved.
        """
        self._arrived(jobs)
        if self._nodes.were_found and not self._state.takes_jobs(self._clock()):
            raise GroupRefusedError(f"group {self._lease.group_id} has no node that takes jobs now")

    async def forget(self, job_ids: Sequence[str]) -> None:
        """Drop the given jobs that no longer belong to this group according to the store."""
        own = {job.spec.job_id for job in await self._store.unfinished_of(self._lease.group_id, job_ids)}
        self._handle(JobsMoved(tuple(job_id for job_id in job_ids if job_id not in own)))

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Cancel jobs whose cancellation the store has recorded."""
        self._handle(CancelRequested(tuple(job_ids)))

    async def changes(self, epoch: str, after: int, wait_s: float) -> LeaderReply:
        """Wait for committed changes; see `LeaderCalls.changes`."""
        self._asked_at = self._clock()
        if epoch == self._epoch:
            await self._changes.wait(after, wait_s)
            changes, gap = self._changes.after(after)
        else:
            changes, gap = (), True
        capacity = self._state.capacity(self._clock(), queued=self._state.queued + self._beyond)
        deployed_at, lease = self._settings.deployed_at, self._lease
        return LeaderReply(
            self._epoch, self._changes.last, changes, gap, capacity, deployed_at, lease.term, lease.holder
        )

    def configure(self, settings: GridSettings) -> None:
        """Use newer settings for all further decisions, and send them to the nodes; see `LeaderCalls.configure`.

        Running attempts and the term stay as they are.
        """
        if settings.deployed_at <= self._settings.deployed_at:
            return
        self._settings = settings
        logger.warning("group %s: the leader uses newer settings", self._lease.group_id)
        group_id = self._lease.group_id
        self._handle(PolicyChanged(group_policy(settings, group_id), group_site(settings, group_id)))
        self._definitions.follow(settings.pricers)
        self._nodes.configure(settings)

    # --- events in, commands out --------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if self._closed:
            return  # a late call, or the last event of a closed conversation
        try:
            self._decide(event)
        except Exception:
            # The state in memory may be inconsistent. The next leader starts from the store, which is not.
            logger.exception("group %s: cannot handle %s; the leader steps down", self._lease.group_id, event)
            self._on_stale()

    def _decide(self, event: Event) -> None:
        for command in self._state.handle(event, self._clock()):
            match command:
                case WriteUpdates(updates):
                    self._outbox.put(updates)
                case StartAttempts():
                    self._nodes.start(command)
                case StopAttempts():
                    self._nodes.stop(command)
        if self._beyond and self._state.wants_more:
            self._rescan.set()
        if isinstance(event, NodeReported | NodeLost | NodeDraining):
            self._publish_room()

    def _publish_room(self) -> None:
        """Answer the parents' polls at once if the number of slots or nodes has changed."""
        capacity = self._state.capacity(self._clock())
        room = capacity.slots, len(capacity.nodes)
        if room != self._room:
            self._room = room
            self._changes.wake()

    def _committed(self, updates: Sequence[JobUpdate], surely: bool) -> None:
        whole = surely and len(updates) <= FEW
        self._changes.publish(
            JobChange(update.job_id, update.state, self._done(update) if whole else None) for update in updates
        )

    def _done(self, update: JobUpdate) -> DoneJob | None:
        """The data with which a parent can return a job's result without reading the store; None if there is none."""
        report = update.report
        if update.state is not JobState.DONE or report is None or report.result is None or update.reason:
            return None
        return DoneJob(update.job_id, self._lease.group_id, update.node_id, report.result, report.exit_code)

    async def _node_reported(self, reply: NodeReported) -> bool:
        """Process a node's reply; False if that needs the store, which is unavailable."""
        complete = await self._lookup.complete(reply)
        if reply.state.node_id not in self._nodes:
            return False  # the node left the grid meanwhile, and its attempts were given up
        self._handle(NodeHeard(reply.state.node_id) if complete is None else complete)
        return complete is not None

    def _is_unknown(self, job_id: str) -> bool:
        return self._state.is_unknown(job_id) and job_id not in self._outbox

    def _arrived(self, jobs: Iterable[QueuedJob], *, scanned: bool = False) -> None:
        # A job with a pending write is known; the store's row is out of date.
        fresh = tuple(job for job in jobs if job.spec.job_id not in self._outbox)
        self._returned.update(job.spec.job_id for job in fresh if self._state.has_ended(job.spec.job_id))
        self._handle(JobsArrived(fresh, scanned))
        if any(job.spec.job_id not in self._state and job.spec.job_id not in self._outbox for job in fresh):
            self._beyond = max(self._beyond, 1)

    # --- loops --------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._handle(Tick(confirmed=self._clock() - self._asked_at < PARENTS_SILENT_S))

    async def _scan_forever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SCAN_S):
                    await self._rescan.wait()
            self._rescan.clear()
            try:
                if self._clock() - self._drains_read_at >= SCAN_S:
                    await self._drains.read()
                    self._drains_read_at = self._clock()
                await self._scan()
            except Exception as error:
                log_failure(logger, error, "group %s: cannot scan the job store; trying again", self._lease.group_id)
                await asyncio.sleep(SCAN_S)

    async def _scan(self) -> None:
        """Take up queued jobs of the store that no parent has sent."""
        if self._state.blobs == UNDECIDED:
            self._state.blobs = await self._store.agreed(BLOBS) or UNDECIDED
        await self._take_back()
        if not self._state.wants_more:
            return
        total = await self._store.count_queued(self._lease.group_id)
        accounted = total <= self._state.queued + self._state.handed_over + len(self._outbox)
        if accounted and self._clock() - self._read_at < READ_S:
            # Most likely all queued jobs of the store are known here; counting is far cheaper than reading.
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
                await self.forget(gone)  # most likely moved to another group by a parent whose call was lost
        if len(found) == limit:
            self._beyond = max(0, total - self._state.queued)

    async def _take_back(self) -> None:
        """Take up jobs again that ended here but are still queued according to the store.

        Such a job belonged to another group when its end should have been written, so the store ignored the write; the
        job has been moved back since. Most candidates were only read from the store before their end was written.
        """
        while asked := [job_id for job_id in self._returned if self._has_ended(job_id)][:AT_ONCE]:
            found = await self._store.unfinished_of(self._lease.group_id, asked)
            self._returned.difference_update(asked)
            if back := tuple(job for job in found if self._has_ended(job.spec.job_id)):
                self._handle(JobsMoved(tuple(job.spec.job_id for job in back)))
                self._handle(JobsArrived(back))
        self._returned.clear()

    def _has_ended(self, job_id: str) -> bool:
        """Whether a job ended here and has no pending write."""
        return self._state.has_ended(job_id) and job_id not in self._outbox

    def _converse(self, node_id: str, link: NodeCalls) -> NodeConversation:
        return NodeConversation(
            node_id,
            link,
            self._lease.term,
            self._handle,
            self._node_reported,
            self._outbox.afterwards,
            self._on_stale,
            partial(self._state.is_held, node_id),
            self._clock,
            self._settings,
            self._definitions,
        )
