"""Warm pricers on a node agent: start-up is paid once, and any failure costs only the current job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from raygrid.models import AttemptId, Outcome
from raygrid.node.limits.watchdog import SWEEP_S
from tests.support.http import manifest, unzip
from tests.support.lone_agent import wait_until
from tests.support.small_grid import SmallGrid
from tests.support.warm import ROOT, RUNS_ITS_INPUT, SPEAKS_RAW, Done, WarmNode, is_running

MB = 1024**2


def ended(done: Done) -> tuple[Outcome, int | None, int | None]:
    """How a job ended: outcome, exit code, signal."""
    return done.report.outcome, done.report.exit_code, done.report.signal


FINE = (Outcome.EXITED, 0, None)


async def assert_goes_on(node: WarmNode, *, starts: int) -> None:
    """The next job is run as the first of a new process, and no other was started."""
    done = await node.run("after", "print('fine')" if node.program.read_text() == RUNS_ITS_INPUT else "answer()")
    assert (ended(done), done.manifest["warm_job"], node.started) == (FINE, 1, starts), done.stderr


# --- normal operation -----------------------------------------------------------------------------------------------


async def test_start_up_is_paid_once(tmp_path: Path) -> None:
    """Twenty jobs in one slot are run by one process, each with its own files and output, as the manifest shows."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT) as node:
        script = "print('out', job.job_id); print('err', file=sys.stderr); open('prices.csv', 'w').write(job.job_id)"
        node.start(*((f"job-{number}", script) for number in range(20)))
        for number in range(20):
            done = await node.done(f"job-{number}")
            assert ended(done) == FINE, done.stderr
            assert (done.stdout, done.stderr) == (f"out job-{number}\n", "err\n")
            assert done.files["prices.csv"] == f"job-{number}"
            assert (done.manifest["warm"], done.manifest["warm_job"]) == (True, number + 1)
        assert node.started == 1
    assert node.pids == []


async def test_a_job_gets_what_a_cold_one_would_get(tmp_path: Path) -> None:
    """Input, job directory, args and shared data are those of the job, and so are descriptors and environment."""
    script = (
        "print(job.input.name, list(job.args), job.market, {n: p.read_text() for n, p in job.data.items()});"
        "print(job.output_dir == Path.cwd() == job.input.parent, os.environ['RAYGRID_JOB_ID'], os.read(0, 1));"
        "subprocess.run(['echo', 'child'], check=True); print('RAYGRID_WARM' in os.environ)"
    )
    with WarmNode(tmp_path, RUNS_ITS_INPUT) as node:
        await node.run("before", "print('x')", args=("other",))
        data = node.share("curves", "eur 1.5")
        done = await node.run("job", script, args=("--scale", 'a "b" ü\n'), data=[data])
    assert ended(done) == FINE, done.stderr
    lines = done.stdout.splitlines()
    assert "input.py ['--scale', 'a \"b\" ü\\n'] {'curves': 'eur 1.5'} {'curves': 'eur 1.5'}" in lines
    assert "True job b''" in lines
    assert "child" in lines
    assert "False" in lines


