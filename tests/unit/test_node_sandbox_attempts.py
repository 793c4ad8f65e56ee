"""What attempts do and leave in their sandboxes: ordinary work goes on, and the next attempt finds nothing of it."""

from __future__ import annotations

import pytest

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
