"""What a machine of a cluster runs, and with which settings."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from raygrid.cluster.spec import HostSpec, rack_of
from raygrid.errors import SettingsError

REDIS = "redis://:secret@10.0.0.9:6379"
HERE = Path("/somewhere")
ROOT = Path(__file__).parents[2]


def head(**more: Any) -> HostSpec:
    return HostSpec(HERE, head=True, **more)


def worker(**more: Any) -> HostSpec:
    return HostSpec(HERE, **{"address": "10.0.0.1:6379", **more})


@pytest.mark.parametrize("both", [{}, {"address": ""}, {"head": True, "address": "10.0.0.1:6379"}])
def test_a_machine_is_the_head_or_a_worker(both: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"either the head \(--head\) or a worker \(--address HEAD:PORT\)"):
        HostSpec(HERE, **both)


@pytest.mark.parametrize("address", ["10.0.0.1", "10.0.0.1:", "10.0.0.1:x", ":6379", "6379", "head:0", "head:65536"])
def test_an_address_without_a_host_or_a_port_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match=f"--address must be HOST:PORT of the head, not '{address}'"):
        worker(address=address)


@pytest.mark.parametrize(
    ("address", "known"), [("10.0.0.1:6379", ("10.0.0.1", 6379)), ("head:1", ("head", 1)), ("[::1]:99", ("::1", 99))]
)
def test_a_worker_knows_where_its_head_listens(address: str, known: tuple[str, int]) -> None:
    assert worker(address=address).head_address == known


def test_the_head_listens_on_its_own_port() -> None:
    assert head(port=7000).head_address == ("127.0.0.1", 7000)


def test_the_head_has_no_rack() -> None:
    with pytest.raises(SettingsError, match="the head runs no pricers, so it has no rack; leave --rack out"):
        head(rack="rack-a")


@pytest.mark.parametrize("storage", ["rocksdb", "memory", REDIS, "rediss://10.0.0.9:6379"])
def test_the_head_keeps_its_books_in_one_of_these(storage: str) -> None:
    assert head(storage=storage).storage == storage


@pytest.mark.parametrize("storage", ["", "redis", "10.0.0.9:6379", "s3://bucket", "postgresql://db"])
def test_the_head_keeps_its_books_nowhere_else(storage: str) -> None:
    with pytest.raises(SettingsError, match="--storage must be rocksdb, memory or redis://HOST:PORT"):
        head(storage=storage)


def options(spec: HostSpec) -> list[str]:
    """The command line behind `ray start`."""
    command = spec.command()
    assert command[:5] == [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    return command[5:]


def test_the_head_starts_without_slots_and_without_a_dashboard() -> None:
    found = options(head(name="n1", port=7000, object_store=99, ray_args=("--include-dashboard=true", "-v")))

    assert found == [
        *("--node-name=n1", "--object-store-memory=99", "--head", "--port=7000", "--num-cpus=0"),
        *("--include-dashboard=false", "--include-log-monitor=false"),
        *("--include-dashboard=true", "-v"),  # the last one wins
    ]


def test_a_worker_joins_with_its_rack_as_a_resource() -> None:
    found = options(worker(name="n1", rack="rack-a", object_store=99, ray_args=("-v",)))

    expected = ["--node-name=n1", "--object-store-memory=99", "--address=10.0.0.1:6379"]
    assert found == [*expected, '--resources={"rack-a": 1}', "--include-log-monitor=false", "-v"]


def test_a_worker_without_a_rack_offers_none() -> None:
    assert "--resources={}" in options(worker())


def test_a_node_is_named_after_its_machine_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "machine-7")

    assert "--node-name=machine-7" in options(worker())


def test_what_is_set_already_wins() -> None:
    environment = worker().environment({"RAY_AUTH_MODE": "disabled", "OTHER": "kept"})

    assert environment["RAY_AUTH_MODE"] == "disabled"
    assert environment["OTHER"] == "kept"
    assert environment["RAY_worker_niceness"] == "0"
    assert environment["RAY_memory_monitor_refresh_ms"] == "0"
    assert environment["RAY_worker_oom_score_adjustment"] == "0"


def test_a_cluster_is_closed_to_strangers_by_default() -> None:
    assert {each.environment({})["RAY_AUTH_MODE"] for each in (head(), worker())} == {"token"}


@pytest.mark.parametrize("role", [head, worker])
def test_http_goes_through_haproxy_by_default(role: Callable[..., HostSpec]) -> None:
    assert role().environment({})["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert "RAY_SERVE_ENABLE_HA_PROXY" not in role(haproxy=False).environment({})


def test_ray_knows_the_settings_of_its_entries_that_are_made() -> None:
    """Ray ignores a variable that it does not know."""
    ray = find_spec("ray")
    assert ray is not None
    assert ray.origin is not None
    source = (Path(ray.origin).parent / "serve/_private/constants.py").read_text()

    ours = [name for name in worker().public_environment if name.startswith("RAY_SERVE_HAPROXY_")]

    assert len(ours) == 2
    assert [name for name in ours if f'"{name}"' not in source] == []


def test_the_books_lie_in_the_directory_of_the_head() -> None:
    environment = head().environment({})

    assert environment["RAY_gcs_storage"] == "rocksdb"
    assert environment["RAY_gcs_storage_path"] == "/somewhere/gcs"


@pytest.mark.parametrize("spec", [worker(), head(storage="memory"), head(storage=REDIS)])
def test_only_a_head_with_rocksdb_has_such_books(spec: HostSpec) -> None:
    assert not [name for name in spec.environment({}) if name.startswith("RAY_gcs_storage")]


def test_the_url_of_redis_reaches_only_ray_on_the_head() -> None:
    """It may hold a password, and the public environment lies in a file."""
    assert head(storage=REDIS).environment({})["RAY_REDIS_ADDRESS"] == REDIS
    assert "secret" not in str(head(storage=REDIS).public_environment)
    assert "secret" not in str(head(storage=REDIS).command())
    assert "RAY_REDIS_ADDRESS" not in worker(storage=REDIS).environment({})


@pytest.mark.parametrize(
    "spec",
    [
        head(port=7000, storage=REDIS, haproxy=False),
        worker(rack="rack-a", name="n", object_store=5, ray_args=("--a", "b c")),
    ],
)
def test_a_spec_is_unchanged_when_the_supervisor_reads_it(spec: HostSpec) -> None:
    line = spec.to_json()

    assert "\n" not in line
    assert HostSpec.from_json(line) == spec
    assert json.loads(line)["directory"] == "/somewhere"


def test_the_option_gives_the_rack(tmp_path: Path) -> None:
    (tmp_path / "rack").write_text("rack-b\n")

    assert rack_of(tmp_path / "rack", "rack-a") == "rack-a"
    assert rack_of(tmp_path / "rack", "") is None  # given, and empty: a machine without pricers


@pytest.mark.parametrize("text", ["rack-b", "rack-b\n", "\n  rack-b \n\n"])
def test_the_rack_is_the_word_in_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "rack").write_text(text)

    assert rack_of(tmp_path / "rack", None) == "rack-b"


def test_a_machine_without_the_file_has_no_rack(tmp_path: Path) -> None:
    assert rack_of(tmp_path / "rack", None) is None


@pytest.mark.parametrize("text", ["", "\n", "rack a", "rack-a\nrack-b\n"])
def test_a_file_that_does_not_hold_one_word_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "rack").write_text(text)

    with pytest.raises(SettingsError, match=r"/rack must hold one word, the name of this machine's rack"):
        rack_of(tmp_path / "rack", None)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(SettingsError, match=r"cannot read this machine's rack from .*/binary"):
        rack_of(tmp_path / "binary", None)
    with pytest.raises(SettingsError, match="cannot read this machine's rack from"):
        rack_of(tmp_path, None)


def test_the_cluster_file_that_is_shipped_loads() -> None:
    """cluster.yaml passes Ray's own validation, counts its workers right, and names the wheel of this version."""
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    assert config["max_workers"] == len(config["provider"]["worker_ips"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(re.findall(r"raygrid-[\d.]+-", text)) == {f"raygrid-{project['version']}-"}