async def test_shared_data_is_loaded_once_for_each_content(tmp_path: Path) -> None:
    """`setup` is called once for a set of shared data, by content and not by file, and again for another."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT) as node:
        eur, usd = node.share("curves", "eur"), node.share("curves", "usd")
        for number, data in enumerate([eur, eur, usd, eur, usd]):
            done = await node.run(f"job-{number}", "print(job.market['curves'])", data=[data])
            assert done.stdout == ("eur\n" if data is eur else "usd\n")
        assert (node.started, node.setups) == (1, 2)


async def test_words_of_the_command_are_those_of_a_cold_one(tmp_path: Path) -> None:
    """Doubled braces in a command reach the program as single ones."""
    command = (sys.executable, str(tmp_path / "program.py"), "--set={{x}}")
    with WarmNode(tmp_path, RUNS_ITS_INPUT, command=command) as node:
        assert (await node.run("job", "print(sys.argv[1])")).stdout == "--set={x}\n"


async def test_slots_are_never_exceeded(tmp_path: Path) -> None:
    """However many jobs wait, no more than `slots` run at once, in as many processes, and with enough work no fewer."""
    log = tmp_path / "log"
    script = f"log = open({str(log)!r}, 'a', 1); log.write('+\\n'); time.sleep(0.05); log.write('-\\n')"
    with WarmNode(tmp_path, RUNS_ITS_INPUT, slots=2) as node:
        node.start(*((f"job-{number}", script) for number in range(20)))
        for number in range(20):
            assert ended(await node.done(f"job-{number}")) == FINE
        assert (node.started, len(node.pids)) == (2, 2)
    running, most = 0, 0
    for line in log.read_text().split():
        running += 1 if line == "+" else -1
        most = max(most, running)
    assert (running, most) == (0, 2)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot open {path}/trade.csv", "cannot open trade.csv"),
        ("{path}/out/a.csv and '{path}/b.csv'", "out/a.csv and 'b.csv'"),
        ("nothing in {path}", "nothing in the job directory"),
        ("nothing in {path}: empty", "nothing in the job directory: empty"),
        ("/etc/hosts is not mine", "/etc/hosts is not mine"),
    ],
)
async def test_a_message_shows_no_path_of_the_node(tmp_path: Path, text: str, shown: str) -> None:
    """Messages for clients begin at the job directory, as for the pricer: its path is of no use to them."""
    answers = f"answer(exit_code=3, message={text!r}.format(path=job['output_dir']))"
    with WarmNode(tmp_path, SPEAKS_RAW) as node:
        done = await node.run("job", answers)
    assert done.report.message == f"the pricer exited with code 3: {shown}"
    assert done.manifest["message"] == done.report.message


@pytest.mark.parametrize(
    ("script", "code", "fragment"),
    [
        ("sys.exit(3)", 3, ""),
        ("raise ValueError('no such curve')", 1, "ValueError: no such curve"),
        ("sys.exit('no such curve')", 1, "no such curve\n"),
        ("raise KeyboardInterrupt", 1, "KeyboardInterrupt"),
    ],
)
async def test_a_failure_is_an_answer_and_costs_no_process(
    tmp_path: Path, script: str, code: int, fragment: str
) -> None:
    """The job ends with the exit code that a cold program would have; the process takes the next job."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT) as node:
        done = await node.run("job", script)
        assert ended(done) == (Outcome.EXITED, code, None)
        assert fragment in done.stderr
        assert fragment.strip() in (done.report.stderr_tail or "")
        assert (await node.run("next", "print('fine')")).manifest["warm_job"] == 2


async def test_output_of_a_c_library_belongs_to_its_job(tmp_path: Path) -> None:
    """Output in a C library's buffer comes with its job, not with the next one."""
    script = "import ctypes; ctypes.CDLL(None).printf(b'from c by %s', job.job_id.encode())"
    with WarmNode(tmp_path, RUNS_ITS_INPUT) as node:
        for job_id in ("one", "two"):
            assert (await node.run(job_id, script)).stdout == f"from c by {job_id}"


async def test_a_program_runs_warm_and_cold_over_http(tmp_path: Path) -> None:
    """Through the whole grid the same program answers alike; a new version of it is run by a new process."""
    program = tmp_path / "program.py"
    program.write_text(RUNS_ITS_INPUT, encoding="utf-8")
    env = {"PYTHONPATH": str(ROOT), "STARTS": str(tmp_path / "starts")}
    warm = {"command": [sys.executable, str(program)], "mode": "warm", "env": env}
    pricers = {"warm": warm, "cold": {"command": [sys.executable, str(program), "{input}", "{args}"], "env": env}}
    script = "print(job.job_id[-1], job.input.name, list(job.args)); Path('out').write_text('x'); assert not job.market"
    async with SmallGrid(tmp_path / "grid", pricers=pricers, slots=1) as grid:
        for pricer, job_id, turn in (("warm", "a-1", 1), ("cold", "b-1", None), ("warm", "c-1", 2)):
            answer = await grid.submit(job_id, script, pricer=pricer, args=["--scale", "2"])
            assert unzip(answer)["stdout.txt"] == b"1 job.sh ['--scale', '2']\n"
            assert (manifest(answer)["warm"], manifest(answer)["warm_job"]) == (pricer == "warm", turn)
            assert unzip(answer)["out"] == b"x"
        failed = await grid.submit("d-1", "sys.exit(3)", pricer="warm")
        assert (failed.status_code, failed.json()["exit_code"]) == (422, 3)
        await grid.deploy(pricers={**pricers, "warm": {**warm, "version": "2"}})
        agent = grid.nodes["rack-a-1"].agent

        async def follows() -> bool:
            return agent._pricers["warm"].version == "2"

        await grid.until(follows)
        answer = await grid.submit("e-1", script, pricer="warm")
        assert (manifest(answer)["version"], manifest(answer)["warm_job"]) == ("2", 1)


