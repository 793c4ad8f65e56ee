"""The scenarios: the fault of each, and when the grid has recovered from it. Pure.

| scenario | fault | recovery |
|---|---|---|
| `agent` | the node agent with most running jobs is killed | first end of a job that ran again |
| `leader` | the leader of the busiest group is killed | first end, in that group, of a job submitted afterwards |
| `leader-frozen` | the same leader is frozen for 6 s | as `leader` |
| `node` | all processes of one machine are frozen for 20 s | as `agent` |
| `group` | all processes of one rack are frozen for 20 s | first end of a job that was in that group |
| `parent` | a parent is killed | first answer, through that machine's entry, to a request made afterwards |
| `head` | the head's GCS process is killed | longest time without an ended job, until some time after its return |

Times are those of the client's clock: a job has ended when its client has read the result.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

from raygrid.client import JobStatus, NodeStatus
from raygrid.drill.injector import FaultTarget, GridSnapshot
from raygrid.drill.load import LoadJob
from raygrid.drill.recorder import EntryRequest, entry_of

SCENARIOS = ("agent", "leader", "leader-frozen", "node", "group", "parent", "head")
COMMANDS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("agent", "node", "group", "parent", "head")},
    "leader": ("leader", "leader-frozen"),
    "all": SCENARIOS,
}
NODE_SILENT_S = 20.0
LEADER_FROZEN_S = 6.0
THAW_S = 1.0  # tolerance when the end of a job is compared with a thaw


@dataclass(frozen=True, slots=True)
class Skip:
    """Why a scenario cannot be run on this grid."""

    why: str


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """A fault, and the state of the load just before it.

    Attributes:
        at: when it was injected.
        aim: its target.
        before: the unfinished jobs, as the grid reported them.
        entries: addresses of the entries that it hit.
    """

    at: float
    aim: FaultTarget
    before: Mapping[str, JobStatus] = field(default_factory=dict)
    entries: frozenset[str] = frozenset()


def choose_target(scenario: str, picture: GridSnapshot, nodes: Sequence[NodeStatus]) -> FaultTarget | Skip:
    """Choose the target with most running jobs, where most could be lost."""
    if scenario == "head":
        return Skip(picture.head_spared) if picture.head_spared else FaultTarget("head")
    if scenario == "parent":
        return _choose_parent(picture)
    if scenario in ("leader", "leader-frozen"):
        return _choose_leader(picture, nodes, LEADER_FROZEN_S if scenario == "leader-frozen" else 0.0)
    running = Counter({node.node: node.running for node in nodes if node.state == "ok"})
    return (_choose_group if scenario == "group" else partial(_choose_node, scenario))(picture, running)


def _choose_node(scenario: str, picture: GridSnapshot, running: Mapping[str, int]) -> FaultTarget | Skip:
    places = [place for place in picture.places if place.agent and place.name in running]
    if not places:
        return Skip("no node of this grid is ok")
    if scenario == "agent":
        return FaultTarget("agent", (max(places, key=lambda place: running[place.name]).name,))
    free = [place for place in places if place.spared is None]
    if not free:
        return Skip(f"no machine may be frozen: {places[0].spared}")
    return FaultTarget("node", (max(free, key=lambda place: running[place.name]).name,), freeze_s=NODE_SILENT_S)


def _choose_parent(picture: GridSnapshot) -> FaultTarget | Skip:
    if not picture.parents:
        return Skip("no parent of this grid was found")
    spared = {place.name for place in picture.places if place.spared}
    return FaultTarget("parent", (sorted(picture.parents, key=lambda name: (name in spared, name))[0],))


def _choose_leader(picture: GridSnapshot, nodes: Sequence[NodeStatus], freeze_s: float) -> FaultTarget | Skip:
    load: Counter[str] = Counter()
    for node in nodes:
        load[node.group] += node.running
    leading = [candidate for candidate in picture.candidates if candidate.leads]
    if not leading:
        return Skip("no leader of this grid was found")
    chosen = max(leading, key=lambda candidate: load[candidate.group])
    return FaultTarget("leader", (chosen.place,), chosen.group, freeze_s)


def _choose_group(picture: GridSnapshot, running: Mapping[str, int]) -> FaultTarget | Skip:
    groups: dict[str, list[str]] = {}
    spared: dict[str, str] = {}
    for place in picture.places:
        if place.group is not None and place.agent:
            groups.setdefault(place.group, []).append(place.name)
            if place.spared:
                spared[place.group] = place.spared
    if len(groups) < 2:
        return Skip("there is only one group, so its jobs could not move")
    free = {group: names for group, names in groups.items() if group not in spared}
    if not free:
        return Skip(f"no group may be frozen: {next(iter(spared.values()))}")
    group = max(free, key=lambda each: sum(running.get(name, 0) for name in free[each]))
    return FaultTarget("node", tuple(sorted(free[group])), group, NODE_SILENT_S)


def entries_of(aim: FaultTarget, picture: GridSnapshot, urls: Iterable[str]) -> frozenset[str]:
    """The entries on the machines that were hit; all entries if none is there."""
    hit = {place.address for name in aim.places if (place := picture.place(name)) is not None}
    entries = frozenset(map(entry_of, urls))
    return frozenset(entry for entry in entries if urlsplit(entry).hostname in hit) or entries


def recovery_s(
    scenario: str,
    injected: InjectedFault,
    jobs: Iterable[LoadJob],
    final: Mapping[str, JobStatus],
    tries: Sequence[EntryRequest],
    until: float,
) -> float | None:
    """Seconds from the fault to recovery, as the scenario defines it; None if that was not observed.

    `final` has the states of the jobs at the end, `until` is when the last job was submitted.
    """
    if scenario == "parent":
        well = (each for each in tries if each.well and each.asked_at >= injected.at and each.entry in injected.entries)
        return _since(injected.at, (each.ended_at for each in well))
    if scenario in ("head", "everything"):
        return longest_gap_s(injected.at, until, (job.ended_at for job in jobs if job.ended_at is not None))
    needed = _NEEDED[scenario]
    ended = (
        job.ended_at
        for job in jobs
        if job.ended_at is not None and job.ended_at >= injected.at and job.job_id in final
        if needed(job, final[job.job_id], injected)
    )
    return _since(injected.at, ended)


def _ran_again(job: LoadJob, final: JobStatus, injected: InjectedFault) -> bool:
    """Whether the fault cost the job an attempt."""
    return job.submitted_at < injected.at and final.attempts > 1


def _was_led(job: LoadJob, final: JobStatus, injected: InjectedFault) -> bool:
    """Whether a leader of the group must have placed the job after the fault."""
    return job.submitted_at >= injected.at and final.group == injected.aim.group


def _was_in_group(job: LoadJob, final: JobStatus, injected: InjectedFault) -> bool:
    if _ran_again(job, final, injected):
        return True  # it may have started after `before` was read
    before = injected.before.get(job.job_id)
    if before is None or before.group != injected.aim.group:
        return False
    if final.group != injected.aim.group:
        return True
    # A job that did not move counts if it ended after the thaw; otherwise its earlier end may have been reported late.
    if final.ended_at is None or final.submitted_at is None:
        return False
    ended_at = job.submitted_at + (final.ended_at - final.submitted_at).total_seconds()  # on the client's clock
    return ended_at > injected.at + injected.aim.freeze_s - THAW_S


_NEEDED = {
    "agent": _ran_again,
    "node": _ran_again,
    "leader": _was_led,
    "leader-frozen": _was_led,
    "group": _was_in_group,
}


def _since(at: float, instants: Iterable[float]) -> float | None:
    first = min(instants, default=None)
    return None if first is None else first - at


def longest_gap_s(begin: float, end: float, instants: Iterable[float]) -> float:
    """The longest time between two neighbours among begin, instants and end."""
    marks = [begin, *sorted(at for at in instants if begin < at < end), end]
    return max(after - before for before, after in itertools.pairwise(marks))


def settled_s(injected: InjectedFault, tries: Sequence[EntryRequest]) -> float:
    """Seconds until the last failed request that the fault may have hit; 0 if none failed."""
    return max(
        (each.ended_at - injected.at for each in tries if not each.well and each.ended_at > injected.at), default=0.0
    )
