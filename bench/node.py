"""`python bench/node.py`: what a node agent costs per job, without Ray and without the tiers above it.

Jobs of `/bin/true` with an input of 1 KB are sent to an agent as by a leader, a little more than it has slots for, and
its reports are polled from an event loop. It alternates with `xargs -P` of the same command, and with threads of this
process that only spawn it and wait. Compare the CPU time per job, which includes the jobs' own processes and hardly
depends on the load of the machine, rather than the rate. `--sandbox off protect strict` compares agents with these
sandboxes. `--busy` adds a thread that computes for that share of the time and competes for the interpreter, as Ray's
own threads do in a grid.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import resource
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from raygrid.blobs import BlobStore
from raygrid.core.group.events import AttemptOrder
from raygrid.models import AttemptId, BlobSlice, JobSpec, Outcome
from raygrid.node.agent import NodeAgent
from raygrid.settings.definition import define
from raygrid.settings.pricer import Pricer
from raygrid.settings.sections import Node
from raygrid.settings.values import SandboxMode
from raygrid.system.processors import usable_processors

COMMAND = "/bin/true"
INPUT = b"x" * 1024
AHEAD = 128
BUSY_PERIOD_S = 0.002
PRICER = Pricer(command=(COMMAND,))
DEFINITION = define("true", PRICER)


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one contender in one round; milliseconds of CPU per job, including the jobs' own processes."""

    jobs_per_s: float
    user_ms: float
    system_ms: float

    @property
    def cpu_ms(self) -> float:
        """User and system together."""
        return self.user_ms + self.system_ms


def measured(run: Callable[[], float], jobs: int) -> Cost:
    """Run a contender once; `run` returns the seconds of user time to subtract."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    before = [resource.getrusage(kind) for kind in kinds]
    began = time.perf_counter()
    others_s = run()
    seconds = time.perf_counter() - began
    after = [resource.getrusage(kind) for kind in kinds]
    user_s = sum(a.ru_utime - b.ru_utime for a, b in zip(after, before, strict=True)) - others_s
    system_s = sum(a.ru_stime - b.ru_stime for a, b in zip(after, before, strict=True))
    return Cost(jobs / seconds, 1000 * user_s / jobs, 1000 * system_s / jobs)


def through_xargs(jobs: int, slots: int) -> float:
    """Spawn the command by xargs."""
    lines = "\n".join(map(str, range(jobs))).encode()
    subprocess.run(["xargs", "-n1", f"-P{slots}", COMMAND], input=lines, check=True)
    return 0.0


def through_bare_threads(jobs: int, slots: int) -> float:
    """Spawn the command by threads of this process."""
    left = iter(range(jobs))
    environment = {"PATH": os.environ.get("PATH", "")}

    def work() -> None:
        for _ in left:
            os.waitpid(os.posix_spawn(COMMAND, [COMMAND], environment, setsid=True), 0)

    threads = [threading.Thread(target=work) for _ in range(slots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0.0


class Fed:
    """An agent, and the state of the conversation with it."""

    def __init__(self, agent: NodeAgent) -> None:
        self._agent = agent
        self._loop = asyncio.Runner()  # an agent belongs to one event loop
        self._round = 0
        self._after = 0
        self._place = BlobSlice("", 0, len(INPUT), hashlib.sha256(INPUT).hexdigest())

    def run(self, jobs: int) -> float:
        """Send jobs and wait for all reports; returns the seconds that it took to make the orders."""
        began = time.thread_time()
        self._round += 1
        orders = [self._order(number) for number in range(jobs)]
        making_s = time.thread_time() - began
        self._loop.run(self._feed(orders))
        return making_s

    def _order(self, number: int) -> AttemptOrder:
        job_id = f"round-{self._round}-job-{number}"
        spec = JobSpec(job_id, "true", "1", self._place, inline=INPUT, definition=DEFINITION.digest)
        return AttemptOrder(AttemptId(job_id, 1), spec)

    async def _feed(self, orders: list[AttemptOrder]) -> None:
        given = ended = 0
        while ended < len(orders):
            more = orders[given : ended + AHEAD]
            if more:
                self._agent.start(1, more)
                given += len(more)
            reply = await self._agent.reports(1, self._after, self._after, 1.0)
            self._after = reply.last
            for report in reply.reports:
                assert (report.outcome, report.exit_code) == (Outcome.EXITED, 0), report
            ended += len(reply.reports)


@contextmanager
def busy(share: float) -> Iterator[list[float]]:
    """Run a thread that computes for a share of the time; the list then has the CPU seconds that it used."""
    done = threading.Event()
    took_s: list[float] = []

    def compute() -> None:
        while not done.wait((1 - share) * BUSY_PERIOD_S):
            until = time.thread_time() + share * BUSY_PERIOD_S
            while time.thread_time() < until:
                pass
        took_s.append(time.thread_time())

    thread = threading.Thread(target=compute)
    if share > 0:
        thread.start()
    try:
        yield took_s
    finally:
        done.set()
        if share > 0:
            thread.join()


@contextmanager
def agent_of(mode: SandboxMode, scratch: Path, slots: int) -> Iterator[Fed]:
    """An agent whose pricer runs in a sandbox of this mode."""
    agent = NodeAgent(
        "node-1",
        scratch / "root",
        {"true": PRICER.model_copy(update={"sandbox": mode})},
        Node(slots=slots),
        BlobStore(f"{scratch}/blobs"),
    )
    agent.open()
    try:
        agent.start(1, [], [DEFINITION])
        yield Fed(agent)
    finally:
        agent.close()


def measure(
    jobs: int, rounds: int, slots: int, busy_share: float, modes: Sequence[SandboxMode]
) -> dict[str, list[Cost]]:
    """The costs of each contender, by round; a first round warms up and does not count."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="raygrid-bench-")))
        contenders: dict[str, Callable[[], float]] = {}
        for mode in modes:
            fed = stack.enter_context(agent_of(mode, scratch / mode, slots))
            contenders[f"agent, {mode}"] = partial(through_agent, fed, jobs, busy_share)
        contenders["bare threads"] = partial(through_bare_threads, jobs, slots)
        contenders[f"xargs -P{slots}"] = partial(through_xargs, jobs, slots)
        costs: dict[str, list[Cost]] = {name: [] for name in contenders}
        for number in range(rounds + 1):
            for name, run in contenders.items():
                cost = measured(run, jobs)
                if number:
                    costs[name].append(cost)
    return costs