# --- crashes and hangs ----------------------------------------------------------------------------------------------


async def test_a_crash_costs_the_current_job(tmp_path: Path) -> None:
    """The job gets the signal and its own stderr, nothing of the job before; the next one a new process."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT) as node:
        await node.run("before", "print('of the job before', file=sys.stderr)")
        script = "print('out'); print('about to crash', file=sys.stderr, flush=True); os.kill(os.getpid(), 11)"
        done = await node.run("crash", script)
        assert ended(done) == (Outcome.SIGNAL, None, 11)
        assert (done.stderr, done.report.stderr_tail) == ("about to crash\n", "about to crash\n")
        assert done.manifest["warm_job"] == 2
        await assert_goes_on(node, starts=2)


async def test_an_exit_in_the_middle_is_the_jobs_exit(tmp_path: Path) -> None:
    """A program that exits without an answer has ended its job with that exit code."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT) as node:
        assert ended(await node.run("leaves", "os._exit(7)")) == (Outcome.EXITED, 7, None)
        await assert_goes_on(node, starts=2)


async def test_a_hang_ends_at_the_wall_limit(tmp_path: Path) -> None:
    """A job that hangs is killed with everything it started; its output until then is kept."""
    pids = tmp_path / "pids"
    script = (
        "child = subprocess.Popen(['sleep', '1000']);"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}');"
        "print('so far', flush=True); time.sleep(1000)"
    )
    with WarmNode(tmp_path, RUNS_ITS_INPUT) as node:
        done = await node.run("hangs", script, timeout_s=1.5)
        assert done.report.outcome is Outcome.TIMEOUT
        assert done.stdout == "so far\n"
        assert not any(is_running(int(pid)) for pid in pids.read_text().split())
        await assert_goes_on(node, starts=2)


async def test_a_hang_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """It is killed after the grace."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT, timeout_s=1.5) as node:
        script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(1)"
        assert (await node.run("hangs", script)).report.outcome is Outcome.TIMEOUT
        await assert_goes_on(node, starts=2)


async def test_a_cancelled_job_takes_its_process_along(tmp_path: Path) -> None:
    """Cancelling kills what runs, and the next job gets a new process."""
    gate = tmp_path / "gate"
    with WarmNode(tmp_path, RUNS_ITS_INPUT) as node:
        node.start(("job", f"open({str(gate)!r}, 'w'); time.sleep(1000)"))
        wait_until(gate.exists)
        node.agent.stop(1, [AttemptId("job", 1)])
        assert (await node.done("job")).report.outcome is Outcome.CANCELLED
        await assert_goes_on(node, starts=2)


async def test_the_memory_limit_counts_the_process_tree(tmp_path: Path) -> None:
    """A job whose process and children use too much is killed with that reason; the next one gets a new process."""
    script = "subprocess.run([sys.executable, '-c', 'x = bytearray(200_000_000); import time; time.sleep(100)'])"
    with WarmNode(tmp_path, RUNS_ITS_INPUT, memory=150 * MB) as node:
        assert (await node.run("large", script)).report.outcome is Outcome.MEMORY_LIMIT
        await assert_goes_on(node, starts=2)


async def test_the_output_limit_holds(tmp_path: Path) -> None:
    """A job that writes too much is stopped, in one file or in many, and the next one gets a process that works."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT, output=2 * MB) as node:
        many = "for n in range(100): open(f'{n}', 'wb').write(bytes(100_000))\ntime.sleep(1000)"
        assert (await node.run("many", many)).report.outcome is Outcome.OUTPUT_LIMIT
        await assert_goes_on(node, starts=2)
        one = await node.run("one", "open('large', 'wb').write(bytes(3_000_000))")
        assert one.report.outcome is Outcome.OUTPUT_LIMIT or "File too large" in one.stderr


