"""Which grid the module's functions use, what init and shutdown do, and how light the import is."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

import raygrid
import raygrid.local
from raygrid.client import Client, default
from raygrid.client.default import find_grid
from raygrid.errors import SettingsError
from raygrid.local import GridFile
from raygrid.settings.model import GridSettings, load_settings
from raygrid.settings.started_with import StartedWith
from raygrid.system.grid_file import running_grid
from raygrid.system.lock import only_one
from raygrid.system.proc import start_time


def grid_file(url: str, api_key: str | None = None, started_with: StartedWith | None = None) -> GridFile:
    """The file of a running grid, as raygrid.local gives it."""
    return GridFile(url, 1, 1, "default", Path(), api_key, started_with=started_with)


@pytest.fixture(autouse=True)
def _no_grid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No grid is configured anywhere, and none is left for the next test."""
    for name in ("RAYGRID_URL", "RAYGRID_API_KEY", "RAYGRID_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAYGRID_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(default, "_default", None)
    monkeypatch.setattr(raygrid, "_own_grid", None)


@dataclass
class Local:
    """Stands in for the functions of raygrid.local: the grid that runs, and what was started, stopped and contacted."""

    grid: GridFile | None = None
    started: list[tuple[GridSettings, int, int]] = field(default_factory=list)
    stopped: list[GridFile] = field(default_factory=list)
    contacted: list[str] = field(default_factory=list)


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Local:
    """The stand-in, in place."""
    stand_in = Local()

    def running_grid(name: str = "default", state_dir: Path | None = None) -> GridFile | None:
        return stand_in.grid

    def start_grid(
        settings: GridSettings, racks: int = 1, nodes: int = 1, timeout_s: float = 180, *, with_caller: bool = False
    ) -> GridFile:
        assert with_caller, "what init starts ends with its process"
        stand_in.started.append((settings, racks, nodes))
        return grid_file("http://127.0.0.1:8123")

    monkeypatch.setattr(raygrid.local, "running_grid", running_grid)
    monkeypatch.setattr(raygrid.local, "start_grid", start_grid)
    monkeypatch.setattr(raygrid.local, "stop_grid", stand_in.stopped.append)
    monkeypatch.setattr("atexit.register", lambda function: None)
    monkeypatch.setattr(Client, "contact", lambda client, within_s: stand_in.contacted.append(client.url))
    return stand_in


def grid_json(tmp_path: Path, **members: object) -> None:
    """Write the file of a grid on this machine, whose supervisor is this process."""
    directory = tmp_path / "state" / "default"
    directory.mkdir(parents=True)
    started = start_time(os.getpid())
    assert started is not None
    GridFile("http://127.0.0.1:8001", os.getpid(), started, "default", directory, "key-of-the-file").write()
    path = directory / "grid.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))


def test_the_argument_wins_over_the_environment_and_that_over_the_local_grid(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """URL and key are looked up in the same order, each separately."""
    grid_json(tmp_path)
    assert find_grid() == ("http://127.0.0.1:8001", "key-of-the-file")
    monkeypatch.setenv("RAYGRID_API_KEY", "key-of-the-environment")
    assert find_grid() == ("http://127.0.0.1:8001", "key-of-the-environment")
    monkeypatch.setenv("RAYGRID_URL", "http://env")
    assert find_grid() == ("http://env", "key-of-the-environment")
    assert find_grid("http://arg", "key-of-the-argument") == ("http://arg", "key-of-the-argument")


def test_the_local_grids_key_is_sent_to_no_other_grid(tmp_path: Path) -> None:
    """A URL from elsewhere does not get the key in the file."""
    grid_json(tmp_path)

    assert find_grid("http://elsewhere") == ("http://elsewhere", None)


@pytest.mark.parametrize("members", [{"pid": 2**22 + 1}, {"pid": "none"}, {"url": None}, {"started": 1}])
def test_the_file_of_a_grid_that_is_gone_does_not_count(tmp_path: Path, members: dict[str, object]) -> None:
    """A stale or broken file counts as none, also if the supervisor's pid belongs to a later process by now."""
    grid_json(tmp_path, **members)

    assert running_grid() is None
    with pytest.raises(SettingsError, match="no URL is given"):
        find_grid()


def test_a_damaged_file_of_a_grid_that_runs_is_reported(tmp_path: Path) -> None:
    """The error names the file and the remedy, because a grid holds the lock beside it."""
    grid_json(tmp_path)
    directory = tmp_path / "state" / "default"
    (directory / "grid.json").write_text('{"url": "http')

    with only_one(directory), pytest.raises(SettingsError, match=r"grid\.json cannot be read.*raygrid down"):
        find_grid()
    with pytest.raises(SettingsError, match="no URL is given"):
        find_grid()


def test_without_any_grid_the_error_has_what_to_do() -> None:
    """The message names the variable, the function, the command and the file that was looked for."""
    with pytest.raises(SettingsError, match=r"RAYGRID_URL.*raygrid\.connect.*raygrid up.*raygrid\.init.*grid\.json"):
        raygrid.submit(b"x")


def test_connect_sets_the_grid_of_the_modules_functions() -> None:
    """`submit` uses the client that connect made."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(202, json={})

    client = raygrid.connect(
        "http://grid.test", "0123456789abcdef", transport=httpx.MockTransport(answer), plain_http=True
    )

    assert default.client() is client
    assert raygrid.submit(b"x", job_id="j").job_id == "j"


def test_init_starts_a_grid_and_shutdown_stops_it(local: Local, tmp_path: Path) -> None:
    """If there is no grid, one is started with the given pricer, and stopped only once."""
    client = raygrid.init("cat {input}", racks=2, nodes=3)

    assert client.url == "http://127.0.0.1:8123"
    settings, racks, nodes = local.started[0]
    assert settings.pricers["pricer"].command == ("cat", "{input}")
    assert settings.storage.state_dir == tmp_path / "state"
    assert (racks, nodes) == (2, 3)
    assert local.contacted == ["http://127.0.0.1:8123"]
    raygrid.shutdown()
    raygrid.shutdown()
    assert [grid.url for grid in local.stopped] == ["http://127.0.0.1:8123"]


def test_init_reports_the_wait_and_leaves_the_output_of_scripts_alone(
    local: Local, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """In a notebook it is a line of stderr, in a script a line of the log; for a grid that runs there is none."""
    message = "raygrid: starting a grid of 2 nodes on this machine, which takes a while"
    monkeypatch.delattr(sys, "ps1", raising=False)
    raygrid.init("cat {input}", racks=2)
    assert capsys.readouterr() == ("", "")

    with caplog.at_level(logging.INFO, "raygrid"):
        raygrid.init("cat {input}", racks=2)
    assert caplog.messages == [message]
    assert capsys.readouterr() == ("", "")

    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    raygrid.init("cat {input}", racks=2)
    assert capsys.readouterr() == ("", f"{message}\n")
    local.grid = grid_file("http://127.0.0.1:9999")
    raygrid.init()
    assert capsys.readouterr() == ("", "")


def test_init_connects_to_a_grid_that_runs_and_shutdown_leaves_it_alone(local: Local) -> None:
    """A grid that init did not start is not stopped."""
    local.grid = grid_file("http://127.0.0.1:9999", api_key="0123456789abcdef")

    assert raygrid.init().url == "http://127.0.0.1:9999"
    raygrid.shutdown()
    assert (local.started, local.stopped) == ([], [])


def test_init_uses_the_configured_grid(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """With RAYGRID_URL nothing is started here."""
    monkeypatch.setenv("RAYGRID_URL", "http://grid.test")

    assert raygrid.init().url == "http://grid.test"
    assert local.started == []


def test_init_refuses_a_running_grid_that_is_not_as_asked_for(local: Local, tmp_path: Path) -> None:
    """Jobs would otherwise run on the pricers of an older start; settings that init does not give are not compared."""
    running = load_settings(pricers={"old": {"command": "cat {input}"}, "more": {"command": "wc {input}"}})
    local.grid = grid_file("http://grid.test", started_with=StartedWith.of(running, racks=2, nodes=1))
    config = tmp_path / "grid.yaml"
    config.write_text("pricers: {old: {command: 'cat {input}'}}\n")

    assert raygrid.init({"old": "cat {input}"}).url == "http://grid.test"
    assert raygrid.init({"more": "wc {input}"}, racks=2).url == "http://grid.test"
    with pytest.raises(SettingsError, match=r"(?s)pricer new: the grid does not have it.*raygrid down"):
        raygrid.init({"new": "cat {input}"})
    with pytest.raises(SettingsError, match=r"uses cat \{input\}, you asked for tac \{input\}"):
        raygrid.init({"old": "tac {input}"})
    with pytest.raises(SettingsError, match="racks: the grid uses 2"):
        raygrid.init(racks=1)
    with pytest.raises(SettingsError, match="pricer more: the grid has it, you"):
        raygrid.init(config=config)


def test_init_without_a_pricer_is_an_error_with_the_remedy(local: Local) -> None:
    """A grid that can run nothing is not started."""
    with pytest.raises(SettingsError, match="--pricer"):
        raygrid.init()


def test_relative_files_of_a_command_are_made_absolute(
    local: Local, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The command runs in the job directory; PATH is still searched."""
    (tmp_path / "price.py").touch()
    (tmp_path / "python3").touch()
    monkeypatch.chdir(tmp_path)

    raygrid.init({"a": "python3 price.py {input}", "b": "./price.py {input}"})

    settings = local.started[0][0]
    assert settings.pricers["a"].command == ("python3", str(tmp_path / "price.py"), "{input}")
    assert settings.pricers["b"].command == (str(tmp_path / "price.py"), "{input}")


def test_import_raygrid_is_light_and_the_client_needs_neither_ray_nor_a_server() -> None:
    """No heavy module is loaded before it is used, and the client never loads Ray or a tier."""
    code = """
import sys, raygrid
assert not {"ray", "httpx", "pydantic", "typer"} & set(sys.modules), "import raygrid is not light"
for name in raygrid.__all__:
    getattr(raygrid, name)
heavy = ("ray", "fastapi", "sqlalchemy", "raygrid.parent", "raygrid.leader", "raygrid.node", "raygrid.local")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_every_public_error_and_name_is_exported() -> None:
    """The names of the error tree that a client can meet are all at the top."""
    assert set(raygrid.__all__) <= set(dir(raygrid))
    assert raygrid.errors.JobFailedError is raygrid.JobFailedError
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = raygrid.nonsense
