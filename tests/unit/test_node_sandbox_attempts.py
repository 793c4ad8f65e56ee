"""What attempts do and leave in their sandboxes: ordinary work goes on, and the next attempt finds nothing of it."""

from __future__ import annotations

import pytest

from raygrid.node.agent import NodeAgent
from tests.support.lone_agent import SHELL
from tests.support.sandboxed import NEEDS_MOUNTS, contents, printed, run_each, sandboxing_agent

pytestmark = [pytest.mark.processes, NEEDS_MOUNTS]


# --- ordinary work --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["protect", "strict"])
async def test_a_large_result_outlives_its_sandbox(mode: str) -> None:
    """A result that is made on disk is stored, though its sandbox was ended because of a file in it."""
    pricers = {"shell": SHELL["shell"].model_copy(update={"sandbox": mode})}
    with sandboxing_agent(pricers=pricers) as agent:
        [report] = await run_each(agent, "head -c 5000000 /dev/zero > large; touch ../left")
        assert len(contents(agent, report)["large"]) == 5_000_000
        assert list(agent._workspace.jobs.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ('echo x > "$TMPDIR/new"; mv "$TMPDIR/new" result; cat result', "x\n"),
        ('echo x > "$TMPDIR/new"; ln "$TMPDIR/new" result; rm "$TMPDIR/new"; cat result', "x\n"),
        ("echo x > a; ln a b; rm a; cat b", "x\n"),
        ("echo x > /dev/stdout; echo y > /dev/stderr; echo z >> /proc/self/fd/1", "x\nz\n"),
        ('mkdir -p "$HOME/.cache" 2>&1; echo made', "made\n"),
        ("echo x > /dev/shm/x; cat /dev/shm/x", "x\n"),
        ("kill -0 $$; sleep 100 & kill $!; wait $! || echo killed", "killed\n"),
    ],
    ids=["rename", "link", "link-within", "streams", "mkdir", "shm", "signals"],
)
async def test_ordinary_work_goes_on_unchanged(script: str, found: str) -> None:
    """Temporary files become results without a copy, streams can be opened by name, own processes can be signalled."""
    with sandboxing_agent() as agent:
        [report] = await run_each(agent, script)
        assert printed(agent, report) == found


@pytest.mark.parametrize("mode", ["protect", "strict"])
@pytest.mark.parametrize("helpers", [None, ["some-daemon"]])
async def test_a_pricer_can_signal_no_thread_of_the_agent(mode: str, helpers: list[str] | None) -> None:
    """Landlock would let it reach the thread that started it, and a signal to a thread can end the agent."""
    own = {"sandbox": mode, "helpers": None if helpers is None else tuple(helpers)}
    with sandboxing_agent(pricers={"shell": SHELL["shell"].model_copy(update=own)}) as agent:
        script = "for t in $(ls /proc/$PPID/task); do kill -0 $t 2>/dev/null && echo $t; done; kill -0 $$ && echo own"
        [report] = await run_each(agent, script)
        assert printed(agent, report) == "own\n"


# --- what an attempt leaves -----------------------------------------------------------------------------------------


IPC = """python3 -c 'import ctypes; print(ctypes.CDLL(None).shmget(4711, 4096, {flags}) >= 0)'"""
QUEUE = """python3 -c 'import ctypes
print(ctypes.CDLL(None).mq_open(b"/raygrid-test", {flags}, 384, None) >= 0)'"""


async def after(agent: NodeAgent, leaves: str, finds: str = "true") -> tuple[list[str], list[str]]:
    """What two jobs print, the first of which leaves something, and what the second one finds; then their sandboxes."""
    reports = await run_each(agent, f"{leaves}\ndirname $PWD", f"{finds}\ndirname $PWD")
    lines = [printed(agent, report).splitlines() for report in reports]
    return [each[-1] for each in lines], lines[1][:-1]


async def test_a_sandbox_is_used_again_after_an_attempt_that_leaves_nothing() -> None:
    """Making one takes longer than a short job."""
    with sandboxing_agent() as agent:
        busy = "echo x > out; echo y > $TMPDIR/y; echo z > /dev/shm/z"
        boxes, _ = await after(agent, busy)
        reports = await run_each(agent, *["dirname $PWD"] * 10)
        assert {*boxes, *(printed(agent, report).strip() for report in reports)} == {
            str(agent._workspace.sandboxes / "1")
        }


