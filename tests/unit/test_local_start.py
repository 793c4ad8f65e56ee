"""What is checked about a grid on this machine before anything is started."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raygrid.errors import RaygridError, SettingsError
from raygrid.local import GridFile, require_same, running_grid, start_grid, stop_supervisor
from raygrid.local import port as port_of_grid
from raygrid.local.port import free_port, ray_prefix, require_port
from raygrid.local.supervisor import node_name
from raygrid.settings.model import GridSettings, load_settings
from raygrid.settings.sources import set_by_variables
from raygrid.settings.started_with import StartedWith
from raygrid.system.grid_file import deploy_command, down_command
from raygrid.system.lock import holder, only_one
from raygrid.system.logs import DIRECTORY
from raygrid.system.proc import start_time

pytestmark = pytest.mark.processes


def test_a_taken_port_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    """The error names the port and the remedy; nothing is left behind."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        settings = load_settings(http={"port": port}, storage={"state_dir": tmp_path})
        with pytest.raises(SettingsError, match=rf"port {port}.*--port"):
            start_grid(settings)
    assert list(tmp_path.iterdir()) == []


def test_a_grid_others_could_reach_needs_keys(tmp_path: Path) -> None:
    """Listening beyond this machine without an API key is refused."""
    settings = load_settings(http={"host": "0.0.0.0"}, storage={"state_dir": tmp_path})
    with pytest.raises(SettingsError, match="no API key"):
        start_grid(settings)


def test_a_file_of_a_dead_grid_is_not_a_grid(tmp_path: Path) -> None:
    """A grid file counts only while the process that wrote it lives, even if its pid is another's by now."""
    directory = tmp_path / "default"
    directory.mkdir()
    mine = start_time(os.getpid())
    assert mine is not None
    living = GridFile("http://127.0.0.1:1", os.getpid(), mine, "default", directory)
    living.write()
    assert running_grid("default", tmp_path) == living
    GridFile("http://127.0.0.1:1", os.getpid(), mine - 1, "default", directory).write()
    assert running_grid("default", tmp_path) is None


def test_the_grid_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    """It may hold an API key."""
    GridFile("http://127.0.0.1:1", 1, 1, "default", tmp_path, api_key="k" * 20).write()
    assert (tmp_path / "grid.json").stat().st_mode & 0o077 == 0


def test_one_directory_has_one_supervisor(tmp_path: Path) -> None:
    """A second grid on the same state is refused while the first lives."""
    with only_one(tmp_path), pytest.raises(SettingsError, match="already uses"), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass


def test_racks_are_lettered_and_nodes_numbered() -> None:
    """Names go on after z as in a spreadsheet."""
    assert [node_name(rack, 0)[0] for rack in (0, 1, 25, 26, 27)] == [
        "rack-a",
        "rack-b",
        "rack-z",
        "rack-aa",
        "rack-ab",
    ]
    assert node_name(1, 2) == ("rack-b", "rack-b-3")


# --- other supervisors ------------------------------------------------------------------------------------------------

HOLDS = """
import sys, time
from pathlib import Path
from raygrid.system.lock import only_one
with only_one(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""
LISTENS = """
import os, socket, sys
from raygrid.system.log_files import keep_logs
from raygrid.system.logs import VARIABLE
if sys.argv[2:]:
    os.environ[VARIABLE] = sys.argv[2]
    keep_logs("parent")
