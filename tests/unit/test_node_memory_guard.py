"""Real pricers under memory pressure: the one that grew is killed, with a reason, whichever agent it belongs to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from raygrid.models import AttemptId, Outcome
from raygrid.node.agent import NodeAgent
from raygrid.node.limits.kill_reasons import KillReason, KillReasons, leave_kill_reason
from tests.support.lone_agent import lone_agent, order, reports_of, wait_until
from tests.support.room import MB, Room, hog

pytestmark = pytest.mark.processes

PRESSURE = Outcome.MEMORY_PRESSURE


def agent_with(directory: Path, room: int, name: str = "root", slots: int = 3) -> NodeAgent:
    """An agent on a machine with so many bytes of memory."""
    agent = lone_agent(directory, slots=slots, own_process=False)
    if name != "root":
        agent = NodeAgent(name, directory / name, agent._pricers, agent._settings, agent._blobs)
    agent._memory._gauge = Room(directory, room)
    agent.open()
    return agent


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[NodeAgent]:
    agent = agent_with(tmp_path, 400 * MB)
    yield agent
    await asyncio.to_thread(agent.close)


async def test_the_pricer_that_grew_is_killed_and_its_neighbours_go_on(node: NodeAgent, tmp_path: Path) -> None:
    """It is killed soon, the report has its size, and the pricer beside it ends as usual."""
    node.start(1, [order("steady", hog(60, until=tmp_path / "go"))])
    wait_until(lambda: any(tree.rss > 60 * MB for tree in node._memory._trees()))
    node.start(1, [order("hog", hog(300))])
    report = (await reports_of(node, 1))[AttemptId("hog", 1)]
    assert (report.outcome, report.signal, report.crowded) == (PRESSURE, 9, True)
    assert report.message is not None
    assert "the pricer's processes used" in report.message
    assert "node.memory_reserve" in report.message
    (tmp_path / "go").touch()
    assert (await reports_of(node, 2))[AttemptId("steady", 1)].exit_code == 0


async def test_the_whole_tree_counts_and_is_killed(node: NodeAgent) -> None:
    """Children count, also one that left its session and its parent, and all of them are killed."""
    script = (
        "cat > child.py <<'END'\nimport os, time\nif os.fork(): os._exit(0)\nos.setsid()\n"
        "x = b'x' * (320 << 20)\ntime.sleep(100)\nEND\npython3 child.py; sleep 100"
    )
    node.start(1, [order("daemon", script)])
    report = (await reports_of(node, 1))[AttemptId("daemon", 1)]
    assert (report.outcome, report.crowded) == (PRESSURE, False)
    wait_until(lambda: not node._memory._trees())


async def test_files_in_memory_belong_to_the_size_of_a_pricer(node: NodeAgent) -> None:
    """Memory files are in no process's resident size; pages of them that are mapped count once."""
    script = (
        'exec python3 -c \'import mmap, os, time\nfile = os.memfd_create("kept")\n'
        "os.write(file, bytes(40 << 20))\nmapped = mmap.mmap(file, 0)\nkept = mapped.read(20 << 20)\n"
        'open("ready", "w")\ntime.sleep(100)\''
    )
    node.start(1, [order("holds", script)])
    wait_until(lambda: any(node._workspace.sandboxes.rglob("ready")))
    [tree] = node._memory._trees()
    before = tree.rss
    node._memory._add_files_in_memory([tree])
    assert before < 60 * MB
    assert tree.rss - before == pytest.approx(20 * MB, abs=MB)


async def test_a_pricer_of_another_agent_is_killed_with_the_same_reason(tmp_path: Path) -> None:
    """One agent decides for the machine, and the agent of the killed pricer reports memory pressure, not signal 9."""
    decides = agent_with(tmp_path, 400 * MB, "node-a")
    wait_until(lambda: decides._memory.decides)
    other = agent_with(tmp_path, 400 * MB, "node-b")
    try:
        decides.start(1, [order("steady", hog(60, 3.0))])
        wait_until(lambda: any(tree.rss > 60 * MB for tree in decides._memory._trees()))
        other.start(1, [order("hog", hog(300))])
        report = (await reports_of(other, 1))[AttemptId("hog", 1)]
        assert (report.outcome, report.crowded) == (PRESSURE, True)
        assert "node.memory_reserve" in (report.message or "")
        assert not other._memory.decides
        assert (await reports_of(decides, 1))[AttemptId("steady", 1)].exit_code == 0
        await asyncio.to_thread(decides.close)
        wait_until(lambda: other._memory.decides)
        other.start(1, [order("again", hog(400))])
        assert (await reports_of(other, 2))[AttemptId("again", 1)].outcome is PRESSURE
    finally:
        await asyncio.to_thread(decides.close)
        await asyncio.to_thread(other.close)


