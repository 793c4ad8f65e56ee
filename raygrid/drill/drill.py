"""Runs scenarios on a running grid, one after the other, each when the grid is whole again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from raygrid.client import AsyncClient, JobStatus, NodeStatus
from raygrid.drill.history import Wrong, check
from raygrid.drill.injector import FaultTarget, GridSnapshot, Injector
from raygrid.drill.load import ClientLoad
from raygrid.drill.report import Report
from raygrid.drill.scenarios import InjectedFault, Skip, choose, entries_of, recovery_s, settled_s
from raygrid.errors import RaygridError, UnavailableError
from raygrid.models import JobState

LOOK_EVERY_S = 0.5
NOT_SEEN = "nothing that needed the broken part was seen to finish, so there is no recovery time"
BUSY_S = 10.0  # so long a fault waits for something to run on what it hits
READ_AGAIN = 200
"""So many results are read a second time; those of jobs that ran again always are."""


@dataclass(frozen=True, slots=True)
class DrillTimeouts:
    """How long a drill waits for what, in seconds.

    Attributes:
        whole: for the grid to be whole, before each scenario.
        flow: for the load to flow, before the fault.
        recover: for work to flow again, after the fault.
        drain: for everything to end, when nothing more is submitted.
        after: the load goes on for so long when everything is well again.
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
        api_key: the key, where it wants one.
        pricer: what the load runs.
        injector: makes what breaks things, anew for every scenario.
        jobs: the fewest jobs of a scenario.
        say: prints progress.
        patience: how long to wait for what.
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
        """Run scenarios; what is frozen is thawed and what was submitted is cancelled however this ends."""
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
                chosen = choose(scenario, picture, nodes)
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
            # Also when this is cancelled: nothing stays frozen for longer than it must.
            await asyncio.shield(self._let_go(injector))

    @staticmethod
    async def _let_go(injector: Injector) -> None:
        await injector.heal()
        await injector.close()

    async def prepare_load(self, slots: int, retry_s: float = 60.0) -> ClientLoad:
        """A load for so many slots, not yet started; the first time, reference results are made.

        Raises:
            RaygridError: the pricer does not answer well.
        """
        steady = min(200, max(4, 2 * slots))
        if not self._expected:
            load = ClientLoad(self._urls, self._key, self._pricer, steady=0, trickle_per_s=0)
            try:
                self._expected = await load.reference()
            except TimeoutError:
                raise UnavailableError(f"pricer {self._pricer} did not answer within a minute") from None
            finally:
                await load.close()
        return ClientLoad(self._urls, self._key, self._pricer, steady=steady, expected=self._expected, retry_s=retry_s)

    async def _until_whole(self, scenario: str, client: AsyncClient, injector: Injector) -> GridSnapshot:
        """Wait until everything is there that was there before the first scenario.

        Raises:
            UnavailableError: it is not, in time; the message names what is missing.
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
                    f"{scenario}: the grid was not whole within {self.patience.whole:g} s: {missing}"
                )
            await asyncio.sleep(LOOK_EVERY_S)

    def _missing(self, picture: GridSnapshot, nodes: Sequence[NodeStatus]) -> str | None:
        if others := [f"{node.node} is {node.state}" for node in nodes if node.state != "ok"]:
            return "; ".join(others)
        names = frozenset(node.node for node in nodes)
        if lost := names - {place.name for place in picture.places if place.agent}:
            return f"no agent lives on {', '.join(sorted(lost))}"
        leaderless = {node.group for node in nodes} - {each.group for each in picture.candidates if each.leads}
        if leaderless and picture.candidates:
            return f"no leader of {', '.join(sorted(leaderless))}"
        return self._fewer(names, len(picture.candidates), len(picture.parents))

    def _fewer(self, names: frozenset[str], candidates_now: int, parents_now: int) -> str | None:
        """What was there before the first scenario, and is not now."""
        if self._whole is None:
            if not names:
                return "no nodes are there"
            self._whole = names, candidates_now, parents_now
        all_names, candidates, parents = self._whole
        if lost := all_names - names:
            return f"{', '.join(sorted(lost))} is not there"
        if candidates_now < candidates:
            return f"{candidates_now} of {candidates} leader candidates are there"
        return f"{parents_now} of {parents} parents are there" if parents_now < parents else None

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
            raise UnavailableError(f"{scenario}: the load does not flow: {load.ended} jobs ended. {errors}")
        chosen = choose(scenario, picture, await client.nodes())  # now that something runs
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
            report = replace(report, note="there is only one parent, so clients had to wait for its next life")
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
        """The jobs that have not ended, as soon as some of them run on what is hit, so that a fault costs something."""
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
        """Keep the load going until the jobs that ran at the fault have ended, and as many again afterwards."""
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
        """Go on until what was hit has done something new: for a while, it gets no jobs, or no requests."""
        clock = asyncio.get_running_loop().time
        while clock() < until:
            with contextlib.suppress(RaygridError):  # an entry that does not answer now is asked again
                now = await load.statuses()
                if recovery_s(scenario, injected, load.jobs.values(), now, load.tries, until) is not None:
                    return
            await asyncio.sleep(LOOK_EVERY_S)

    async def judge(self, scenario: str, injected: InjectedFault, load: ClientLoad, until: float) -> Report:
        """Decide over what the load's clients saw; jobs were submitted until an instant, and have had time to end."""
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
            count(scenario, load, final),
            recovery_s=None if recovery is None else round(recovery, 3),
            violations=tuple(map(str, violations)),
            note=NOT_SEEN if recovery is None else "",
            more=settled,
        )


def count(scenario: str, load: ClientLoad, final: Mapping[str, JobStatus]) -> Report:
    """Count what became of the jobs that the grid took."""
    taken = load.history.acknowledged_jobs
    ends = [_end(final.get(job_id), load.history.result_at(job_id)) for job_id in taken]
    wrong = [each for each in check(load.history, {}, must_have_ended=False) if each.kind is Wrong.WRONG_RESULT]
    return Report(
        scenario,
        acknowledged=len(taken),
        done=ends.count("done"),
        lost=ends.count("lost"),
        failed=ends.count("failed"),
        repeated=sum(final[job_id].attempts > 1 for job_id in taken if job_id in final),
        wrong=len(wrong),
        client_errors=load.client_errors,
        errors=tuple(dict.fromkeys(what for _, _, what in load.history.errors))[:5],
    )


def _end(status: JobStatus | None, result_at: float | None) -> str:
    """A job is done when its client has the result, not when the grid reports it."""
    if status is not None and status.state in (JobState.FAILED, JobState.CANCELLED):
        return "failed"
    return "done" if status is not None and status.state is JobState.DONE and result_at is not None else "lost"


async def _head_back(address: str, since: float, within_s: float) -> float:
    """Seconds until the head listens again, or as long as it was waited for."""
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


__all__ = ["Drill", "DrillTimeouts", "count"]