async def test_a_program_that_cannot_load_ends_each_job_as_a_cold_one_would(tmp_path: Path) -> None:
    """Each job gets exit code and stderr of one start; the start is not repeated without end."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT.replace("def setup", "import no_such_module\n\n\ndef setup")) as node:
        for number in range(2):
            done = await node.run(f"job-{number}", "")
            assert ended(done) == (Outcome.EXITED, 1, None)
            assert "No module named 'no_such_module'" in done.stderr
            assert node.started == number + 1


async def test_a_program_that_is_not_there_cannot_start(tmp_path: Path) -> None:
    """A missing program is reported as for a cold pricer."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT, command=("/nowhere/pricer",)) as node:
        report = (await node.run("job", "")).report
        assert report.outcome is Outcome.CANNOT_START
        assert "/nowhere/pricer" in (report.message or "")


# --- replacing ------------------------------------------------------------------------------------------------------


async def test_a_process_is_replaced_after_so_many_jobs(tmp_path: Path) -> None:
    """With `recycle_after: 2` every process runs two jobs, and those replaced end."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT, recycle_after=2) as node:
        turns = [(await node.run(f"job-{number}", "print('x')")).manifest["warm_job"] for number in range(5)]
        assert (turns, node.started) == ([1, 2, 1, 2, 1], 3)
        wait_until(lambda: len(node.pids) == 1)


async def test_a_process_that_has_grown_is_replaced_between_jobs(tmp_path: Path) -> None:
    """Above `recycle_memory` the job at hand ends well, and the next one gets a new process."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT, recycle_memory=150 * MB) as node:
        grows = "import builtins; builtins.kept = bytearray(os.urandom(1)) * 200_000_000"
        assert ended(await node.run("small", "print('x')")) == FINE
        done = await node.run("grows", grows)
        assert (ended(done), done.manifest["warm_job"]) == (FINE, 2)
        assert done.manifest["max_rss_bytes"] > 200_000_000
        await assert_goes_on(node, starts=2)


async def test_a_process_that_died_between_jobs_is_replaced(tmp_path: Path) -> None:
    """The next job runs on a new process and is not affected."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT) as node:
        await node.run("job", "print('x')")
        [pid] = node.pids
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_running(pid))
        await assert_goes_on(node, starts=2)


async def test_a_process_that_dies_before_it_takes_the_job_is_not_the_jobs_fault(tmp_path: Path) -> None:
    """A job that was handed over but never read runs on a new process."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT) as node:
        await node.run("job", "print('x')")
        [pid] = node.pids
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: b") T " in Path(f"/proc/{pid}/stat").read_bytes())  # until then it may read on
        node.start(("next", "print('fine')"))
        wait_until(lambda: (running := node.agent._watchdog.find(AttemptId("next", 1))) and running.pid == pid)
        os.kill(pid, signal.SIGKILL)
        done = await node.done("next")
        assert (ended(done), done.stdout, done.manifest["warm_job"]) == (FINE, "fine\n", 1)