with socket.socket() as listener:
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen()
    print("listens", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def process(code: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has printed its first line, and goes on until its standard input has one."""
    command = [sys.executable, "-c", code, *map(str, words)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline()
        try:
            yield running
        finally:
            running.kill()


def settings_for(tmp_path: Path, command: str = "cat {input}") -> GridSettings:
    """Settings of a grid that these tests never really start."""
    return load_settings(
        pricers={"p": {"command": command}}, http={"port": free_port()}, storage={"state_dir": tmp_path}
    )


def test_a_start_waits_for_another_one_and_takes_its_grid(tmp_path: Path) -> None:
    """The second `up` at the same time gives the first one's grid, and leaves its log alone."""
    settings = settings_for(tmp_path)
    settings.grid_dir.mkdir()
    log = settings.grid_dir / "logs" / "supervisor.log"
    log.parent.mkdir()
    log.write_text("of the first\n")
    with process(HOLDS, settings.grid_dir) as first:
        started = start_time(first.pid)
        assert started is not None
        grid = GridFile(
            "http://127.0.0.1:1",
            first.pid,
            started,
            "default",
            settings.grid_dir,
            started_with=StartedWith.of(settings, 1, 1),
        )
        timer = threading.Timer(0.3, grid.write)
        timer.start()
        assert start_grid(settings, timeout_s=30) == grid
        timer.join()
        with pytest.raises(SettingsError, match=r"uses cat \{input\}, you asked for tac \{input\}"):
            start_grid(settings.model_copy(update={"pricers": settings_for(tmp_path, "tac {input}").pricers}))
    assert log.read_text() == "of the first\n"


def test_a_start_that_waits_too_long_for_another_one_names_it(tmp_path: Path) -> None:
    """The error names the process, the log, and how to stop it."""
    settings = settings_for(tmp_path)
    settings.grid_dir.mkdir()
    with process(HOLDS, settings.grid_dir) as first:
        with pytest.raises(RaygridError, match=rf"process {first.pid}.*supervisor\.log.*raygrid down"):
            start_grid(settings, timeout_s=0.2)
        assert first.poll() is None


def test_a_grid_that_is_just_starting_can_be_stopped(tmp_path: Path) -> None:
    """A supervisor that has no grid file yet is found by its lock, and ended."""
    settings = settings_for(tmp_path)
    settings.grid_dir.mkdir()
    assert not stop_supervisor(settings)
    with process(HOLDS, settings.grid_dir) as first:
        supervisor = holder(settings.grid_dir)
        assert supervisor is not None
        assert supervisor.pid == first.pid
        assert stop_supervisor(settings)
        assert start_time(first.pid) is None
    assert holder(settings.grid_dir) is None
    assert not stop_supervisor(settings)


def test_a_damaged_file_hides_no_grid(tmp_path: Path) -> None:
    """While its supervisor lives, a grid with an unreadable file is an error with the remedy; later it is none."""
    settings = settings_for(tmp_path)
    settings.grid_dir.mkdir()
    (settings.grid_dir / "grid.json").write_text('{"url": "htt')
    assert running_grid("default", tmp_path) is None
    with process(HOLDS, settings.grid_dir) as first:
        with pytest.raises(SettingsError, match=rf"process {first.pid}.*cannot be read.*raygrid down"):
            running_grid("default", tmp_path)
        assert stop_supervisor(settings)
    assert not (settings.grid_dir / "grid.json").exists()


def test_the_port_of_a_dying_life_of_this_grid_is_waited_for(tmp_path: Path) -> None:
    """A parent of this grid that still runs will free the port soon; any other program is an error at once."""
    port = free_port()
    with process(LISTENS, port, tmp_path / DIRECTORY) as dying:
        with pytest.raises(SettingsError, match="earlier start of this grid"):
            require_port("127.0.0.1", port, tmp_path, patience_s=0.2)
        timer = threading.Timer(0.3, dying.kill)
        timer.start()
        require_port("127.0.0.1", port, tmp_path)
        timer.join()
    with process(LISTENS, port), pytest.raises(SettingsError, match=rf"port {port}.*--port"):
        require_port("127.0.0.1", port, tmp_path, patience_s=60)


GRID = """
import os, socket, sys
from pathlib import Path
from raygrid.system.grid_file import GridFile
from raygrid.system.proc import start_time
from raygrid.system.processes import forbid_tracing
_, module, directory, port = sys.argv  # the words of a supervisor, and the port
assert module == "raygrid.local.supervisor"
forbid_tracing()  # as supervisors and parents do
with socket.socket() as listener:
    listener.bind(("127.0.0.1", int(port)))
    listener.listen()
    started = start_time(os.getpid())
    GridFile(f"http://127.0.0.1:{port}", os.getpid(), started, Path(directory).name, Path(directory)).write()
    print("listens", flush=True)
    sys.stdin.readline()
"""


def test_a_port_of_another_grid_of_the_same_user_is_recognised(tmp_path: Path) -> None:
    """The error names that grid and its stop command, wherever its state is, and a port that is free."""
    other = tmp_path / "state" / "desk"
    other.mkdir(parents=True)
    port = free_port()
    with process(GRID, "raygrid.local.supervisor", other, port), pytest.raises(SettingsError) as caught:
        require_port("127.0.0.1", port, tmp_path / "mine")
    stop = f"RAYGRID_STATE_DIR={tmp_path / 'state'} raygrid down --name desk"
    found = re.fullmatch(
        rf"cannot listen on 127\.0\.0\.1 port {port}: your grid desk listens there; stop it with `(.*)`, or "
        r"choose --port (\d+), which is free \(or http\.port in the settings\)",
        str(caught.value),
    )
    assert found is not None, caught.value
    assert found[1] == stop
    require_port("127.0.0.1", int(found[2]), tmp_path / "mine")


def test_one_look_at_a_dying_listener_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel frees a dying process's lock before its port, so the start looks again."""
    looks = ["taken", "taken", None]
    monkeypatch.setattr(port_of_grid, "_why_not", lambda host, port: looks.pop(0))
    require_port("127.0.0.1", 1, tmp_path)
    assert looks == []


# --- programs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("{dir}/none {input}", "there is no file {dir}/none"),
        ("{dir} {input}", "{dir} is not a file"),
        ("{dir}/plain {input}", "{dir}/plain is not executable"),
        ("price-o-matic {input}", "no program 'price-o-matic' in the PATH"),
        ("bin/price {input}", "'bin/price' is relative"),
    ],
)
def test_a_pricer_that_cannot_be_started_is_an_error_before_anything_starts(
    tmp_path: Path, command: str, message: str
) -> None:
    """Each job would otherwise fail with it; the error names the path that was looked at."""
    (tmp_path / "plain").write_text("echo")
    settings = settings_for(tmp_path / "state", command.replace("{dir}", str(tmp_path)))
    with pytest.raises(SettingsError) as caught:
        start_grid(settings)
    assert message.replace("{dir}", str(tmp_path)) in str(caught.value)
    assert not settings.grid_dir.exists()


