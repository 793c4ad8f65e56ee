"""Helper processes that jobs share on a node: started by the first job, used by later ones, and ended in time.

Real agents and processes. A server on a Unix socket stands in for wine's: it is started by the first job that needs it,
leaves its session, and a job that loses it ends with exit code 0 and no output.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.agent_process import AgentProcess, running_with
from tests.support.lone_agent import wait_until

SERVER = """
import os, signal, socket, sys, threading, time

place = sys.argv[1]
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
with open(place + ".starts", "a") as starts:
    starts.write(f"{os.getpid()}\\n")
dying = threading.Event()


def die(*_):
    dying.set()
    with open(place + ".ends", "a") as ends:
        ends.write(f"{os.getpid()}\\n")
    threading.Timer(0.2, os._exit, (0,)).start()


signal.signal(signal.SIGTERM, die)
listener = socket.socket(socket.AF_UNIX)
listener.bind(place + ".new")
listener.listen(64)
os.rename(place + ".new", place)


def serve(connection):
    with connection:
        number = connection.recv(100)
        if not dying.is_set():  # a server that dies answers no more, but still takes connections
            connection.sendall(b"price " + number)


while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
"""

CLIENT = """
import fcntl, os, socket, subprocess, sys, time

place, server, script, seconds = sys.argv[1:]
number = open(script).read()


def connect():
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(place)
    except OSError:
        return None
    return connection


