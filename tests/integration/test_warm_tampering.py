"""Warm pricers that break the protocol: each costs the current job, never the slot or the next job."""

from __future__ import annotations

from pathlib import Path

import pytest

from raygrid.models import Outcome
from raygrid.node.warm import pool
from raygrid.node.warm.protocol import MOST_LINE
from tests.support.lone_agent import wait_until
from tests.support.warm import RUNS_ITS_INPUT, SPEAKS_RAW, WarmNode, is_running


async def assert_goes_on(node: WarmNode) -> None:
    """The slot runs another job."""
    done = await node.run("after", "print('fine')" if node.program.read_text() == RUNS_ITS_INPUT else "answer()")
    assert done.report.exit_code == 0, done.report.message


@pytest.mark.parametrize("how", ["'x' * 70_000", "'x' * 70_000 + chr(10) * 3", "'x' * 1_000_000"])
async def test_an_answer_that_is_too_long_is_an_error(tmp_path: Path, how: str) -> None:
    """The job does not wait for its time limit, and its error names the limit."""
    with WarmNode(tmp_path, SPEAKS_RAW) as node:
        done = await node.run("long", f"answer(message={how}); time.sleep(100)")
        assert done.report.outcome is Outcome.BAD_OUTPUT
        assert f"more than {MOST_LINE} bytes" in (done.report.message or "")
        await assert_goes_on(node)


@pytest.mark.parametrize(
    "close", ["sys.stdout.close()", "os.close(1)", "sys.stdout = sys.stderr = None", "sys.stdin.close()"]
)
@pytest.mark.parametrize("fork", [False, True])
async def test_a_job_that_closes_its_streams_takes_none_from_the_next(tmp_path: Path, close: str, fork: bool) -> None:
    """A job may end with its streams closed or replaced; the next one of the same process prints as usual."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT, fork=fork) as node:
        closed = await node.run("closes", f"print('before', flush=True); {close}")
        assert (closed.report.exit_code, closed.stdout) == (0, "before\n"), closed.stderr
        for job_id in ("one", "two"):
            done = await node.run(job_id, "print(job.job_id, sys.stdin.read()); print('err', file=sys.stderr)")
            assert (done.report.exit_code, done.stdout, done.stderr) == (0, f"{job_id} \n", "err\n")
        assert node.started == 1


async def test_the_number_of_ending_processes_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that ignore the request to end do not pile up, however fast they are replaced."""
    monkeypatch.setattr(pool, "ENDING_PER_SLOT", 2)
    deaf = SPEAKS_RAW + "\nwhile True:\n    time.sleep(1)\n"
    pids = tmp_path / "pids"
    with WarmNode(tmp_path, deaf, recycle_after=1) as node:
        node.agent._watchdog.grace_s = 1_000
        for number in range(8):
            done = await node.run(f"job-{number}", f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n'); answer()")
            assert done.report.exit_code == 0
            assert len([pid for pid in map(int, pids.read_text().split()) if is_running(pid)]) <= 2 + 2
        node.agent._watchdog.grace_s = 0.0
        for process in list(node.agent._runner.warm._ending):  # type: ignore[union-attr]  # it is open
            process.hurry()
    wait_until(lambda: node.pids == [])


@pytest.mark.parametrize("put", ["os.mkfifo(path)", "os.symlink('/etc/passwd', path)", "os.mkdir(path)"])
@pytest.mark.parametrize("which", ["stdout", "stderr"])
async def test_something_else_in_the_place_of_a_capture_is_bad_output(tmp_path: Path, put: str, which: str) -> None:
    """The slot waits for no pipe and follows no link, and the reason is reported."""
    with WarmNode(tmp_path, SPEAKS_RAW) as node:
        script = f"path = job['{which}']\nif os.path.exists(path):\n    os.unlink(path)\n{put}\n"
        done = await node.run("bad", script + "sys.stderr.write('said'); sys.stderr.flush(); answer()")
        assert done.report.outcome is Outcome.BAD_OUTPUT
        assert f"replaced its {which}" in (done.report.message or "")
        assert "root" not in done.files["stdout.txt"] + done.files["stderr.txt"]
        await assert_goes_on(node)


@pytest.mark.parametrize("which", ["stdout", "stderr"])
async def test_a_hard_link_in_the_place_of_a_capture_is_neither_read_nor_written(tmp_path: Path, which: str) -> None:
    """What the process prints to its own stderr is not appended to the linked file."""
    secret = tmp_path / "secret"
    secret.write_text("of the grid")
    with WarmNode(tmp_path, SPEAKS_RAW, sandbox="off") as node:  # a sandbox refuses such a link
        script = (
            f"path = job['{which}']\nif os.path.exists(path):\n    os.unlink(path)\nos.link({str(secret)!r}, path)\n"
        )
        done = await node.run("bad", script + "sys.stderr.write('said'); sys.stderr.flush(); answer()")
        assert done.report.outcome is Outcome.BAD_OUTPUT
        assert f"replaced its {which} by a hard link" in (done.report.message or "")
        assert "of the grid" not in done.files["stdout.txt"] + done.files["stderr.txt"] + (
            done.report.stderr_tail or ""
        )
        assert secret.read_text() == "of the grid"
        await assert_goes_on(node)


@pytest.mark.parametrize(
    "put", ["os.unlink(path)", "os.unlink(path); os.mkfifo(path)", "os.unlink(path); os.mkdir(path)"]
)
async def test_a_process_that_changes_its_own_log_goes_on(tmp_path: Path, put: str) -> None:
    """Its stderr reaches its jobs, also if the file has another name by then."""
    with WarmNode(tmp_path, SPEAKS_RAW) as node:
        log = "import glob; path = glob.glob(os.getcwd() + '*stderr')[0]"
        say = "sys.stderr.write('said'); sys.stderr.flush(); answer()"
        assert (await node.run("bad", f"{log}; {put}; {say}")).stderr == "said"
        assert (await node.run("next", say)).stderr == "said"
        assert node.started == 1
    assert not any(node.agent._workspace.jobs.parent.rglob("@warm*"))
