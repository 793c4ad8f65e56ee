"""The node agent by itself: slots, sharing of runs, reports and terms, health, closing, and being killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from raygrid.blobs import BlobStore
from raygrid.errors import StaleTermError
from raygrid.models import AttemptId, Outcome
from raygrid.node.agent import NodeAgent
from raygrid.node.attempt import result
from raygrid.node.attempt.result_zip import build_zip
from raygrid.node.attempt.stages import CollectedAttempt, ResultZip
from raygrid.node.attempt.workspace import Workspace
from raygrid.node.limits.watchdog import SWEEP_S
from raygrid.system.proc import process_table
from raygrid.system.processes import mark_of
from tests.support.lone_agent import lone_agent, order, reports_of, wait_until

pytestmark = pytest.mark.processes


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[NodeAgent]:
    made = lone_agent(tmp_path)
    made.open()
    yield made
    made.close()


def pricers_under(root: Path) -> list[int]:
    return [p.pid for p in process_table() if not p.is_zombie and (mark_of(p.pid) or "").startswith(f"{root}|")]


# --- slots ----------------------------------------------------------------------------------------------------------


async def test_an_inline_input_that_is_not_what_was_submitted_is_not_priced(agent: NodeAgent) -> None:
    """One byte was changed on its way through the job store: no pricer gets it, and the report has the reason."""
    given = order("job", "echo 11")
    agent.start(1, [replace(given, spec=replace(given.spec, inline=b"echo 91"))])
    report = (await reports_of(agent, 1))[AttemptId("job", 1)]
    assert (report.outcome, report.result) == (Outcome.INPUT_LOST, None)
    assert "input of job job in the job store is damaged" in (report.message or "")


async def test_never_more_pricers_than_slots(agent: NodeAgent, tmp_path: Path) -> None:
    """However many attempts wait, no more than `slots` run at once, and with enough work no fewer."""
    log = tmp_path / "log"
    script = f"echo + >> {log}; sleep 0.05; echo - >> {log}"
    agent.start(1, [order(f"job-{number}", script) for number in range(20)])
    await reports_of(agent, 20)
    running, most = 0, 0
    for line in log.read_text().split():
        running += 1 if line == "+" else -1
        most = max(most, running)
    assert (running, most) == (0, 2)


async def test_attempts_start_in_the_order_of_arrival(tmp_path: Path) -> None:
    """With one slot, what came first runs first."""
    agent = lone_agent(tmp_path, slots=1)
    agent.open()
    log = tmp_path / "log"
    agent.start(1, [order(f"job-{number}", f"echo {number} >> {log}") for number in range(10)])
    await reports_of(agent, 10)
    agent.close()
    assert log.read_text().split() == [str(number) for number in range(10)]


# --- one run of a job -----------------------------------------------------------------------------------------------


async def test_an_order_given_twice_runs_once(agent: NodeAgent, tmp_path: Path) -> None:
    """The same attempt again, and another attempt of the same job, share one run, and each gets its report."""
    runs, gate = tmp_path / "runs", tmp_path / "gate"
    script = f"echo x >> {runs}; while [ ! -e {gate} ]; do sleep 0.02; done; echo once"
    agent.start(1, [order("job", script)])
    agent.start(1, [order("job", script)])
    agent.start(1, [order("job", script, 2)])
    reply = await agent.reports(1, 0, 0, 0)
    assert set(reply.state.running) == {AttemptId("job", 1), AttemptId("job", 2)}
    gate.touch()
    reports = await reports_of(agent, 2)
    assert set(reports) == {AttemptId("job", 1), AttemptId("job", 2)}
    assert len({report.result for report in reports.values()}) == 1
    agent.start(1, [order("job", script, 3)])
    reports = await reports_of(agent, 3)
    assert reports[AttemptId("job", 3)].result == reports[AttemptId("job", 1)].result
    assert runs.read_text() == "x\n"


async def test_stopping_one_of_two_that_share_a_run_leaves_the_other(agent: NodeAgent, tmp_path: Path) -> None:
    """A shared run goes on until its last job is stopped."""
    gate = tmp_path / "gate"
    script = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    for number in (1, 2):
        agent.start(1, [order("kept", script, number), order("dropped", script, number)])
    wait_until(lambda: len(pricers_under(tmp_path / "root")) >= 2)
    agent.stop(1, [AttemptId("kept", 1), AttemptId("dropped", 1), AttemptId("dropped", 2)])
    dropped = await reports_of(agent, 2)
    assert {(each.attempt.job_id, each.outcome) for each in dropped.values()} == {("dropped", Outcome.CANCELLED)}
    gate.touch()
    reports = await reports_of(agent, 4)
    assert reports[AttemptId("kept", 2)].outcome is Outcome.EXITED


async def test_a_cancelled_or_lost_run_may_run_again(agent: NodeAgent, tmp_path: Path) -> None:
    """Only an answer is kept: a job whose run was stopped runs anew."""
    agent.start(1, [order("job", "sleep 100")])
    wait_until(lambda: pricers_under(tmp_path / "root"))
    agent.stop(1, [AttemptId("job", 1)])
    assert (await reports_of(agent, 1))[AttemptId("job", 1)].outcome is Outcome.CANCELLED
    agent.start(1, [order("job", "echo x", 2)])
    assert (await reports_of(agent, 2))[AttemptId("job", 2)].exit_code == 0


async def test_stopping_what_waits_never_starts_it(tmp_path: Path) -> None:
    """An attempt that waits for a slot is reported as cancelled at once, and leaves no trace."""
    agent = lone_agent(tmp_path, slots=1)
    agent.open()
    ran, gate = tmp_path / "ran", tmp_path / "gate"
    agent.start(1, [order("first", f"while [ ! -e {gate} ]; do sleep 0.02; done"), order("second", f"touch {ran}")])
    agent.stop(1, [AttemptId("second", 1), AttemptId("nobody", 1)])
    assert (await reports_of(agent, 1))[AttemptId("second", 1)].outcome is Outcome.CANCELLED
    gate.touch()
    await reports_of(agent, 2)
    agent.close()
    assert not ran.exists()


async def test_what_has_begun_is_not_taken_back(tmp_path: Path) -> None:
    """A leader recalls what waits, but knows only later that it has got a slot: then it goes on."""
    agent = lone_agent(tmp_path, slots=1)
    agent.open()
    gate = tmp_path / "gate"
    agent.start(1, [order("runs", f"while [ ! -e {gate} ]; do sleep 0.02; done"), order("waits", "true")])
    wait_until(lambda: pricers_under(tmp_path / "root"))
    agent.stop(1, [], [AttemptId("runs", 1), AttemptId("waits", 1)])
    assert (await reports_of(agent, 1))[AttemptId("waits", 1)].outcome is Outcome.CANCELLED
    gate.touch()
    assert (await reports_of(agent, 2))[AttemptId("runs", 1)].outcome is Outcome.EXITED
    agent.close()


# --- reports and terms ----------------------------------------------------------------------------------------------


async def test_reports_are_kept_until_they_are_settled(agent: NodeAgent) -> None:
    """Reports come again to leaders that ask from the beginning, in a new term as well, until they are settled."""
    agent.start(1, [order(f"job-{number}", "true") for number in range(3)])
    await reports_of(agent, 3)
    first = await agent.reports(1, 0, 0, 0)
    assert len((await agent.reports(1, first.last, 0, 0)).reports) == 0
    assert (await agent.reports(2, 0, 0, 0)).reports == first.reports
    await agent.reports(2, first.last, first.last - 1, 0)
    assert (await agent.reports(2, 0, 0, 0)).reports == first.reports[2:]
    await agent.reports(2, first.last, first.last, 0)
    assert (await agent.reports(2, 0, 0, 0)).reports == ()


async def test_settling_reports_of_an_earlier_life_settles_nothing_now(agent: NodeAgent) -> None:
    """A leader that does not know of the agent's new life cannot settle its reports, and is notified at once."""
    agent.start(1, [order("job", "true")])
    await reports_of(agent, 1)
    earlier = 5  # reports of an earlier life, more than this one has made
    async with asyncio.timeout(20):
        reply = await agent.reports(1, earlier, earlier, 25)
    assert [report.attempt.job_id for report in reply.reports] == ["job"]
    assert [report.attempt.job_id for report in (await agent.reports(1, 0, 0, 0)).reports] == ["job"]