async def test_a_new_deployment_replaces_what_was_started_before(tmp_path: Path) -> None:
    """Jobs of an older release never run in a process of older settings; those end soon, a busy one after its job."""
    gate = tmp_path / "gate"
    script = "print(os.environ['CURVE'])"
    with WarmNode(tmp_path, RUNS_ITS_INPUT, slots=2) as node:
        env = node.pricers["warm"].env

        def deploy(curve: str, at: float) -> None:
            node.agent.configure(1, {"warm": node.pricer(env={**env, "CURVE": curve})}, node.node, at)

        deploy("eur", 1.0)
        assert (await node.run("one", script)).stdout == "eur\n"
        before = node.pids
        deploy("usd", 2.0)
        wait_until(lambda: not any(map(is_running, before)))
        assert (await node.run("two", script)).stdout == "usd\n"
        node.start(("busy", f"print(os.environ['CURVE'])\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)"))
        wait_until(lambda: node.agent._watchdog.find(AttemptId("busy", 1)))
        deploy("gbp", 3.0)
        assert (await node.run("three", script)).stdout == "gbp\n"
        gate.touch()
        assert (await node.done("busy")).stdout == "usd\n"
        wait_until(lambda: len(node.pids) == 1)


async def test_the_number_of_loaded_pricers_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If many pricers take turns, those that waited longest are ended to make room."""
    monkeypatch.setattr("raygrid.node.warm.pool.KEPT_PER_SLOT", 2)
    with WarmNode(tmp_path, RUNS_ITS_INPUT) as node:
        node.agent.configure(1, {f"warm-{n}": node.pricer() for n in range(3)}, node.node, 1.0)
        for number in (0, 1, 2, 2, 1):
            done = await node.run(f"job-{number}-{node.started}-{len(node.pids)}", "", pricer=f"warm-{number}")
            assert ended(done) == FINE
            wait_until(lambda: len(node.pids) <= 2)
        assert node.started == 3
        assert (await node.run("first-again", "", pricer="warm-0")).manifest["warm_job"] == 1


# --- what jobs leave behind -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("own_session", [False, True])
async def test_a_child_that_outlives_its_job_is_killed(tmp_path: Path, own_session: bool) -> None:
    """It ends within seconds, and so does its warm process, which is not trusted any more."""
    pid = tmp_path / "pid"
    script = (
        f"child = subprocess.Popen(['sleep', '1000'], start_new_session={own_session});"
        f"open({str(pid)!r}, 'w').write(str(child.pid)); time.sleep(2.5)"
    )
    with WarmNode(tmp_path, RUNS_ITS_INPUT) as node:
        await node.run("first", "time.sleep(2.5)")  # long enough to be looked at
        assert ended(await node.run("leaves", script)) == FINE
        wait_until(lambda: not is_running(int(pid.read_text())))
        await assert_goes_on(node, starts=2)


@pytest.mark.parametrize("through_wrapper", [False, True])
async def test_what_a_brief_first_job_leaves_behind_is_killed(tmp_path: Path, through_wrapper: bool) -> None:
    """Only what ran before the first job was read may stay, also below a script that starts the program."""
    pid = tmp_path / "pid"
    script = f"open({str(pid)!r}, 'w').write(str(subprocess.Popen(['sleep', '1000']).pid))"
    with WarmNode(tmp_path, RUNS_ITS_INPUT) as node:
        if through_wrapper:
            wrapper = tmp_path / "wrapper.sh"
            wrapper.write_text(f"{sys.executable} {node.program}\nexit $?\n")
            node.agent.configure(1, {"warm": node.pricer(command=["sh", str(wrapper)])}, node.node, 1.0)
        assert ended(await node.run("leaves", script)) == FINE
        wait_until(lambda: not is_running(int(pid.read_text())))
        assert (await node.run("next", "print('x')")).manifest["warm_job"] == 1


LEAVES_A_DAEMON = "subprocess.run(['sh', '-c', 'setsid sleep 1000 & echo $! > {pid}'], check=True); time.sleep(1.5)"


async def test_a_daemon_of_a_job_is_killed_where_helpers_are_forbidden(tmp_path: Path) -> None:
    """An orphan in a session of its own ends with its job, and the process stays."""
    pid = tmp_path / "pid"
    script = LEAVES_A_DAEMON.replace("{pid}", str(pid))
    with WarmNode(tmp_path, RUNS_ITS_INPUT, helpers="forbid") as node:
        assert ended(await node.run("daemon", script)) == FINE
        wait_until(lambda: not is_running(int(pid.read_text())))
        assert (await node.run("next", "print('x')")).manifest["warm_job"] == 2


async def test_a_daemon_of_a_job_lives_while_a_process_of_its_pricer_is_loaded(tmp_path: Path) -> None:
    """A loaded program may need it between jobs, as one under wine needs wine's server; without it, it lingers."""
    pid = tmp_path / "pid"
    script = LEAVES_A_DAEMON.replace("{pid}", str(pid))
    with WarmNode(tmp_path, RUNS_ITS_INPUT, recycle_after=2, node={"helper_linger_s": 0.5}) as node:
        assert ended(await node.run("daemon", script)) == FINE
        daemon = int(pid.read_text())
        time.sleep(3 * SWEEP_S)
        assert is_running(daemon)
        assert (await node.run("next", "print('x')")).manifest["warm_job"] == 2
        wait_until(lambda: not is_running(daemon))