async def test_without_pressure_nothing_is_killed(node: NodeAgent) -> None:
    """A pricer within the available memory goes on, and signal 9 stays signal 9."""
    node.start(1, [order("fits", hog(100, 1.5)), order("killed", "kill -9 $$")])
    reports = await reports_of(node, 2)
    assert reports[AttemptId("fits", 1)].exit_code == 0
    assert reports[AttemptId("killed", 1)].outcome is Outcome.SIGNAL


@pytest.mark.parametrize("script", ["kill -9 $$", "sh -c 'kill -9 $$'; exit $?"])
async def test_a_kill_by_the_kernel_for_lack_of_memory_is_pressure(
    node: NodeAgent, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """If the kernel has just killed a process for lack of memory, SIGKILL is no answer, nor a shell's 137."""
    before = node._memory._kill_reasons._kernel[0][1]
    monkeypatch.setattr("raygrid.node.limits.kill_reasons.kernel_kills", lambda: before + 1)
    node.start(1, [order("j", script)])
    report = (await reports_of(node, 1))[AttemptId("j", 1)]
    assert (report.outcome, report.crowded) == (PRESSURE, False)
    assert "killed by the kernel" in (report.message or "")


async def test_the_kernel_prefers_pricers_with_all_that_they_started(node: NodeAgent, tmp_path: Path) -> None:
    """A pricer that has run for a moment has a raised score, its children too; the agent's own stays."""
    own = int(Path("/proc/self/oom_score_adj").read_text())
    node.start(1, [order("j", f"echo $$ > {tmp_path}/shell; sleep 100 & echo $! > {tmp_path}/child; wait")])
    wait_until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
    pids = [int((tmp_path / name).read_text()) for name in ("shell", "child")]
    raised = min(1000, own + 800)
    wait_until(lambda: all(int(Path(f"/proc/{pid}/oom_score_adj").read_text()) == raised for pid in pids))
    assert int(Path("/proc/self/oom_score_adj").read_text()) == own


def test_a_verdict_is_left_for_agents_of_the_same_grid_only(tmp_path: Path) -> None:
    """A pricer may give a child any mark; none makes an agent write elsewhere, and an old verdict is not another's."""
    life = "0123456789abcdef" * 2
    root, nodes = tmp_path / "nodes" / "n", str(tmp_path / "nodes")
    reasons = KillReasons(root, life)
    reasons.open()
    reason = KillReason("too large", crowded=True)
    began = time.monotonic()
    assert leave_kill_reason(nodes, f"{root}|{life}|j.1", 7, reason)
    assert reasons.of(8, began) is None
    assert reasons.of(7, began) == reason
    assert reasons.of(7, began) is None, "it is reported once"
    assert leave_kill_reason(nodes, f"{root}|{life}|j.1", 7, reason)
    assert reasons.of(7, time.monotonic()) is None, "it was about an earlier process of that number"
    for mark in (f"/etc|{life}|j.1", f"{nodes}/..|{life}|j.1", f"{root}|../../x|j.1", f"{root}/x|{life}|j.1", "", "||"):
        assert not leave_kill_reason(nodes, mark, 7, reason)
    (root / "killed" / life / "9").symlink_to(tmp_path / "victim")
    (tmp_path / "victim").write_text("precious")
    leave_kill_reason(nodes, f"{root}|{life}|j.1", 9, reason)
    assert (tmp_path / "victim").read_text() == "precious"
    KillReasons(root, "f" * 32).open()
    assert [each.name for each in (root / "killed").iterdir()] == ["f" * 32]
