"""Which files of a grid sandboxes hide from pricers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from raygrid.errors import SettingsError
from raygrid.local.executables import require_sandboxes
from raygrid.node.sandbox.escapes import service_sockets
from raygrid.node.sandbox.hidden import conflicts, hidden_paths
from raygrid.settings.model import GridSettings, load_settings
from raygrid.system.accounts import Account

HOME = Path("/home/quant")
CAT = {"command": ["/bin/cat", "{input}"]}


def settings(pricers: dict[str, Any] | None = None, **given: Any) -> GridSettings:
    storage = {"state_dir": "/home/quant/.raygrid", **given.pop("storage", {})}
    return load_settings(pricers={"p": CAT} if pricers is None else pricers, storage=storage, **given)


def hidden(given: GridSettings, environment: dict[str, str] | None = None, **more: Any) -> set[str]:
    """Without the services, which are the same for all."""
    found = hidden_paths(given, environment or {}, HOME, uid=1000, **more)
    return {str(path) for path in found} - set(map(str, service_sockets(environment or {}, 1000)))


def outermost(paths: set[str]) -> set[str]:
    return {path for path in paths if not any(path.startswith(f"{each}/") for each in paths)}


def test_the_state_of_all_grids_rays_sessions_and_the_token_are_hidden() -> None:
    """A grid with default settings: one entry for all its files, and those of Ray."""
    assert outermost(hidden(settings())) == {
        "/home/quant/.raygrid", "/home/quant/.ray", "/tmp/ray", "/tmp/raygrid-1000", "/var/tmp/raygrid-1000",
        "/home/quant/ray_bootstrap_config.yaml", "/home/quant/ray_bootstrap_key.pem",
    }  # fmt: skip


def test_what_settings_place_elsewhere_is_hidden() -> None:
    """A SQLite database with the files that SQLite makes beside it, the blobs, and the state directory itself."""
    storage = {"state_dir": "/data/state", "database": "/data/db/jobs.db", "blobs": "/data/blobs"}
    found = hidden(settings(storage=storage))
    assert {"/data/state", "/data/blobs", "/home/quant/.raygrid"} <= found
    assert {f"/data/db/jobs.db{suffix}" for suffix in ("", "-wal", "-shm", "-journal")} <= found
    url = settings(storage={"database": "sqlite+aiosqlite:////data/x.db", "blobs": "file:///data/more%20blobs"})
    assert {"/data/x.db", "/data/x.db-wal", "/data/more blobs"} <= hidden(url)
    server = settings(storage={"database": "postgresql://u:p@db/raygrid", "blobs": "s3://bucket/x"})
    assert outermost(hidden(server)) == outermost(hidden(settings()))


def test_nodes_know_what_to_hide_although_they_get_no_database() -> None:
    """The settings for nodes lack the URL of a server, but not the name of a SQLite file."""
    given = settings(storage={"database": "/data/jobs.db"})
    assert hidden(given.for_nodes) == hidden(given)
    assert given.for_nodes.database_file == Path("/data/jobs.db")
    assert settings(storage={"database": "postgresql://u:p@db/raygrid"}).for_nodes.storage.database is None
    assert settings().for_nodes.storage.database is None


def test_what_lies_in_a_hidden_directory_is_hidden_by_itself_too() -> None:
    """A pricer of a later deployment may be shown the directory around it."""
    storage = {"database": "/home/quant/.raygrid/x/jobs.db", "blobs": "/home/quant/.raygrid/../.raygrid/blobs"}
    found = hidden(settings(storage=storage))
    assert {"/home/quant/.raygrid/x/jobs.db", "/home/quant/.raygrid/blobs"} <= set(found)
    assert {"/home/quant/.raygrid", "/home/quant/.raygrid/default"} <= set(hidden(settings()))


def test_variables_name_further_files() -> None:
    """The token, the settings file, temporary directories and credentials that a variable names are hidden."""
    environment = {
        "RAYGRID_STATE_DIR": "/data/grids", "RAY_AUTH_TOKEN_PATH": "/etc/ray/token", "RAYGRID_CONFIG": "/etc/grid.yaml",
        "TMPDIR": "/scratch", "RAY_TMPDIR": "/ray", "AWS_WEB_IDENTITY_TOKEN_FILE": "/run/aws/token",
        "GOOGLE_APPLICATION_CREDENTIALS": "~/google.json", "PGPASSFILE": "",
    }  # fmt: skip
    found = hidden(settings(), environment, ray_directory=Path("/elsewhere/ray"))
    assert {
        "/home/quant/.raygrid",
        "/data/grids",
        "/etc/ray/token",
        "/etc/grid.yaml",
        "/scratch/raygrid-1000",
        "/ray/ray",
    } <= found
    assert {"/run/aws/token", "/home/quant/google.json", "/elsewhere/ray"} <= found
    assert "/tmp/ray" not in found


def test_credentials_of_the_blob_store_in_files_are_hidden() -> None:
    """Options name such files, and Google's has a usual place; the user's other credentials stay visible."""
    options = {"web_identity_token_file": "/run/token", "endpoint": "http://minio:9000"}
    assert "/run/token" in hidden(settings(storage={"blobs": "s3://bucket", "blob_options": options}))
    google = hidden(settings(storage={"blobs": "gs://bucket", "blob_options": {"service_account": "/etc/sa.json"}}))
    assert {"/etc/sa.json", "/home/quant/.config/gcloud/application_default_credentials.json"} <= google


def test_the_settings_file_is_hidden_whoever_named_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold API keys and the database's password; its path is absolute, and it travels with the settings."""
    (tmp_path / "grid.yaml").write_text("name: desk\n")
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path / "grid.yaml") in hidden(load_settings(Path("grid.yaml")).for_nodes)
    monkeypatch.setenv("RAYGRID_CONFIG", "grid.yaml")
    by_variable = load_settings()
    assert str(tmp_path / "grid.yaml") in hidden(by_variable)
    assert by_variable.config is None


