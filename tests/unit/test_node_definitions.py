"""Which definitions a node runs its jobs with, and how it gets those that it lacks."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from raygrid.core.group.events import AttemptOrder
from raygrid.errors import DefinitionLostError, UnavailableError
from raygrid.models import BlobSlice, Definition, JobSpec, Outcome
from raygrid.node import definitions as module
from raygrid.node.definitions import NodeDefinitions
from raygrid.node.warm import pool
from raygrid.settings.definition import define
from raygrid.settings.pricer import Pricer
from tests.support.lone_agent import SHELL, lone_agent, order, reports_of, wait_until
from tests.support.warm import RUNS_ITS_INPUT, WarmNode, is_running

OLD, NEW = Pricer(command=("old",)), Pricer(command=("new",), timeout_s=5.0)
SPEC = JobSpec("j", "p", "1", BlobSlice("", 0, 1, "d"))


def spec_of(definition: Definition) -> JobSpec:
    return replace(SPEC, definition=definition.digest)


def ordered(job_id: str, script: str, definition: Definition) -> AttemptOrder:
    plain = order(job_id, script)
    return replace(plain, spec=replace(plain.spec, definition=definition.digest))


def test_definitions_that_were_sent_run_within_current_limits() -> None:
    """Each job gets its own, whatever is configured; newer settings change the limits at once."""
    kept = NodeDefinitions({"p": NEW})
    old, new = define("p", OLD), define("p", NEW)
    kept.put([old, new])
    assert kept.pricer(spec_of(new)) is NEW
    pricer = kept.pricer(spec_of(old))
    assert pricer is not None
    assert (pricer.command, pricer.timeout_s) == (("old",), 5.0)
    assert kept.pricer(spec_of(old)) is pricer
    kept.follow({"p": NEW.model_copy(update={"timeout_s": 9.0})})
    after = kept.pricer(spec_of(old))
    assert after is not None
    assert (after.command, after.timeout_s) == (("old",), 9.0)


def test_a_job_without_a_definition_runs_what_is_configured() -> None:
    """The report names the version and the digest of the configured pricer."""
    kept = NodeDefinitions({"p": NEW})
    assert kept.pricer(SPEC) is NEW
    assert kept.resolve(SPEC) == (replace(SPEC, version="1", definition=define("p", NEW).digest), NEW)
    kept.follow({})
    assert kept.pricer(SPEC) is None


def test_an_attempt_waits_for_a_definition_that_is_lacking() -> None:
    """The lack is reported at once, and once; the attempt goes on when the definition comes."""
    reported = threading.Event()
    kept, old = NodeDefinitions({"p": NEW}, reported.set), define("p", OLD)
    found: list[Pricer | None] = []
    waiter = threading.Thread(target=lambda: found.append(kept.pricer(spec_of(old))))
    waiter.start()
    assert reported.wait(10)
    assert kept.lacks == (old.digest,)
    kept.put([old])
    waiter.join(10)
    assert [pricer.command for pricer in found if pricer is not None] == [("old",)]
    assert not kept.lacks


def test_it_waits_for_a_bounded_time_and_not_beyond_the_end_of_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the definition; when no attempt waits for it any more, it is not reported as lacking."""
    kept = NodeDefinitions({"p": NEW})
    monkeypatch.setattr(module, "WAIT_S", 0.05)
    with pytest.raises(UnavailableError, match=r"definition gone of pricer 'p'.* did not come from the job store"):
        kept.pricer(replace(SPEC, definition="gone"))
    assert kept.lacks == ()
    monkeypatch.setattr(module, "WAIT_S", 60.0)
    kept.close()
    with pytest.raises(UnavailableError, match="the agent is stopping"):
        kept.pricer(replace(SPEC, definition="gone"))