async def test_a_helper_that_was_there_from_the_start_stays(tmp_path: Path) -> None:
    """Children that a program starts while it loads are its own, over many jobs."""
    program = RUNS_ITS_INPUT.replace("def setup", "helper = subprocess.Popen(['sleep', '1000'])\n\n\ndef setup")
    with WarmNode(tmp_path, program) as node:
        for number in range(3):
            script = "time.sleep(1.2); assert helper.poll() is None; print(helper.pid)"
            done = await node.run(f"job-{number}", script)
            assert (ended(done), done.manifest["warm_job"]) == (FINE, number + 1), done.stderr
        helper = int(done.stdout)
        assert is_running(helper)
    assert not is_running(helper)


async def test_a_helper_that_is_started_late_while_the_program_loads_stays(tmp_path: Path) -> None:
    """Until a process has read its first job it loads, however long that takes."""
    late = f"time.sleep({2.5 * SWEEP_S})\nhelper = subprocess.Popen(['sleep', '1000'])\n\n\ndef setup"
    with WarmNode(tmp_path, RUNS_ITS_INPUT.replace("def setup", late)) as node:
        for number in range(3):
            done = await node.run(f"job-{number}", f"time.sleep({1.2 * SWEEP_S}); assert helper.poll() is None")
            assert (ended(done), done.manifest["warm_job"]) == (FINE, number + 1), done.stderr


async def test_an_idle_process_is_left_alone(tmp_path: Path) -> None:
    """A process that waits for its next job is no orphan, however often the watchdog looks."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT) as node:
        await node.run("job", "print('x')")
        time.sleep(3.5 * SWEEP_S)
        assert (await node.run("next", "print('x')")).manifest["warm_job"] == 2


async def test_a_process_that_is_not_needed_may_end_by_itself(tmp_path: Path) -> None:
    """If it is replaced, or idle when the agent closes, its stdin is closed and it has the grace to end."""
    ends = tmp_path / "ends"
    with WarmNode(tmp_path, SPEAKS_RAW + f"\nopen({str(ends)!r}, 'a').write('x')\n", recycle_after=2) as node:
        for number in range(3):
            await node.run(f"job-{number}", "answer()")
        wait_until(lambda: ends.exists() and ends.read_text() == "x")
    assert ends.read_text() == "xx"
    with WarmNode(tmp_path / "deaf", SPEAKS_RAW + "\ntime.sleep(1000)\n") as node:
        await node.run("job", "answer()")
        [pid] = node.pids
    assert not is_running(pid)


async def test_closing_leaves_nothing(tmp_path: Path) -> None:
    """A closed agent has no process, thread or file of a warm pricer left, idle or busy."""
    before = set(threading.enumerate())
    with WarmNode(tmp_path, RUNS_ITS_INPUT, slots=2) as node:
        await node.run("idle", "print('x')")
        node.start(("busy", "os.fork(); time.sleep(1000)"), ("other", "os.fork(); time.sleep(1000)"))
        wait_until(lambda: len(node.pids) == 4)
    assert {thread for thread in threading.enumerate() if thread.name.startswith("raygrid")} <= before
    assert node.pids == []
    assert list((node.root / "jobs").iterdir()) == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_agent_leaves_nothing(tmp_path: Path, end: signal.Signals) -> None:
    """After the end of an agent its warm processes are gone, idle and busy ones, with children and files."""
    node = WarmNode(tmp_path, RUNS_ITS_INPUT)
    command = [sys.executable, "-m", "tests.support.warm", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        wait_until(lambda: len(node.pids) >= 4)
        process.send_signal(end)
        process.wait(timeout=15)
    wait_until(lambda: not node.pids, within_s=8)
    wait_until(lambda: not list((node.root / "jobs").iterdir()), within_s=5)


# --- the pipe -------------------------------------------------------------------------------------------------------


async def test_lines_of_earlier_jobs_never_reach_the_next(tmp_path: Path) -> None:
    """A second answer, one in advance, and half a line are gone when the next job begins."""
    stale = """