@pytest.mark.parametrize("state_dir", ["/home/quant", "/home", "/tmp", "/opt/desk"])
def test_a_state_directory_with_other_things_is_hidden_for_this_grid_only(state_dir: str) -> None:
    """Hiding the home directory, /tmp or the directory of a program would break pricers."""
    found = hidden(settings({"p": {"command": ["/opt/desk/price.sh", "{input}"]}}, storage={"state_dir": state_dir}))
    assert f"{state_dir}/default" in found
    assert state_dir not in found


@pytest.mark.parametrize(
    ("pricer", "environment", "needed"),
    [
        ({"command": ["price", "{input}"]}, {"PATH": "/usr/bin:/home/quant/.raygrid/venv/bin"}, ()),
        ({"command": ["price", "{input}"], "env": {"PATH": "/home/quant/.raygrid/bin"}}, {}, ()),
        ({"command": ["/bin/x", "--model=/home/quant/.raygrid/m.json", "{input}"]}, {}, ()),
        ({"command": ["/bin/x", "{input}"], "read": ["~/.raygrid/curves"], "sandbox": "strict"}, {}, ()),
        ({"command": ["/bin/x", "{input}"]}, {}, [Path("/home/quant/.raygrid/venv")]),
    ],
)
def test_whatever_pricers_need_narrows_what_is_hidden(
    pricer: dict[str, Any], environment: dict[str, str], needed: list[Path]
) -> None:
    """The program, its search path, arguments, variables, places to read, and the installation of Python."""
    found = hidden(settings({"p": pricer}), environment, needed=needed)
    assert "/home/quant/.raygrid/default" in found
    assert "/home/quant/.raygrid" not in found


def test_a_program_among_the_files_of_the_grid_is_a_conflict() -> None:
    """The error names the pricer, its path and what to do; a pricer without a sandbox sees everything."""
    inside = {"command": ["/home/quant/.raygrid/default/price.sh", "{input}"]}
    given = settings({"p": inside, "free": {**inside, "sandbox": "off"}, "other": CAT})
    found = conflicts(given, {}, HOME, hidden_paths(given, {}, HOME, uid=1000))
    assert [(each.pricer, str(each.path)) for each in found] == [("p", "/home/quant/.raygrid/default/price.sh")]
    assert "pricer 'p' needs /home/quant/.raygrid/default/price.sh" in str(found[0])
    assert "sandbox: off" in str(found[0])


def test_a_grid_with_a_conflict_does_not_start(tmp_path: Path) -> None:
    """The check before a start raises one error for all pricers."""
    program = tmp_path / "default" / "price.sh"
    given = settings({"p": {"command": [str(program), "{input}"]}}, storage={"state_dir": str(tmp_path)})
    with pytest.raises(SettingsError, match=rf"pricer 'p' needs {program}"):
        require_sandboxes(given)
    require_sandboxes(settings(storage={"state_dir": str(tmp_path)}))


@pytest.mark.parametrize(
    ("uid", "mode", "starts"), [(1000, "protect", False), (1000, "off", True), (0, "strict", True)]
)
def test_only_root_starts_a_grid_whose_pricers_are_another_user(
    uid: int, mode: str, starts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check names the pricer, the user and what to do; the grid's user counts for pricers without their own."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    someone = Account("pricing", 1500, 1500, (1500,), "/home/pricing")
    monkeypatch.setattr("raygrid.local.executables.account", lambda name: someone)
    monkeypatch.setattr("raygrid.local.executables.closed_to", lambda user, directory: None)
    given = settings({"p": CAT}, sandbox_user="pricing", sandbox=mode, storage={"state_dir": str(tmp_path)})
    assert given.pricers["p"].sandbox_user == "pricing"
    if starts:
        require_sandboxes(given)
    else:
        with pytest.raises(SettingsError, match=r"'p' is to run as user 'pricing'.*run the grid as root, or remove"):
            require_sandboxes(given)


def test_words_that_are_known_only_with_a_job_are_no_conflict() -> None:
    """Placeholders stand for paths in the job directory, which the sandbox shows."""
    given = settings({"p": {"command": ["/bin/x", "--in={input}", "{output_dir}/y", "-"]}})
    assert conflicts(given, {}, HOME, hidden_paths(given, {}, HOME, uid=1000)) == ()


def test_a_user_who_cannot_reach_the_state_is_refused_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state directory itself may be closed: sandboxes show the user's own directory in it."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    someone = Account("pricing", os.getuid() + 1500, 1500, (1500,), "/home/pricing")
    monkeypatch.setattr("raygrid.local.executables.account", lambda name: someone)
    state = tmp_path / "around" / "state"
    state.mkdir(parents=True)
    given = settings({"p": CAT}, sandbox_user="pricing", storage={"state_dir": str(state)})
    state.chmod(0o700)
    of_pytest = [path for path in tmp_path.parents if path.name.startswith(("pytest", "popen"))]
    for around in (*of_pytest, tmp_path, state.parent):
        around.chmod(0o711)
    require_sandboxes(given)
    state.parent.chmod(0o700)
    with pytest.raises(SettingsError, match=rf"may not enter {state.parent}, .*chmod o\+x"):
        require_sandboxes(given)
