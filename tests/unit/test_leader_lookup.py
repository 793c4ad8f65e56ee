"""Jobs that a node reports and the leader does not know are looked up, and only those."""

from __future__ import annotations

from dataclasses import replace

from raygrid.core.group.events import NodeHeard, NodeReported, Tick
from raygrid.errors import UnavailableError
from raygrid.leader.lookup import AT_ONCE, Lookup
from raygrid.models import AttemptId, AttemptReport, BlobSlice, JobSpec, JobState, NewJob, NodeState, Outcome, QueuedJob
from tests.simulation.memory_store import MemoryStore
from tests.unit.test_core_group import Rack, job


class Counting(MemoryStore):
    """A job store that records its look-ups, and may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.away = False

    async def unfinished_of(self, group_id: str, job_ids: object) -> list[QueuedJob]:
        assert isinstance(job_ids, list)
        self.asked.append(len(job_ids))
        if self.away:
            raise UnavailableError("away")
        return await super().unfinished_of(group_id, job_ids)


def reply(*running: str, ended: tuple[str, ...] = ()) -> NodeReported:
    state = NodeState("n1", "life-1", 1, tuple(AttemptId(name, 1) for name in running))
    reports = tuple(AttemptReport(AttemptId(name, 1), Outcome.EXITED, 0) for name in ended)
    return NodeReported(state, reports, 0.0)


async def store_with(*names: str, group: str = "rack-a") -> Counting:
    store = Counting()
    specs = (JobSpec(name, "p", "1", BlobSlice("", 0, 0, "")) for name in names)
    await store.insert([NewJob(spec, group, "f") for spec in specs])
    return store


async def test_a_reply_of_known_jobs_reads_no_store() -> None:
    """The usual reply costs no look at the store."""
    store = await store_with("a")
    replied = reply("a", ended=("b",))
    assert await Lookup(store, "rack-a", lambda _: False).complete(replied) is replied
    assert store.asked == []


async def test_unknown_jobs_are_distinguished() -> None:
    """Those of this group that have not ended are found; those that the store does not have here are gone."""
    store = await store_with("mine")
    await store.insert([NewJob(JobSpec("theirs", "p", "1", BlobSlice("", 0, 0, "")), "rack-b", "f")])
    lookup = Lookup(store, "rack-a", lambda name: name != "known")
    replied = await lookup.complete(reply("known", "mine", ended=("theirs", "mine")))
    assert replied is not None
    assert [each.spec.job_id for each in replied.found] == ["mine"]
    assert replied.gone == ("theirs",)
    assert store.asked == [2]


async def test_a_look_up_is_bounded() -> None:
    """Many unknown jobs are looked up in several calls."""
    store = await store_with()
    replied = await Lookup(store, "rack-a", lambda _: True).complete(reply(*(f"j{n}" for n in range(AT_ONCE + 1))))
    assert replied is not None
    assert len(replied.gone) == AT_ONCE + 1
    assert store.asked == [AT_ONCE, 1]


async def test_a_store_that_is_away_holds_back_reports_and_nothing_else() -> None:
    """A reply whose report cannot be judged comes again; one that only lists what runs is accepted."""
    store = await store_with("mine")
    store.away = True
    lookup = Lookup(store, "rack-a", lambda _: True)
    assert await lookup.complete(reply(ended=("mine",))) is None
    replied = reply("mine")
    assert await lookup.complete(replied) is replied


# --- the group's decisions --------------------------------------------------------------------------------------------


def known(rack: Rack, *attempts: AttemptId) -> None:
    rack.slots["n1"], rack.lives["n1"], rack.has["n1"] = 1, 1, list(attempts)


def test_a_found_job_that_runs_is_adopted_whatever_the_window() -> None:
    """It is kept, recorded as running, and its answer counts; no other attempt starts."""
    rack = Rack(window=2)
    rack.submit("a", "b", "c")
    assert "late" not in rack.state
    known(rack, AttemptId("late", 1))
    decided = rack.handle(replace(reply("late"), asked_at=rack.now, found=(job("late"),)))
    assert (decided.states, decided.started, decided.stopped) == ({"late": JobState.RUNNING}, {}, [])
    rack.where["late"] = ("n1", AttemptId("late", 1))
    assert rack.ends("late").states["late"] is JobState.DONE


def test_a_report_of_a_found_job_counts() -> None:
    """An answer ends its job, though the leader had no place for it in memory."""
    rack = Rack()
    decided = rack.handle(replace(reply(ended=("late",)), asked_at=rack.now, found=(job("late"),)))
    assert (decided.states, decided.started) == ({"late": JobState.DONE}, {})


def test_what_is_gone_is_stopped_until_it_comes_back() -> None:
    """An attempt of a job that is not this group's is stopped; the job is taken when the store has it again."""
    rack = Rack()
    decided = rack.handle(replace(reply("theirs"), asked_at=rack.now, gone=("theirs",)))
    assert decided.stopped == [("n1", AttemptId("theirs", 1))]
    assert not rack.state.is_unknown("theirs")
    rack.submit("theirs")
    assert "theirs" in rack.state


def test_a_node_whose_reply_waits_is_not_silent() -> None:
    """While replies cannot be judged, their node keeps what it has."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    for _ in range(10):
        rack.now += 3.0
        rack.handle(NodeHeard("n1"))
        decided = rack.handle(Tick())
        assert decided.wrote == {}
    assert rack.handle(NodeHeard("n2")).wrote == {}