# --- what a grid was started with -------------------------------------------------------------------------------------


def test_secrets_are_compared_and_not_kept(tmp_path: Path) -> None:
    """A changed key, password or environment is a difference, and the grid file contains none of them."""
    secret: dict[str, dict[str, Any]] = {
        "http": {"api_keys": [{"name": "desk", "key": "correct-horse-battery"}]},
        "storage": {"database": "postgresql+asyncpg://u:hunter2@h/db", "blobs": "s3://key:hunter3@b"},
        "pricers": {"p": {"command": "cat {input}", "env": {"TOKEN": "hunter4"}}},
    }
    started = StartedWith.of(load_settings(None, **secret), 1, 1)
    GridFile("http://x", 1, 1, "default", tmp_path, started_with=started).write()
    text = (tmp_path / "grid.json").read_text()
    assert "hunter" not in text
    assert "correct-horse" not in text
    assert started.differences(load_settings(None, **secret), 1, 1) == []
    for section, name, change in (
        ("http", "api_keys", {"api_keys": [{"name": "desk", "key": "correct-horse-battery2"}]}),
        ("storage", "database", {**secret["storage"], "database": "postgresql+asyncpg://u:hunter5@h/db"}),
        ("pricers", "p.env", {"p": {"command": "cat {input}", "env": {"TOKEN": "hunter5"}}}),
    ):
        [found] = started.differences(load_settings(None, **{**secret, section: change}), 1, 1)
        assert found == f"{section}.{name}: the grid uses another secret"


@pytest.mark.parametrize(
    "name", ["env", "command", "keys", "default", "None", "1", "a.env", "a.straggler", "x.command"]
)
def test_a_pricer_may_be_named_like_a_setting(tmp_path: Path, name: str) -> None:
    """What a grid was started with is kept and compared for pricers, groups and nodes of any name."""

    def started_as(command: str, password: str) -> GridSettings:
        pricer = {"command": command, "env": {"TOKEN": password}, "retry_exit_codes": [3], "straggler": {"factor": 2}}
        plain = {"command": "cat {input}", "straggler": {"factor": 2}}
        return load_settings(
            pricers={name: pricer, "a": plain, "x": plain},
            groups={name: {"site": "s"}},
            placement={"weights": {name: 2}},
            routing={"site_distance": {name: {name: 1}}},
        )

    started = StartedWith.of(started_as("wc {input}", "hunter2"), 1, 1)
    (tmp_path / "default").mkdir()
    mine = start_time(os.getpid())
    assert mine is not None
    GridFile("http://x", os.getpid(), mine, "default", tmp_path / "default", started_with=started).write()
    assert "hunter" not in (tmp_path / "default" / "grid.json").read_text()
    found = running_grid("default", tmp_path)
    assert found is not None
    assert found.started_with is not None
    assert found.started_with.differences(started_as("wc {input}", "hunter2"), 1, 1) == []
    assert found.started_with.differences(started_as("tac {input}", "hunter3"), 1, 1) == [
        f"pricers.{name}.command: the grid uses wc {{input}}, you asked for tac {{input}}",
        f"pricers.{name}.env: the grid uses another secret",
    ]
    assert found.started_with.differences(load_settings(pricers={}), 1, 1, ["name"]) == []