connection = connect()
if connection is None:
    with open(place + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        while (connection := connect()) is None:
            subprocess.run([sys.executable, "-S", server, place], close_fds=False)
            until = time.monotonic() + 5
            while (connection := connect()) is None and time.monotonic() < until:
                time.sleep(0.01)
            if connection is not None:
                break
with connection:
    time.sleep(float(seconds))
    connection.sendall(number.encode())
    print(connection.recv(100).decode(), end="")  # nothing where the server is gone, and exit code 0
"""


class Served:
    """A pricer whose jobs share a server."""

    def __init__(self, directory: Path) -> None:
        self.place = directory / "socket"
        (directory / "server.py").write_text(SERVER)
        (directory / "client.py").write_text(CLIENT)
        self._client = ["/usr/bin/env", "python3", "-S", str(directory / "client.py")]
        self.pricer = {
            "command": [*self._client, str(self.place), str(directory / "server.py"), "{input}", "{args}"],
        }

    @property
    def servers(self) -> list[int]:
        """The servers that were started, in that order."""
        return self._pids("starts")

    @property
    def dying(self) -> list[int]:
        """Those that were asked to end, and take a moment for it."""
        return self._pids("ends")

    def _pids(self, what: str) -> list[int]:
        file = Path(f"{self.place}.{what}")
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    def live(self) -> list[int]:
        """Those that run."""
        return [pid for pid in self.servers if Path(f"/proc/{pid}").exists()]


@pytest.fixture
def served(tmp_path: Path) -> Served:
    """A pricer whose jobs share a server."""
    return Served(tmp_path)


def outputs(agent: AgentProcess, count: int) -> list[tuple[str, int | None, str]]:
    """Outcome, exit code and stdout of the jobs `job-0` and so on."""
    ended = agent.done(*(f"job-{number}" for number in range(count)))
    return [(each["outcome"], each["exit_code"], each["files"].get("stdout.txt", "")) for each in ended]


def right(count: int) -> list[tuple[str, int | None, str]]:
    return [("exited", 0, f"price {number}") for number in range(count)]


def test_jobs_share_the_server_that_the_first_one_started(tmp_path: Path, served: Served) -> None:
    """Jobs of mixed length on four slots are all right with one server, which lingers after the last one and ends."""
    with AgentProcess(tmp_path, {"served": served.pricer}, sweep_s=0.1, helper_linger_s=2.0) as agent:
        lengths = random.Random(1)
        for number in range(40):
            agent.run(f"job-{number}", str(number), "served", (str(lengths.choice([0, 0, 0.05, 0.3, 0.8])),))
        assert outputs(agent, 40) == right(40)
        ended_at = time.monotonic()
        assert len(served.servers) == 1
        assert served.live() == served.servers
        wait_until(lambda: not served.live())
        assert 1.5 < time.monotonic() - ended_at < 6


def test_no_job_meets_a_dying_server(tmp_path: Path, served: Served) -> None:
    """Jobs come in the moment in which the server of the one before is asked to end: each waits, and is right."""
    with AgentProcess(tmp_path, {"served": served.pricer}, sweep_s=0.05, helper_linger_s=0.0) as agent:
        for number in range(20):
            agent.run(f"job-{number}", str(number), "served", ("0",))
            if number % 4:  # the others come two at a time
                agent.done(f"job-{number}")
                wait_until(lambda: served.dying == served.servers)
        assert outputs(agent, 20) == right(20)
        assert len(served.servers) >= 15


def test_a_server_is_renewed_at_its_age_between_jobs(tmp_path: Path, served: Served) -> None:
    """Jobs that follow each other without pause wait for that a moment, and all are right."""
    pricers = {"served": served.pricer}
    with AgentProcess(tmp_path, pricers, slots=2, sweep_s=0.1, helper_linger_s=60.0, helper_age_s=0.7) as agent:
        for number in range(40):
            agent.run(f"job-{number}", str(number), "served", ("0.1",))
        assert outputs(agent, 40) == right(40)
        assert len(served.servers) >= 2
        wait_until(lambda: len(served.live()) == 0)


def test_an_old_server_is_left_to_a_job_that_runs_on(tmp_path: Path, served: Served) -> None:
    """A renewal must not break an answer; other pricers do not wait."""
    pricers = {"served": served.pricer, "shell": {"command": ["sh", "{input}"]}}
    with AgentProcess(tmp_path, pricers, sweep_s=0.1, helper_linger_s=60.0, helper_age_s=0.3) as agent:
        agent.run("job-0", "0", "served", ("4",))
        wait_until(served.live)
        time.sleep(1)
        assert agent.done(agent.run("shell", "echo hello"), within_s=2)[0]["exit_code"] == 0
        assert outputs(agent, 1) == right(1)
        assert len(served.servers) == 1


def test_pricers_that_list_the_same_program_share_it(tmp_path: Path, served: Served) -> None:
    """The server that a job of one started stays while the other runs."""
    python = os.path.basename(os.path.realpath("/proc/self/exe"))
    lists = {**served.pricer, "helpers": [python], "env": {"PATH": os.environ["PATH"]}}
    with AgentProcess(tmp_path, {"a": lists, "b": lists}, sweep_s=0.1, helper_linger_s=0.2) as agent:
        agent.run("job-0", "0", "a", ("0",))
        outputs(agent, 1)
        agent.run("job-1", "1", "b", ("2",))
        assert outputs(agent, 2) == right(2)
        assert len(served.servers) <= 2  # one more where the linger ended before the second job came


def test_nodes_that_share_a_machine_share_the_server(tmp_path: Path, served: Served) -> None:
    """The node whose job started it is idle; it ends once no job of the other node uses it."""
    pricers = {"served": served.pricer}
    with (
        AgentProcess(tmp_path, pricers, name="a", sweep_s=0.1, helper_linger_s=0.3) as one,
        AgentProcess(tmp_path, pricers, name="b", sweep_s=0.1, helper_linger_s=0.3) as two,
    ):
        one.run("job-0", "0", "served", ("0.5",))
        wait_until(served.live)
        two.run("job-0", "0", "served", ("3",))
        assert outputs(one, 1) == right(1)
        assert outputs(two, 1) == right(1)
        assert len(served.servers) == 1
        wait_until(lambda: not served.live())
        for number in range(1, 16):  # by turns, into the moments in which the other node ends its server
            (one, two)[number % 2].run(f"job-{number}", str(number), "served", ("0",))
            [ended] = (one, two)[number % 2].done(f"job-{number}")
            assert ended["files"]["stdout.txt"] == f"price {number}"
            time.sleep(0.2 + number * 0.02)
        assert len(served.servers) > 1


# --- what the settings allow -----------------------------------------------------------------------------------------


def sleeper(number: int = 0) -> str:
    """A command that runs for long and that no other test has."""
    return f"/bin/sleep 1111.{os.getpid()}{number}"


def words(command: str) -> str:
    return command.replace(" ", "\0")


def test_helpers_that_are_forbidden_end_with_their_job(tmp_path: Path) -> None:
    """With `helpers: forbid` nothing outlives its job, though the pricer is in use; with a list only what it names."""
    pricers: dict[str, dict[str, object]] = {
        "none": {"command": ["sh", "{input}"], "helpers": "forbid"},
        "some": {"command": ["sh", "{input}"], "helpers": ["sleep"]},
        "any": {"command": ["sh", "{input}"]},
    }
    other = f"/usr/bin/tail -f /dev/null --pid={os.getpid()} "
    with AgentProcess(tmp_path, pricers, slots=8, sweep_s=0.1, helper_linger_s=60) as agent:
        for number, pricer in enumerate(pricers):
            agent.run(f"runs-{pricer}", "sleep 20", pricer)
            script = f"setsid {sleeper(number)} & setsid {other} -s 1.{number} & sleep 0.5"
            agent.done(agent.run(f"leaves-{pricer}", script, pricer))
        wait_until(lambda: not running_with(words(sleeper(0))))
        wait_until(lambda: not running_with(words(f"{other} -s 1.0".replace("  ", " "))))
        wait_until(lambda: not running_with(words(f"{other} -s 1.1".replace("  ", " "))))
        time.sleep(1)
        assert len(running_with(words(sleeper(1)))) == 1
        assert len(running_with(words(sleeper(2)))) == 1
        assert len(running_with(words(f"{other} -s 1.2".replace("  ", " ")))) == 1
        agent.close()
    assert not running_with(words(sleeper(1)))
    assert not running_with(words(sleeper(2)))
    assert not running_with(f"--pid={os.getpid()}")


def test_jobs_that_each_leave_a_process_do_not_fill_the_machine(tmp_path: Path) -> None:
    """Beyond a number of helpers all of them end, though there is always a job of the pricer."""
    with AgentProcess(tmp_path, {"shell": {"command": ["sh", "{input}"]}}, sweep_s=0.1, helper_linger_s=60) as agent:
        most = 0
        for number in range(150):
            agent.run(f"job-{number}", f"setsid {sleeper()} & exit 0")
        for number in range(150):
            agent.done(f"job-{number}")
            most = max(most, len(running_with(words(sleeper()))))
        wait_until(lambda: len(running_with(words(sleeper()))) <= 64)
        agent.close()
    assert not running_with(words(sleeper()))


# --- what ends with its agent -----------------------------------------------------------------------------------------

FORKS_ON = """
import os, sys, time
until = time.monotonic() + 60  # should nothing end it
while time.monotonic() < until:
    time.sleep(0.002)
    with open(sys.argv[1], "w") as beat:
        beat.write(str(os.getpid()))
    if os.fork():
        os._exit(0)
    os.setsid()
"""


def leftovers(directory: Path) -> dict[str, str]:
    """Ways to stay behind, by environment and place in the process tree."""
    (directory / "forks.py").write_text(FORKS_ON)
    sleep = sleeper()
    forks = f"python3 -S {directory}/forks.py {directory}/beat"
    return {
        "own-mark": f"setsid {sleep} & sleep 0.5",
        "forged-mark": f"RAYGRID_ATTEMPT=x setsid {sleep} & sleep 0.5",
        "mark-of-another-attempt": f'RAYGRID_ATTEMPT="${{RAYGRID_ATTEMPT%.1}}.2" setsid {sleep} & sleep 0.5',
        "no-mark": f"env -i setsid {sleep} & sleep 0.5",
        "double-fork": f"(setsid sh -c 'env -i setsid {sleep} & sleep 0.1' &) ; sleep 0.5",
        "own-session-kept": f"(env -i {sleep} &) ; setsid env -i {sleep} & sleep 0.5",
        "deaf": f"env -i setsid sh -c 'trap \"\" TERM HUP INT; while :; do {sleep}; done' & sleep 0.5",
        "stopped": f"env -i setsid sh -c 'kill -STOP $$; exec {sleep}' & sleep 0.5",
        "still-running": f"env -i setsid {sleep} & exec env -i {sleep}",
        "forks-on": f"setsid {forks} & sleep 0.5",
    }


def forks_on(directory: Path) -> bool:
    """Whether the daemon that forks lives: it is hardly ever seen in a table of processes, but leaves its pid."""
    beat = directory / "beat"
    before = beat.read_text() if beat.exists() else ""
    time.sleep(0.3)
    return beat.exists() and beat.read_text() != before


def is_left(directory: Path) -> bool:
    return bool(running_with(words(sleeper())) or running_with(sleeper()) or forks_on(directory))


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_whatever_a_job_leaves_behind_ends_with_its_agent(tmp_path: Path, how: str) -> None:
    """With its own mark, another's, a forged one or none, deaf or stopped: an agent that ends leaves nothing."""
    end: dict[str, Callable[[AgentProcess], object]] = {
        "closed": AgentProcess.close,
        "killed": lambda agent: agent.process.send_signal(signal.SIGKILL),
    }
    scripts = leftovers(tmp_path)
    with AgentProcess(tmp_path, {"shell": {"command": ["sh", "{input}"]}}, slots=12, helper_linger_s=60) as agent:
        for name, script in scripts.items():
            agent.run(name, script)
        agent.done(*(name for name in scripts if name != "still-running"))
        time.sleep(2.5)  # the agent looks once a second
        assert forks_on(tmp_path)
        assert len(running_with(words(sleeper()))) >= len(scripts) - 2
        end[how](agent)
        agent.process.wait(timeout=30)
        wait_until(lambda: not is_left(tmp_path), within_s=15)
        wait_until(lambda: not any((tmp_path / "root" / "jobs").iterdir()), within_s=15)


def test_a_daemon_that_forks_on_ends_after_the_linger(tmp_path: Path) -> None:
    """Each of its processes lives for two milliseconds, less than it takes to read the table of processes."""
    # The job ends when it has seen the daemon fork: after it, a busy machine may leave no time to look.
    beat = tmp_path / "beat"
    sees_it = f"until [ -s {beat} ]; do :; done; first=$(cat {beat}); until [ $(cat {beat}) != $first ]; do :; done"
    script = f"{leftovers(tmp_path)['forks-on']}; {sees_it}"
    with AgentProcess(tmp_path, {"shell": {"command": ["sh", "{input}"]}}, sweep_s=0.1, helper_linger_s=0.5) as agent:
        assert agent.done(agent.run("job", script))[0]["exit_code"] == 0
        wait_until(lambda: not forks_on(tmp_path), within_s=20)
        assert agent.done(agent.run("next", "echo next"))[0]["files"]["stdout.txt"] == "next\n"


def test_a_process_whose_first_thread_has_ended_is_killed(tmp_path: Path) -> None:
    """It looks like a zombie and still runs: it is killed as any other, and jobs do not wait for it forever."""
    code = (
        "import ctypes, signal, sys, threading, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "threading.Thread(target=time.sleep, args=(60,)).start(); ctypes.CDLL(None).pthread_exit(None)"
    )
    until_it_has = "until grep -q 'Z (zombie)' /proc/$!/status; do :; done"
    script = f"setsid python3 -S -c '{code}' & echo $! > {tmp_path}/pid; {until_it_has}"
    with AgentProcess(tmp_path, {"shell": {"command": ["sh", "{input}"]}}, sweep_s=0.1, helper_linger_s=0.5) as agent:
        agent.done(agent.run("job", script))
        pid = int((tmp_path / "pid").read_text())
        assert "Z (zombie)" in Path(f"/proc/{pid}/status").read_text()
        wait_until(lambda: not Path(f"/proc/{pid}").exists())
        assert agent.done(agent.run("next", "echo next"), within_s=5)[0]["files"]["stdout.txt"] == "next\n"