async def test_an_old_term_is_refused(agent: NodeAgent, tmp_path: Path) -> None:
    """After a call of a newer leader, the older one can neither start, nor stop, nor ask."""
    agent.start(5, [order("job", "sleep 100")])
    wait_until(lambda: pricers_under(tmp_path / "root"))
    with pytest.raises(StaleTermError):
        agent.start(4, [order("late", "true")])
    with pytest.raises(StaleTermError):
        agent.stop(4, [AttemptId("job", 1)])
    with pytest.raises(StaleTermError):
        await agent.reports(4, 0, 0, 0)
    assert (await agent.reports(5, 0, 0, 0)).state.running == (AttemptId("job", 1),)


async def test_a_poll_is_answered_as_soon_as_something_ends(agent: NodeAgent) -> None:
    """A waiting poll ends with the first report, long before its time."""
    agent.start(1, [order("job", "sleep 0.2")])
    reply = await agent.reports(1, 0, 0, 25)
    assert [report.attempt.job_id for report in reply.reports] == ["job"]


async def test_the_result_is_in_cache_and_blob_store_alike(agent: NodeAgent, tmp_path: Path) -> None:
    """What a report promises can be read from the cache by jobId and from the blob store by its slice."""
    agent.start(1, [order(f"job-{number}", f"echo {number}") for number in range(5)])
    for attempt, report in (await reports_of(agent, 5)).items():
        assert report.result is not None
        while (cached := agent.results(report.result.key, [attempt.job_id])[0]) is None:
            await asyncio.sleep(0.01)  # it is reported as soon as it is stored
        assert cached == BlobStore(str(tmp_path / "blobs")).read_now(report.result)
        with zipfile.ZipFile(BytesIO(cached)) as archive:
            assert archive.read("stdout.txt").decode().strip() == attempt.job_id.removeprefix("job-")