def test_few_definitions_are_kept_and_one_that_was_dropped_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those used last are kept."""
    monkeypatch.setattr(module, "MOST_DEFINITIONS", 2)
    kept = NodeDefinitions({})
    made = [define("p", Pricer(command=(name,))) for name in ("a", "b", "c")]
    kept.put(made[:2])
    kept.pricer(spec_of(made[0]))
    kept.put(made[2:])
    kept.expect(spec_of(made[0]))
    assert not kept.lacks
    kept.expect(spec_of(made[1]))
    assert kept.lacks == (made[1].digest,)


async def test_an_agent_reports_what_it_lacks_and_goes_on_when_it_comes(tmp_path: Path) -> None:
    """A poll that waits is answered at once; the attempt runs what was sent, with no further order."""
    agent = lone_agent(tmp_path)
    agent.open()
    try:
        loud = define("shell", Pricer(command=("sh", "-c", "exit 7", "{input}")))
        poll = asyncio.ensure_future(agent.reports(1, 0, 0, 30))
        await asyncio.sleep(0)
        agent.start(1, [ordered("j1", "exit 0", loud)])
        async with asyncio.timeout(10):
            reply = await poll
        assert reply.state.lacks == (loud.digest,)
        agent.start(1, [], [loud])
        [report] = (await reports_of(agent, 1)).values()
        assert (report.outcome, report.exit_code) == (Outcome.EXITED, 7)
        assert (await agent.reports(1, 0, 0, 0)).state.lacks == ()
    finally:
        agent.close()


LOST = Definition("gone", body="")


def test_an_attempt_that_waits_for_a_lost_definition_waits_no_longer() -> None:
    """The error names job, definition and what to do; a definition that the node has is kept all the same."""
    reported = threading.Event()
    kept, errors = NodeDefinitions({"p": NEW}, reported.set), list[str]()

    def wait() -> None:
        with pytest.raises(DefinitionLostError) as raised:
            kept.pricer(replace(SPEC, definition="gone"))
        errors.append(str(raised.value))

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert reported.wait(10)
    assert kept.put([LOST]) == {"gone"}
    waiter.join(10)
    [error] = errors
    assert "definition gone of pricer 'p', with which job j was submitted" in error
    assert "submit the job again" in error
    assert kept.lacks == ()
    old = define("p", OLD)
    kept.put([old])
    assert kept.put([Definition(old.digest, body="")]) == frozenset()
    pricer = kept.pricer(spec_of(old))
    assert pricer is not None
    assert pricer.command == ("old",)


def test_that_a_definition_was_lost_once_does_not_outlive_its_return(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later attempt asks for the definition again, and runs what the leader sends then."""
    monkeypatch.setattr(module, "WAIT_S", 0.05)
    kept, old = NodeDefinitions({"p": NEW}), define("p", OLD)
    kept.put([Definition(old.digest, body="")])
    with pytest.raises(UnavailableError):
        kept.pricer(spec_of(old))  # no leader has reported it lost since this attempt began to wait
    kept.put([old])
    pricer = kept.pricer(spec_of(old))
    assert pricer is not None
    assert pricer.command == ("old",)


async def test_an_attempt_of_a_lost_definition_takes_no_slot(tmp_path: Path) -> None:
    """It ends although all slots are taken, whether it was ordered before the report of the loss or with it."""
    agent = lone_agent(tmp_path, slots=1)
    agent.open()
    try:
        gate, shell = tmp_path / "gate", define("shell", SHELL["shell"])
        agent.start(1, [ordered("busy", f"until [ -e {gate} ]; do sleep 0.02; done", shell)], [shell])
        agent.start(1, [ordered("early", "exit 0", LOST), ordered("good", "exit 0", shell)])
        agent.start(1, [ordered("late", "exit 0", LOST)], [LOST])
        reports = await reports_of(agent, 2)
        assert {attempt.job_id: report.outcome for attempt, report in reports.items()} == {
            "early": Outcome.DEFINITION_LOST,
            "late": Outcome.DEFINITION_LOST,
        }
        gate.touch()
        reports = await reports_of(agent, 4)
        assert {report.exit_code for attempt, report in reports.items() if attempt.job_id in ("busy", "good")} == {0}
    finally:
        agent.close()


async def test_an_attempt_that_has_a_slot_gives_it_back_when_its_definition_is_lost(tmp_path: Path) -> None:
    """The leader noticed the loss after it had sent the order."""
    agent = lone_agent(tmp_path, slots=1)
    agent.open()
    try:
        shell = define("shell", SHELL["shell"])
        agent.start(1, [ordered("lost", "exit 0", LOST), ordered("good", "exit 0", shell)])
        wait_until(lambda: list(agent._definitions._changed._waiters))  # type: ignore[attr-defined]  # typeshed leaves it out
        agent.start(1, [], [LOST, shell])
        reports = await reports_of(agent, 2)
        assert {attempt.job_id: report.outcome for attempt, report in reports.items()} == {
            "lost": Outcome.DEFINITION_LOST,
            "good": Outcome.EXITED,
        }
    finally:
        agent.close()


async def test_warm_processes_of_two_definitions_run_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that alternate start each once; idle ones of the older definition end soon, those of the newer one stay."""
    monkeypatch.setattr(pool, "OLD_IDLE_S", 1.0)
    script = "print(os.environ['CURVE'])"
    with WarmNode(tmp_path, RUNS_ITS_INPUT, slots=1) as node:
        env = node.pricers["warm"].env
        eur, usd = (node.pricer(env={**env, "CURVE": curve}) for curve in ("eur", "usd"))
        old, new = define("warm", eur), define("warm", usd)
        node.agent.configure(1, {"warm": usd}, node.node, 1.0)
        node.agent.start(1, [], [old, new])
        for number in range(3):
            assert (await node.run(f"o{number}", script, definition=old.digest)).stdout == "eur\n"
            assert (await node.run(f"n{number}", script, definition=new.digest)).stdout == "usd\n"
        assert node.started == 2
        pids = node.pids
        wait_until(lambda: sum(map(is_running, pids)) == 1)
        assert (await node.run("last", script, definition=new.digest)).stdout == "usd\n"
        assert node.started == 2