text = json.dumps({"number": job["number"], "exit_code": 0}) + "\\n"
text += text + json.dumps({"number": job["number"] + 1, "exit_code": 9}) + "\\n" + '{"number": 2, "exit'
say(text)
"""
    with WarmNode(tmp_path, SPEAKS_RAW) as node:
        assert ended(await node.run("one", stale)) == FINE
        assert (
            ended(
                await node.run(
                    "two",
                    'say(text.partition(chr(10))[0] + chr(10)); time.sleep(0.3); answer(exit_code=5, message="late")',
                )
            )[1]
            == 5
        )
        done = await node.run("three", "answer(exit_code=6, message='no\\x00 curve')")
        assert ended(done)[1] == 6
        assert done.report.message == "the pricer exited with code 6: no  curve"
        assert (done.manifest["warm_job"], node.started) == (3, 1)


async def test_an_answer_in_halves_among_garbage_is_read(tmp_path: Path) -> None:
    """Lines that are no answer are dropped, and half an answer delays nothing but its own job."""
    script = """
say('\\n\\nloading...\\n[1, 2]\\n{"number": "1"}\\n{"number": true, "exit_code": 8}\\n{broken\\n')
say("x" * 200_000 + "\\n")
say('{"number": 1, "ex')
time.sleep(0.4)
say('it_code": 4}\\n')
"""
    with WarmNode(tmp_path, SPEAKS_RAW) as node:
        assert ended(await node.run("halves", script)) == (Outcome.EXITED, 4, None)
        done = await node.run("half", "say('{\"number\": 2, ')\ntime.sleep(1000)", timeout_s=1.0)
        assert done.report.outcome is Outcome.TIMEOUT
        await assert_goes_on(node, starts=2)


@pytest.mark.parametrize("flood", ["'x' * 65_536", "'{}\\\\n' * 10_000"])
async def test_a_flood_of_output_ends_the_process(tmp_path: Path, flood: str) -> None:
    """A pricer that prints without end is killed at its output limit."""
    with WarmNode(tmp_path, SPEAKS_RAW, output=2 * MB) as node:
        done = await node.run("floods", f"while True: say({flood})".replace("\\\\", "\\"))
        assert done.report.outcome is Outcome.OUTPUT_LIMIT
        await assert_goes_on(node, starts=2)


async def test_a_flood_between_jobs_is_not_the_next_jobs_fault(tmp_path: Path) -> None:
    """A process that prints without end after its answer is replaced before it takes another job."""
    with WarmNode(tmp_path, SPEAKS_RAW) as node:
        flood = "say(json.dumps({'number': 1, 'exit_code': 0}) + chr(10) + 'x' * 1_000_000)"
        assert ended(await node.run("one", flood)) == FINE
        await assert_goes_on(node, starts=2)


async def test_a_long_line_after_an_answer_is_not_joined_to_the_next_one(tmp_path: Path) -> None:
    """A process that has begun a long line with its answer, and may be far from its end, gets no further job."""
    with WarmNode(tmp_path, SPEAKS_RAW) as node:
        begun = "say(json.dumps({'number': 1, 'exit_code': 0}) + chr(10) + 'x' * 5_000)"
        assert ended(await node.run("one", begun)) == FINE
        await assert_goes_on(node, starts=2)


@pytest.mark.parametrize("code", ["'zero'", "256", "-1", "None", "True", "1.5"])
async def test_an_answer_that_means_nothing_is_an_error(tmp_path: Path, code: str) -> None:
    """An exit code that is none ends the job with a sentence about it, and the process."""
    with WarmNode(tmp_path, SPEAKS_RAW) as node:
        report = (await node.run("odd", f"answer(exit_code={code})")).report
        assert report.outcome is Outcome.BAD_OUTPUT
        assert "exit_code" in (report.message or "")
        await assert_goes_on(node, starts=2)


async def test_a_closed_stdout_ends_the_job(tmp_path: Path) -> None:
    """A process from which no answer can come does not hold its slot until the wall limit."""
    with WarmNode(tmp_path, SPEAKS_RAW) as node:
        report = (await node.run("mute", "os.close(1); time.sleep(1000)")).report
        assert report.outcome is Outcome.BAD_OUTPUT
        assert "closed its stdout" in (report.message or "")
        await assert_goes_on(node, starts=2)


async def test_an_answer_right_before_the_end_counts(tmp_path: Path) -> None:
    """A program that answers and ends at once has answered, even if a child keeps its stdout."""
    script = "import subprocess; subprocess.Popen(['sleep', '1000']); answer(exit_code=2); os._exit(9)"
    with WarmNode(tmp_path, SPEAKS_RAW) as node:
        assert ended(await node.run("last", script)) == (Outcome.EXITED, 2, None)
        assert (
            ended(await node.run("dies", "import subprocess; subprocess.Popen(['sleep', '1000']); os._exit(9)"))[1] == 9
        )
        await assert_goes_on(node, starts=3)


async def test_a_line_longer_than_the_pipe_arrives(tmp_path: Path) -> None:
    """A job with long args is handed over piece by piece, and one that is never read ends at the wall limit."""
    with WarmNode(tmp_path, SPEAKS_RAW) as node:
        args = ("x" * 100_000, "y" * 100_000)
        done = await node.run("long", "answer(exit_code=len(job['args'][1]) // 1000)", args=args)
        assert ended(done)[1] == 100
    with WarmNode(tmp_path / "deaf", "import time; time.sleep(1000)", timeout_s=1.0) as node:
        assert (await node.run("deaf", "", args=args)).report.outcome is Outcome.TIMEOUT


async def test_stderr_of_the_process_itself_is_the_jobs(tmp_path: Path) -> None:
    """A program that does not use captures still has its stderr in its job's result."""
    with WarmNode(tmp_path, SPEAKS_RAW) as node:
        for word in ("one", "two"):
            script = f"print('{word}', file=sys.stderr, flush=True); answer()"
            assert (await node.run(word, script)).stderr == f"{word}\n"