# --- failures -------------------------------------------------------------------------------------------------------


async def test_a_blob_store_that_fails_a_few_times_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails is tried again, and the attempt's answer is reported as usual."""
    failures = [OSError("the disk is away"), OSError("still away")]
    put = BlobStore.put_now

    def failing(self: BlobStore, key: str, data: bytes) -> None:
        if key.startswith("results/") and failures:
            raise failures.pop()
        put(self, key, data)

    monkeypatch.setattr(BlobStore, "put_now", failing)
    agent = lone_agent(tmp_path)
    agent.open()
    agent.start(1, [order("job", "echo x")])
    report = (await reports_of(agent, 1))[AttemptId("job", 1)]
    agent.close()
    assert (report.outcome, failures) == (Outcome.EXITED, [])


async def test_a_blob_store_that_fails_makes_the_node_unhealthy_until_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that cannot be stored is the grid's failure; the node takes no work until a write succeeds again."""
    away = threading.Event()
    away.set()
    put = BlobStore.put_now

    def failing(self: BlobStore, key: str, data: bytes) -> None:
        if away.is_set():
            raise OSError("the blob store is away")
        put(self, key, data)

    monkeypatch.setattr(BlobStore, "put_now", failing)
    agent = lone_agent(tmp_path)
    agent.open()
    agent.start(1, [order("job", "echo x")])
    report = (await reports_of(agent, 1))[AttemptId("job", 1)]
    assert (report.outcome, report.result) == (Outcome.INFRASTRUCTURE, None)
    assert "the blob store is away" in (report.message or "")

    wait_until(lambda: agent._health.why is not None)
    state = (await agent.reports(1, 0, 0, 0)).state
    assert not state.healthy
    assert "the blob store does not take results" in (state.why or "")
    away.clear()
    wait_until(lambda: agent._health.why is None)
    agent.start(1, [order("job", "echo x", 2)])
    assert (await reports_of(agent, 2))[AttemptId("job", 2)].outcome is Outcome.EXITED
    agent.close()


async def test_a_full_cache_costs_only_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the object store is full, results come from the blob store, and the publisher goes on."""
    agent = lone_agent(tmp_path)

    class Full:
        def put(self, _data: bytes) -> object:
            raise MemoryError("object store full")

        def get(self, _handle: object) -> None:
            return None

    monkeypatch.setattr(agent._cache, "_pack_store", Full())
    agent.open()
    agent.start(1, [order("job", "echo x"), order("other", "echo y")])
    reports = await reports_of(agent, 2)
    agent.close()
    assert {report.outcome for report in reports.values()} == {Outcome.EXITED}
    for report in reports.values():
        assert report.result is not None
        assert agent.results(report.result.key, [report.attempt.job_id]) == [None]
        assert len(BlobStore(str(tmp_path / "blobs")).read_now(report.result)) == report.result.size


async def test_a_nearly_full_disk_makes_the_node_unhealthy(agent: NodeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the reserve the node reports itself as unhealthy, with the reason; with room again it takes jobs."""
    monkeypatch.setattr(Workspace, "free_bytes", lambda _: 1_000_000)
    wait_until(lambda: agent._health.why is not None, within_s=5)
    state = (await agent.reports(1, 0, 0, 0)).state
    assert (state.healthy, "its disk is nearly full: 1000000 bytes free" in (state.why or "")) == (False, True)
    monkeypatch.setattr(Workspace, "free_bytes", lambda _: 10**12)
    wait_until(lambda: agent._health.why is None, within_s=5)
    assert (await agent.reports(1, 0, 0, 0)).state.healthy