def through_agent(fed: Fed, jobs: int, busy_share: float) -> float:
    """Run jobs by an agent."""
    with busy(busy_share) as took_s:
        making_s = fed.run(jobs)
    return making_s + sum(took_s)


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=2 * usable_processors())
    parser.add_argument("--busy", type=float, default=0.0, help="share of the time that a thread of the agent computes")
    modes: tuple[SandboxMode, ...] = ("off", "protect", "strict")
    parser.add_argument("--sandbox", nargs="+", choices=modes, default=["protect"], help="compare agents with these")
    parser.add_argument("--json", default="bench-node.json", help="where the figures go")
    arguments = parser.parse_args()
    costs = measure(arguments.jobs, arguments.rounds, arguments.slots, arguments.busy, arguments.sandbox)
    print(f"{arguments.jobs} jobs of {COMMAND}, {arguments.rounds} rounds, {arguments.slots} at once; medians")
    print(f"{'contender':<16}{'jobs/s':>9}{'CPU ms/job':>12}{'user':>8}{'system':>8}{'CPU lowest':>12}{'highest':>9}")
    for name, each in costs.items():
        cpu = [cost.cpu_ms for cost in each]
        rate, user, system = (
            statistics.median(values)
            for values in zip(*((c.jobs_per_s, c.user_ms, c.system_ms) for c in each), strict=True)
        )
        middle = statistics.median(cpu)
        print(f"{name:<16}{rate:>9.0f}{middle:>12.2f}{user:>8.2f}{system:>8.2f}{min(cpu):>12.2f}{max(cpu):>9.2f}")
    figures = {name: [asdict(cost) for cost in each] for name, each in costs.items()}
    Path(arguments.json).write_text(json.dumps({"busy": arguments.busy, "costs": figures}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