# --- forks ----------------------------------------------------------------------------------------------------------


async def test_a_crash_in_a_fork_costs_no_loading(tmp_path: Path) -> None:
    """With `fork=True` nothing of a job stays, and after a crash the loaded process goes on, with its market."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT, fork=True) as node:
        data = [node.share("curves", "eur")]
        crash = "print('out'); print('err', file=sys.stderr, flush=True); sys.stdout.flush(); os.kill(os.getpid(), 11)"
        done = await node.run("crash", crash, data=data)
        assert ended(done) == (Outcome.SIGNAL, None, 11)
        assert (done.stdout, done.stderr, done.report.stderr_tail) == ("out\n", "err\n", "err\n")
        done = await node.run("sets", "import builtins; builtins.stays = 1; print(job.market); sys.exit(4)", data=data)
        assert (ended(done)[1], done.stdout) == (4, "{'curves': 'eur'}\n")
        done = await node.run("looks", "import builtins; print(hasattr(builtins, 'stays'))", data=data)
        assert (done.stdout, done.manifest["warm_job"], node.started, node.setups) == ("False\n", 3, 1, 1)


async def test_a_hang_in_a_fork_is_killed(tmp_path: Path) -> None:
    """The wall limit ends the fork and the process that made it."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT, fork=True) as node:
        assert (await node.run("hangs", "time.sleep(1000)", timeout_s=1.5)).report.outcome is Outcome.TIMEOUT
        wait_until(lambda: not node.pids)
        await assert_goes_on(node, starts=2)