async def test_a_job_directory_that_cannot_be_made_is_no_answer_of_the_job(
    agent: NodeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing disk is an infrastructure failure, a full one costs the job no attempt, and the slot goes on."""
    refusals = ((28, "No space left on device", Outcome.DISK_FULL), (5, "Input/output error", Outcome.INFRASTRUCTURE))
    for number, (code, words, outcome) in enumerate(refusals, 1):

        def refuse(*_: object, code: int = code, words: str = words, **__: object) -> None:
            raise OSError(code, words)

        with monkeypatch.context() as patch:
            patch.setattr(Workspace, "create", refuse)
            agent.start(1, [order("job", "true", number)])
            report = (await reports_of(agent, number))[AttemptId("job", number)]
        assert report.outcome is outcome
        assert words in (report.message or "")
    agent.start(1, [order("job", "true", 3)])
    assert (await reports_of(agent, 3))[AttemptId("job", 3)].outcome is Outcome.EXITED


async def test_a_slot_is_free_as_soon_as_its_pricer_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the result of one attempt is put together, the next pricer runs, and never more of them than slots."""
    build, began = build_zip, tmp_path / "second"
    seen: list[bool] = []

    def waits(collected: CollectedAttempt, node_id: str) -> ResultZip:
        if collected.report.attempt.job_id == "first":
            wait_until(began.exists)
            seen.append(True)
        return build(collected, node_id)

    monkeypatch.setattr(result, "build_zip", waits)
    agent = lone_agent(tmp_path, slots=1)
    agent.open()
    try:
        script = f"[ -e {tmp_path}/busy ] && exit 9; touch {tmp_path}/busy; sleep 0.05; rm {tmp_path}/busy"
        agent.start(1, [order("first", script), order("second", f"touch {began}; {script}"), order("third", script)])
        ended = await reports_of(agent, 3)
    finally:
        await asyncio.to_thread(agent.close)
    assert seen == [True]
    assert [report.exit_code for report in ended.values()] == [0, 0, 0]


async def test_a_node_whose_reports_are_not_settled_takes_no_more(
    agent: NodeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept for a leader is bounded: beyond that the node is shown as unhealthy until some is settled."""
    monkeypatch.setattr("raygrid.node.agent.MOST_REPORTS", 3)
    agent.start(1, [order(f"job-{number}", "true") for number in range(4)])
    await reports_of(agent, 4)
    reply = await agent.reports(1, 0, 0, 0)
    state = reply.state
    assert (state.healthy, state.why) == (False, "4 of its reports are not yet committed to the job store")
    assert (await agent.reports(1, reply.last, reply.last - 2, 0)).state.healthy


async def test_fifty_answers_wait_for_a_leader_to_come(agent: NodeAgent, tmp_path: Path) -> None:
    """What ends while no leader leads is kept; the next leader gets it all, and nothing runs again for it."""
    runs = tmp_path / "runs"
    orders = [order(f"job-{number}", f"echo {number} >> {runs}") for number in range(50)]
    agent.start(1, orders)
    wait_until(lambda: not agent._accepted.by_job, within_s=60)
    reply = await agent.reports(2, 0, 0, 0)
    assert {report.attempt for report in reply.reports} == {each.attempt for each in orders}
    assert (await agent.reports(2, reply.last, reply.last, 0)).reports == ()
    assert sorted(map(int, runs.read_text().split())) == list(range(50))


# --- the end of an agent --------------------------------------------------------------------------------------------

LEAVES_EVERYTHING = "sleep 1000 & setsid sh -c 'sleep 1000 & sleep 1000' & mkdir deep; touch deep/file; sleep 1000"


async def test_closing_leaves_nothing(tmp_path: Path) -> None:
    """A closed agent has no thread, no process and no job directory left, whatever ran, and reports nothing more."""
    before = set(threading.enumerate())
    agent = lone_agent(tmp_path)
    agent.open()
    reaper = agent._reaper
    agent.start(1, [order(f"job-{number}", LEAVES_EVERYTHING) for number in range(5)])
    wait_until(lambda: len(pricers_under(tmp_path / "root")) >= 10)
    agent.close()
    assert {thread for thread in threading.enumerate() if thread.name.startswith("raygrid")} <= before
    assert pricers_under(tmp_path / "root") == []
    assert list((tmp_path / "root" / "jobs").iterdir()) == []
    assert reaper is not None
    assert reaper._process.returncode is not None


async def test_closing_while_pricers_are_being_started(tmp_path: Path) -> None:
    """Closing at any moment leaves nothing behind: a pricer that is just being spawned is killed as well."""
    for number in range(5):
        agent = lone_agent(tmp_path)
        agent.open()
        agent.start(1, [order(f"job-{number}-{i}", "sleep 1000") for i in range(4)])
        agent.close()
        assert pricers_under(tmp_path / "root") == []
        assert list((tmp_path / "root" / "jobs").iterdir()) == []


@contextmanager
def agent_process(directory: Path, *scripts: str) -> Iterator[subprocess.Popen[bytes]]:
    """An agent in a process of its own that has taken these scripts, and is killed after a freeze of two seconds."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.lone_agent", str(directory), "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdin.write("".join(f"{script}\n" for script in scripts).encode())
        process.stdin.close()
        assert process.stdout.readline() == b"accepted\n"
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def running(words: str) -> bool:
    """Whether a process with these words as its command runs."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes() == words.replace(" ", "\0").encode() + b"\0":
                return True
    return False


def test_a_process_that_sheds_session_and_mark_ends_with_its_attempt(tmp_path: Path) -> None:
    """A daemon with an empty environment may serve its pricer as long as that runs, and not longer."""
    daemons = [f"/bin/sleep 1000.{os.getpid()}{number}" for number in range(2)]
    gate = tmp_path / "gate"
    with agent_process(tmp_path, f"(setsid env -i {daemons[0]} &); while [ ! -e {gate} ]; do sleep 0.05; done"):
        wait_until(lambda: running(daemons[0]))
        time.sleep(2.5 * SWEEP_S)
        assert running(daemons[0])
        gate.touch()
        wait_until(lambda: not running(daemons[0]), within_s=8)
    with agent_process(tmp_path / "quick", f"setsid env -i {daemons[1]} & sleep 0.1"):
        wait_until(lambda: running(daemons[1]))
        wait_until(lambda: not running(daemons[1]), within_s=8)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_killed_or_frozen_agent_leaves_nothing_and_its_root_works_again(
    tmp_path: Path, end: signal.Signals
) -> None:
    """After `kill -9` of an agent, or a freeze, it and every pricer is dead, daemons too, and its files are gone."""
    with agent_process(tmp_path, *[LEAVES_EVERYTHING] * 3) as process:
        wait_until(lambda: len(pricers_under(tmp_path / "root")) >= 12)
        process.send_signal(end)
        assert process.wait(timeout=15) == -signal.SIGKILL
    wait_until(lambda: not pricers_under(tmp_path / "root"), within_s=5)
    wait_until(lambda: not list((tmp_path / "root" / "jobs").iterdir()), within_s=5)
    agent = lone_agent(tmp_path)
    agent.open()
    agent.start(1, [order("job-0", "echo again")])
    assert (await reports_of(agent, 1))[AttemptId("job-0", 1)].exit_code == 0
    agent.close()


async def test_a_new_agent_clears_what_the_one_before_left(tmp_path: Path) -> None:
    """If not even the reaper survived, the next agent on the same root kills and removes what is left."""
    left = tmp_path / "root" / "jobs" / "earlier-life" / "job.1"
    (left / "locked").mkdir(parents=True)
    (left / "locked").chmod(0o000)
    mark = f"{tmp_path / 'root'}|earlier-life|job.1"
    with subprocess.Popen(
        ["/bin/sleep", "1000"], env={**os.environ, "RAYGRID_ATTEMPT": mark}, start_new_session=True
    ) as orphan:
        agent = lone_agent(tmp_path)
        agent.open()
        assert orphan.wait(timeout=5) == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "root" / "jobs").iterdir()] == [agent.incarnation]
    agent.close()