@pytest.mark.parametrize(
    ("leaves", "finds"),
    [
        ("setsid sleep 61.71 > /dev/null 2>&1 &", "true"),
        ("touch ../left", "ls -A .. | grep left || true"),
        ("mkdir ../left; chmod 000 ../left", "ls -A .. | grep left || true"),
        ("touch $TMPDIR/../left", "ls -A $TMPDIR/.. | grep left || true"),
        ("mv $(dirname $TMPDIR) ../moved", "ls -A .. | grep moved || true"),
        ("rm -r $(dirname $TMPDIR); ln -s / ../tmp", "test ! -L ../tmp"),
        (IPC.format(flags="0o1600"), IPC.format(flags=0)),
        (QUEUE.format(flags="0o102"), QUEUE.format(flags="0o2")),
        (
            'python3 -c \'import os; os.setxattr("..", "user.left", b"x")\' 2> /dev/null',
            'python3 -c \'import os; [print(each) for each in os.listxattr("..") if each == "user.left"]\'',
        ),
    ],
    ids=["process", "file", "closed-directory", "temporary", "moved", "link", "segment", "queue", "attribute"],
)
async def test_a_sandbox_in_which_something_is_left_is_replaced(leaves: str, finds: str) -> None:
    """The attempt itself goes well; the next one finds nothing of it."""
    with sandboxing_agent() as agent:
        boxes, found = await after(agent, leaves, finds)
        assert boxes == [str(agent._workspace.sandboxes / number) for number in ("1", "2")]
        assert found in ([], ["False"])
        assert not (agent._workspace.sandboxes / "1").exists()


@pytest.mark.parametrize(
    ("leaves", "finds"),
    [
        ("chmod 000 ..", "ls -ld .. | cut -c1-10"),
        ("chmod 777 ..; chmod 000 $TMPDIR/..", "ls -ld .. | cut -c1-10"),
    ],
)
async def test_permissions_of_a_sandboxs_directory_do_not_outlive_an_attempt(leaves: str, finds: str) -> None:
    """The attempt's own result is found, and the next one has a directory that it can use."""
    with sandboxing_agent() as agent:
        _, found = await after(agent, f"echo x > out; {leaves}", finds)
        assert found == ["drwx------"]


@pytest.mark.parametrize("leaves", ["echo x > /dev/shm/left", "mkdir -p /dev/shm/a/b", "chmod 000 /dev/shm"])
async def test_shared_memory_is_as_new_for_each_attempt(leaves: str) -> None:
    """What is in it is removed, and it can be used again whatever permissions it had."""
    with sandboxing_agent() as agent:
        _, found = await after(agent, leaves, "ls -A /dev/shm; stat -c %a /dev/shm; echo x > /dev/shm/x; ls /dev/shm")
        assert found == ["1777", "x"]


async def test_default_permissions_do_not_outlive_an_attempt() -> None:
    """An access list on the sandbox's directory would lock the next attempt out of its own."""
    acl = "02000000" + "01000000ffffffff" + "04000000ffffffff" + "20000000ffffffff"
    set_it = f"""python3 -c 'import os
for each in ("..", os.environ["TMPDIR"] + "/..", "/dev/shm"):
    os.setxattr(each, "system.posix_acl_default", bytes.fromhex("{acl}"))'"""
    with sandboxing_agent() as agent:
        _, found = await after(agent, set_it, "mkdir sub; mkdir /dev/shm/sub; stat -c %a sub /dev/shm/sub")
        assert found == ["755", "755"]


async def test_an_attempt_that_failed_before_its_end_was_seen_ends_its_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of the node between start and end leaves a sandbox of which nothing is known."""
    with sandboxing_agent() as agent:
        await run_each(agent, "true")

        def fails(*_: object) -> None:
            raise RuntimeError("a defect")

        with monkeypatch.context() as broken:
            broken.setattr("raygrid.node.attempt.start.wait_for_child", fails)
            await run_each(agent, "exec sleep 60")
        [report] = await run_each(agent, "dirname $PWD")
        assert printed(agent, report).strip() == str(agent._workspace.sandboxes / "2")
