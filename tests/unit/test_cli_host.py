"""`raygrid host` and `raygrid deploy`: what they ask of the cluster's parts, and their errors."""

from __future__ import annotations

import functools
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private import services
from ray.exceptions import AuthenticationError
from typer.testing import CliRunner, Result

import raygrid.cluster
from raygrid.cli import app
from raygrid.cluster import HostSpec
from raygrid.cluster import autoscaler as autoscaler_module
from raygrid.parent import ingress


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's own grid and Ray are not used."""
    for name in ("RAYGRID_CONFIG", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAYGRID_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(services, "find_gcs_addresses", functools.cache(set[str]))  # Ray clears its cache


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


class Starter:
    """Stands in for the start of a supervisor; records its arguments."""

    def __init__(self, *, fresh: bool = True) -> None:
        self.fresh = fresh
        self.specs: list[HostSpec] = []
        self.reported: list[tuple[str, ...]] = []

    def start(self, spec: HostSpec) -> bool:
        self.specs.append(spec)
        return self.fresh


@pytest.fixture
def starter(monkeypatch: pytest.MonkeyPatch) -> Starter:
    made = Starter()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    monkeypatch.setattr(raygrid.cluster, "start_host", made.start)
    monkeypatch.setattr(autoscaler_module, "update_autoscaler", made.reported.append)
    return made


def test_without_a_token_nothing_is_started(starter: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would retry without end, with the reason only in its log."""
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")

    ended = run("host", "start", "--head", "--dir", str(tmp_path))

    assert ended.exit_code == 2
    assert "make one with `ray get-auth-token --generate`" in ended.stderr
    assert starter.specs == []


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ([], "a machine is either the head (--head) or a worker (--address HEAD:PORT)"),
        (["--head", "--address", "10.0.0.1:1"], "a machine is either the head (--head) or a worker"),
        (["--address", "10.0.0.1"], "--address must be HOST:PORT of the head, not '10.0.0.1'"),
        (["--head", "--rack", "rack-a"], "the head runs no pricers, so it has no rack; leave --rack out"),
        (["--head", "--storage", "disk"], "--storage must be rocksdb, memory or redis://HOST:PORT, not 'disk'"),
        (["--address", "h:1", "--rack-file", "{dir}/two-words"], "must hold one word, the name of this machine's rack"),
    ],
)
def test_an_impossible_start_is_refused(starter: Starter, tmp_path: Path, words: list[str], fragment: str) -> None:
    (tmp_path / "two-words").write_text("rack a")

    ended = run("host", "start", *(word.replace("{dir}", str(tmp_path)) for word in words))

    assert ended.exit_code == 2
    assert fragment in ended.stderr
    assert ended.stderr.count("\n") == 1  # a sentence, not a traceback
    assert starter.specs == []


@pytest.mark.parametrize("words", [["--port", "0"], ["--port", "65536"], ["--object-store", "1000"]])
def test_numbers_out_of_range_are_refused(starter: Starter, words: list[str]) -> None:
    ended = run("host", "start", "--head", *words)

    assert ended.exit_code == 2
    assert f"Invalid value for '{words[0]}'" in ended.stderr
    assert starter.specs == []


def test_a_worker_takes_its_rack_from_the_file(starter: Starter, tmp_path: Path) -> None:
    (tmp_path / "rack").write_text("rack-b\n")

    ended = run("host", "start", "--address", "h:1", "--rack-file", str(tmp_path / "rack"), "--dir", str(tmp_path))

    assert (ended.exit_code, ended.stdout) == (0, "this machine is a worker of rack-b\n")
    assert [(spec.rack, spec.address, spec.directory) for spec in starter.specs] == [("rack-b", "h:1", tmp_path)]


def test_a_head_is_no_worker_even_if_the_file_names_a_rack(starter: Starter, tmp_path: Path) -> None:
    (tmp_path / "rack").write_text("rack-b\n")

    ended = run("host", "start", "--head", "--rack-file", str(tmp_path / "rack"), "--", "--verbose", "--x=y")

    assert (ended.exit_code, ended.stdout) == (0, "this machine is the head\n")
    assert [(spec.rack, spec.ray_args) for spec in starter.specs] == [(None, ("--verbose", "--x=y"))]
    assert starter.reported == []  # an autoscaler that has just begun knows its machines


def test_a_machine_without_a_rack_is_an_error(starter: Starter, tmp_path: Path) -> None:
    ended = run("host", "start", "--address", "h:1", "--rack-file", str(tmp_path / "none"))

    assert (ended.exit_code, ended.stdout) == (0, "this machine is a worker without a rack\n")


def test_starting_a_head_that_runs_already_reports_new_machines_to_its_autoscaler(starter: Starter) -> None:
    starter.fresh = False

    ended = run("host", "start", "--head", "--", "--autoscaling-config=c.yaml")

    assert (ended.exit_code, ended.stdout) == (0, "this machine is part of a cluster already\n")
    assert starter.reported == [("--autoscaling-config=c.yaml",)]


def test_stopping_when_nothing_runs_is_no_error(tmp_path: Path) -> None:
    ended = run("host", "stop", "--dir", str(tmp_path / "never"))

    assert (ended.exit_code, ended.stdout) == (0, "no Ray runs here under a supervisor\n")
    assert not (tmp_path / "never").exists()


def settings_file(tmp_path: Path, **storage: Any) -> str:
    path = tmp_path / "grid.yaml"
    key = {"name": "test", "key": "a-key-that-is-long-enough"}
    path.write_text(json.dumps({"http": {"host": "0.0.0.0", "api_keys": [key]}, "storage": storage}))
    path.chmod(0o600)
    return str(path)


class NoRay:
    """Stands in for the connection to Ray; fails with an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.addresses: list[object] = []

    def init(self, address: object = None, **_: object) -> None:
        self.addresses.append(address)
        if self.error is not None:
            raise self.error


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> NoRay:
    made = NoRay()
    monkeypatch.setattr(ray, "init", made.init)
    return made


def test_deploying_without_grid_and_cluster_contacts_no_other_ray_of_the_machine(no_ray: NoRay, tmp_path: Path) -> None:
    """A Ray that runs here for something else is not contacted; the message has what to do."""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")

    ended = run("deploy", "--config", settings_file(tmp_path), "--dir", str(tmp_path / "none"))

    assert ended.exit_code == 1
    assert ended.stderr.startswith("no grid default runs on this machine (`raygrid up` starts one), and no Ray cluster")
    assert ended.stderr.count("\n") == 1
    assert no_ray.addresses == []


def test_pricers_and_slots_of_a_cluster_are_in_its_settings_file(
    no_ray: NoRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command line of this machine would have no meaning on a cluster."""
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:1")

    ended = run("deploy", "--pricer", "true {input}", "--dir", str(tmp_path / "none"))

    assert (ended.exit_code, no_ray.addresses) == (2, [])
    assert "--pricer and --slots are for a grid on this machine; put them into --config" in ended.stderr


@pytest.mark.parametrize("address", ["local"])
def test_deploying_without_ray_is_an_error_and_starts_none(
    no_ray: NoRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)

    ended = run("deploy", "--config", settings_file(tmp_path), "--dir", str(tmp_path / "none"))

    assert ended.exit_code == 1
    assert ended.stderr.startswith("no Ray cluster runs on this machine; deploy on a machine of the cluster")
    assert ended.stderr.count("\n") == 1
    assert no_ray.addresses == []


@pytest.mark.parametrize("known_by", ["RAY_ADDRESS", "a file"])
def test_deploying_to_a_head_that_is_gone_fails_at_once(
    no_ray: NoRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known_by: str
) -> None:
    """Ray itself would retry for more than three minutes. Its file outlives a head that was killed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    if known_by == "RAY_ADDRESS":
        monkeypatch.setenv("RAY_ADDRESS", address)
    else:
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)
        monkeypatch.setattr(raygrid.cluster, "is_supervised", lambda _: True)
    began = time.monotonic()

    ended = run("deploy", "--config", settings_file(tmp_path), "--dir", str(tmp_path / "none"))

    assert time.monotonic() - began < 5
    assert ended.exit_code == 1
    assert "does not answer ([Errno 111] Connection refused); start it with `raygrid host start --head`" in ended.stderr
    assert no_ray.addresses == []


def test_a_malformed_address_is_refused(no_ray: NoRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")

    ended = run("deploy", "--config", settings_file(tmp_path), "--dir", str(tmp_path / "none"))

    assert (ended.exit_code, ended.stderr) == (2, "RAY_ADDRESS must be HOST:PORT of the cluster's head\n")
    assert no_ray.addresses == []


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A head that answers."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{listener.getsockname()[1]}")
        yield listener


@pytest.mark.parametrize(
    "error", [AuthenticationError("no token was found"), RuntimeError("no"), ConnectionError("no")]
)
def test_a_cluster_that_refuses_the_login_is_an_error_with_the_reason(
    no_ray: NoRay, head: socket.socket, tmp_path: Path, error: Exception
) -> None:
    no_ray.error = error

    ended = run("deploy", "--config", settings_file(tmp_path), "--dir", str(tmp_path / "none"))

    assert ended.exit_code == 1
    assert f"refused the connection: {error}".rstrip(".") in ended.stderr
    assert len(no_ray.addresses) == 1


@pytest.mark.parametrize(
    ("machines", "racks", "fragment"),
    [
        (3, ["rack-a"], "the cluster has 3 machines, but storage.database is a SQLite file"),
        (1, [], "the cluster has 2 machines, but storage.database is a SQLite file"),  # more will join the head
    ],
)
def test_a_cluster_needs_a_database_that_machines_can_share(
    no_ray: NoRay,
    head: socket.socket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    machines: int,
    racks: list[str],
    fragment: str,
) -> None:
    ended_with: list[str] = []
    monkeypatch.setattr(ray, "shutdown", lambda: ended_with.append("shutdown"))
    monkeypatch.setattr(ingress, "machines", lambda _: machines)
    monkeypatch.setattr(ingress, "live_nodes", list)
    monkeypatch.setattr(ingress, "groups_of", lambda *_: racks)
    monkeypatch.setattr(ingress, "serve", SimpleNamespace())

    ended = run("deploy", "--config", settings_file(tmp_path), "--dir", str(tmp_path / "none"))

    assert ended.exit_code == 2
    assert fragment in ended.stderr
    assert "set storage.database to postgresql+asyncpg://" in ended.stderr
    assert ended_with == ["shutdown"]


def test_deploying_uses_the_settings_that_ray_has_here(
    no_ray: NoRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "to be restored")
    monkeypatch.delenv("RAY_AUTH_MODE")
    (tmp_path / "host.json").write_text(json.dumps({"pid": 1, "state": "up", "ray": {"RAY_AUTH_MODE": "token"}}))
    monkeypatch.setattr(raygrid.cluster, "is_supervised", lambda _: True)

    run("deploy", "--config", settings_file(tmp_path), "--dir", str(tmp_path))

    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_settings_that_do_not_exist_are_refused_before_anything_else(no_ray: NoRay, tmp_path: Path) -> None:
    ended = run("deploy", "--config", str(tmp_path / "none.yaml"))

    assert ended.exit_code == 2
    assert "none.yaml" in ended.stderr
    assert no_ray.addresses == []
