"""Runs scenarios on a running grid, one after the other; before each, the grid must be complete again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from raygrid.client import AsyncClient, JobStatus, NodeStatus
from raygrid.drill.history import check
from raygrid.drill.injector import FaultTarget, GridSnapshot, Injector
from raygrid.drill.load import ClientLoad
from raygrid.drill.report import Report, count_jobs
from raygrid.drill.scenarios import InjectedFault, Skip, choose_target, entries_of, recovery_s, settled_s
from raygrid.errors import RaygridError, UnavailableError
from raygrid.models import JobState

LOOK_EVERY_S = 0.5
NOT_SEEN = "no job that needed the broken part was seen to end, so there is no recovery time"
BUSY_S = 10.0  # how long a fault waits until jobs run on its target
READ_AGAIN = 200
"""How many results are read a second time, in addition to those of all jobs that ran again."""


@dataclass(frozen=True, slots=True)
class DrillTimeouts:
    """Timeouts of a drill, seconds.

    Attributes:
        whole: until the grid is complete, before each scenario.
        flow: until jobs of the load end, before the fault.
        recover: until the grid has recovered, after the fault.
        drain: until all jobs have ended, after the last submit.
        after: how long the load continues after the recovery.
    """

    whole: float = 180.0
    flow: float = 60.0
    recover: float = 90.0
    drain: float = 120.0
    after: float = 1.5


class Drill:
    """Drills on one grid.

    Args:
        urls: its entries.
        api_key: the key, if the grid requires one.
        pricer: the pricer of the load, which must be harmless.
        injector: makes an injector for each scenario.
        jobs: the smallest number of jobs of a scenario.
        say: prints progress.
        patience: timeouts.
    """

    def __init__(
        self,
        urls: Sequence[str],
        api_key: str | None,
        pricer: str,
        injector: Callable[[], Injector],
        *,
        jobs: int = 100,
        say: Callable[[str], None] = lambda _: None,
        patience: DrillTimeouts | None = None,
    ) -> None:
        self._urls = urls
        self._key = api_key
        self._pricer = pricer
        self._make_injector = injector
        self._jobs = jobs
        self.say = say
        self.patience = patience or DrillTimeouts()
        self._expected: dict[str, str] = {}
        self._whole: tuple[frozenset[str], int, int] | None = None

    async def run(self, scenarios: Sequence[str], runs: int = 1) -> list[Report]:
        """Run scenarios. If this is interrupted, frozen processes are thawed and submitted jobs cancelled."""
        reports = []
        for scenario in scenarios:
            for _ in range(runs):
                report = await self._scenario(scenario)
                reports.append(report)
                if report.skipped:
                    self.say(f"{scenario}: skipped, {report.skipped}")
                    break
        return reports

    async def _scenario(self, scenario: str) -> Report:
        injector = self._make_injector()
        try:
            async with AsyncClient(self._urls[0], self._key) as client:
                picture = await self._until_whole(scenario, client, injector)
                nodes = await client.nodes()
                chosen = choose_target(scenario, picture, nodes)
                if isinstance(chosen, Skip):
                    return Report(scenario, skipped=chosen.why)
                slots = sum(node.slots for node in nodes)
                load = await self.prepare_load(slots)
                try:
                    return await self._under_load(scenario, client, injector, picture, load, slots)
                except BaseException:
                    with contextlib.suppress(RaygridError, TimeoutError):
                        async with asyncio.timeout(10.0):
                            await load.cancel()
                    raise
                finally:
                    await load.close()
        finally:
            # Shielded, so that processes are thawed even if this is cancelled.
            await asyncio.shield(self._release(injector))

    @staticmethod
    async def _release(injector: Injector) -> None:
        await injector.heal()
        await injector.close()

    async def prepare_load(self, slots: int, retry_s: float = 60.0) -> ClientLoad:
        """A load for `slots` slots, not yet started; the first call also runs the reference jobs.

        Raises:
            RaygridError: a reference job failed.
        """
        steady = min(200, max(4, 2 * slots))
        if not self._expected:
            load = ClientLoad(self._urls, self._key, self._pricer, steady=0, trickle_per_s=0)
            try:
                self._expected = await load.reference()
            except TimeoutError:
                raise UnavailableError(f"the reference jobs of pricer {self._pricer} took over a minute") from None
            finally:
                await load.close()
        return ClientLoad(self._urls, self._key, self._pricer, steady=steady, expected=self._expected, retry_s=retry_s)

    async def _until_whole(self, scenario: str, client: AsyncClient, injector: Injector) -> GridSnapshot:
        """Wait until the grid has all parts that it had before the first scenario.

        Raises:
            UnavailableError: not in time; the message names the missing parts.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + self.patience.whole
        while True:
            try:
                await client.require_ready()
                nodes = await client.nodes()
                picture = await injector.look()
                missing = self._missing(picture, nodes)
            except RaygridError as error:
                missing = str(error)
                picture = None
            if missing is None and picture is not None:
                return picture
            if clock() > until:
                raise UnavailableError(
                    f"{scenario}: the grid was not complete within {self.patience.whole:g} s: {missing}"
                )
            await asyncio.sleep(LOOK_EVERY_S)

    def _missing(self, picture: GridSnapshot, nodes: Sequence[NodeStatus]) -> str | None:
        if others := [f"{node.node} is {node.state}" for node in nodes if node.state != "ok"]:
            return "; ".join(others)
        names = frozenset(node.node for node in nodes)
        if lost := names - {place.name for place in picture.places if place.agent}:
            return f"no agent runs on {', '.join(sorted(lost))}"
        leaderless = {node.group for node in nodes} - {each.group for each in picture.candidates if each.leads}
        if leaderless and picture.candidates:
            return f"no leader of {', '.join(sorted(leaderless))}"
        return self._fewer(names, len(picture.candidates), len(picture.parents))

    def _fewer(self, names: frozenset[str], candidates_now: int, parents_now: int) -> str | None:
        """What is missing compared with the first call; None if nothing is."""
        if self._whole is None:
            if not names:
                return "the grid has no nodes"
            self._whole = names, candidates_now, parents_now
        all_names, candidates, parents = self._whole
        if lost := all_names - names:
            return f"{', '.join(sorted(lost))} is missing"
        if candidates_now < candidates:
            return f"{candidates_now} of {candidates} leader candidates run"
        return f"{parents_now} of {parents} parents run" if parents_now < parents else None

    async def _under_load(
        self,
        scenario: str,
        client: AsyncClient,
        injector: Injector,
        picture: GridSnapshot,
        load: ClientLoad,
        slots: int,
    ) -> Report:
        load.start()
        if not await load.until(lambda: load.ended >= 2 * slots, self.patience.flow):
            errors = "; ".join(what for _, _, what in load.history.errors[:1])
            raise UnavailableError(f"{scenario}: the load makes no progress: {load.ended} jobs ended. {errors}")
        chosen = choose_target(scenario, picture, await client.nodes())  # again, because jobs run now
        if isinstance(chosen, Skip):
            return Report(scenario, skipped=chosen.why)
        hit = await injector.aim(chosen)
        self.say(f"{scenario}: {hit}")
        injected = await self._inject(injector, chosen, picture, load)
        more = await self._after(scenario, injected, picture, load, slots)
        load.stop()
        until = asyncio.get_running_loop().time()
        await injector.heal()
        await load.drained(self.patience.drain)
        report = await self.judge(scenario, injected, load, until)
        if scenario == "parent" and len(picture.parents) == 1:
            report = replace(report, note="there is only one parent, so clients had to wait for its restart")
        return replace(report, hit=hit, more={**report.more, **more})

    async def _inject(
        self, injector: Injector, aim: FaultTarget, picture: GridSnapshot, load: ClientLoad
    ) -> InjectedFault:
        entries = entries_of(aim, picture, self._urls)
        before = await self._under_way(aim, load) if aim.what in ("agent", "node") else {}
        at = asyncio.get_running_loop().time()
        await injector.inject()
        return InjectedFault(at, aim, before, entries)

    async def _under_way(self, aim: FaultTarget, load: ClientLoad) -> dict[str, JobStatus]:
        """The unfinished jobs, as soon as some of them run on the target, so that the fault costs attempts."""
        clock = asyncio.get_running_loop().time
        until = clock() + BUSY_S
        while True:
            jobs = {**await load.statuses("queued"), **await load.statuses("running")}
            runs_there = any(job.state is JobState.RUNNING and job.node in aim.places for job in jobs.values())
            if runs_there or clock() >= until:
                return jobs

    async def _after(
        self, scenario: str, injected: InjectedFault, picture: GridSnapshot, load: ClientLoad, slots: int
    ) -> dict[str, float]:
        """Continue the load until all jobs from before the fault and further `2 * slots` jobs have ended."""
        more: dict[str, float] = {}
        loop = asyncio.get_running_loop()
        if scenario == "head":
            more["head_back_s"] = round(await _head_back(picture.head, injected.at, self.patience.recover), 3)
        under_way = [job for job in load.jobs.values() if job.ended_at is None and job.submitted_at < injected.at]
        thawed_at = injected.at + injected.aim.freeze_s
        enough = load.ended + 2 * slots

        def is_over() -> bool:
            return (
                loop.time() >= thawed_at
                and all(job.ended_at is not None for job in under_way)
                and load.ended >= enough
                and len(load.jobs) >= self._jobs
            )

        until = loop.time() + injected.aim.freeze_s + self.patience.recover
        await load.until(is_over, until - loop.time())
        if injected.aim.what in ("leader", "parent"):
            await self._until_seen(scenario, injected, load, until)
        await asyncio.sleep(self.patience.after)
        return more

    @staticmethod
    async def _until_seen(scenario: str, injected: InjectedFault, load: ClientLoad, until: float) -> None:
        """Continue until the recovery was seen: at first, the restarted part may get no jobs or requests."""
        clock = asyncio.get_running_loop().time
        while clock() < until:
            with contextlib.suppress(RaygridError):  # an entry that does not answer is asked again
                now = await load.statuses()
                if recovery_s(scenario, injected, load.jobs.values(), now, load.tries, until) is not None:
                    return
            await asyncio.sleep(LOOK_EVERY_S)

    async def judge(self, scenario: str, injected: InjectedFault, load: ClientLoad, until: float) -> Report:
        """Check what the load's clients saw; the last job was submitted at `until`, and all have had time to end."""
        final = await load.statuses()
        again = [job_id for job_id, status in final.items() if status.attempts > 1]
        ended = [job_id for job_id in load.history.acknowledged_jobs if load.history.result_at(job_id) is not None]
        rest = random.sample(ended, min(len(ended), READ_AGAIN))
        await load.read_again([job_id for job_id in dict.fromkeys(again + rest) if job_id in set(ended)])
        states = {job_id: status.state for job_id, status in final.items()}
        violations = check(load.history, states)
        recovery = recovery_s(scenario, injected, load.jobs.values(), final, load.tries, until)
        settled = {"settled_s": round(settled_s(injected, load.tries), 3)} if scenario in ("parent", "head") else {}
        return replace(
            count_jobs(scenario, load, final),
            recovery_s=None if recovery is None else round(recovery, 3),
            violations=tuple(map(str, violations)),
            note=NOT_SEEN if recovery is None else "",
            more=settled,
        )


async def _head_back(address: str, since: float, within_s: float) -> float:
    """Seconds until the head listens again; at most about `within_s`."""
    clock = asyncio.get_running_loop().time
    host, _, port = address.rpartition(":")
    while clock() - since < within_s:
        await asyncio.sleep(0.1)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.close()
            break
    return clock() - since