def test_only_what_is_asked_for_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable for one field of a section is compared for that field only; set secrets are compared."""
    key = {"name": "desk", "key": "correct-horse-battery"}
    running = load_settings(
        http={"port": 8005, "parents": 3, "api_keys": [key]},
        pricers={"P.q": {"command": "cat {input}", "timeout_s": 9}, "r": {"command": "wc {input}"}},
    )
    started = StartedWith.of(running, 2, 2)

    def differences(*given: str, **settings: object) -> list[str]:
        return started.differences(load_settings(None, **settings), None, None, {*given, *set_by_variables()})

    assert differences() == []
    assert differences("pricers.p.q.command", pricers={"P.q": {"command": "cat {input}"}}) == []
    assert differences("pricers", pricers={"P.q": {"command": "tac {input}"}, "s": {"command": "cat {input}"}}) == [
        "pricer s: the grid does not have it",
        "pricers.P.q.command: the grid uses cat {input}, you asked for tac {input}",
        "pricers.P.q.timeout_s: the grid uses 9.0, you asked for 3600.0",
    ]
    monkeypatch.setenv("RAYGRID__STORAGE__BLOBS", "s3://bucket")
    monkeypatch.setenv("RAYGRID__HTTP__PORT", "8000")
    monkeypatch.setenv("RAYGRID__PRICERS__R__ENV__TOKEN", "hunter6")
    assert differences(pricers={"r": {"command": "cat {input}"}}) == [
        "http.port: the grid uses 8005, you asked for 8000",
        "pricers.r.env: the grid uses another secret",
        "storage.blobs: the grid uses another secret",
    ]


def test_the_grid_file_keeps_the_options_of_the_start(tmp_path: Path) -> None:
    """What was written comes back the same."""
    mine = start_time(os.getpid())
    assert mine is not None
    (tmp_path / "default").mkdir()
    started = StartedWith.of(settings_for(tmp_path), 2, 3)
    GridFile("http://x", os.getpid(), mine, "default", tmp_path / "default", started_with=started).write()
    found = running_grid("default", tmp_path)
    assert found is not None
    assert found.started_with == started


# --- the place of Ray's sockets, and the command that stops a grid --------------------------------------------------


def test_a_long_temporary_directory_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of Unix sockets are short: Ray's own directory is then elsewhere; one with a short path is kept."""
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert ray_prefix(tmp_path).startswith("/tmp/raygrid-")
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
    prefix = ray_prefix(tmp_path)
    assert prefix.startswith("/var/tmp/raygrid-")
    session = "session_2030-12-31_23-59-59_999999_4194304"
    assert len(f"{prefix}12345678/{session}/sockets/plasma_store.999") <= 107


def test_without_a_short_temporary_directory_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has what to set, before a process exists whose log would have to be read."""
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(port_of_grid, "SHORT", ("/proc/none",))
    with pytest.raises(SettingsError, match=r"at most \d+ bytes.*x has \d+; set TMPDIR to a shorter one"):
        start_grid(load_settings(storage={"state_dir": tmp_path / "state"}))
    assert not (tmp_path / "state").exists()


def test_a_grid_is_stopped_with_the_options_it_was_started_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The printed command works in the shell that printed it, wherever the state is and however that was set."""
    monkeypatch.delenv("RAYGRID_STATE_DIR", raising=False)
    usual = Path("~/.raygrid").expanduser()
    config = tmp_path / "my grid.yaml"
    assert down_command(usual / "default") == "raygrid down"
    assert down_command(usual / "side") == "raygrid down --name side"
    assert down_command(tmp_path / "side", config) == f"raygrid down --config '{config}' --name side"
    assert down_command(tmp_path / "default") == f"RAYGRID_STATE_DIR={tmp_path} raygrid down"
    assert deploy_command(usual / "side") == "raygrid deploy --config FILE --name side"
    assert deploy_command(tmp_path / "side", config) == f"raygrid deploy --config '{config}' --name side"
    assert deploy_command(tmp_path / "x") == f"RAYGRID_STATE_DIR={tmp_path} raygrid deploy --config FILE --name x"
    monkeypatch.setenv("RAYGRID_STATE_DIR", str(tmp_path))
    assert down_command(tmp_path / "default") == "raygrid down"

    config.write_text("name: side\nstorage: {state_dir: " + str(tmp_path / "state") + "}\n", encoding="utf-8")
    settings = load_settings(config)
    grid = GridFile("http://x", 1, 1, "side", settings.grid_dir, started_with=StartedWith.of(settings, 1, 1))
    with pytest.raises(SettingsError, match=f"with `raygrid down --config '{config}' --name side`, or"):
        require_same(grid, settings, 2, 1)
