"""How a running autoscaler learns of machines that were added to cluster.yaml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.local import config as ray_config

from raygrid.cluster.autoscaler import configuration, update_autoscaler
from raygrid.errors import SettingsError

HEAD = "10.0.0.10"
UP: dict[str, Any] = {"tags": {"ray-node-type": "worker", "ray-node-status": "up-to-date"}, "state": "running"}


@pytest.fixture(autouse=True)
def _rays_own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written where the machine's own Ray keeps its files."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert ray_config.get_state_path("x").startswith(str(tmp_path))
    assert ray_config.get_lock_path("x").startswith(str(tmp_path))


def write(tmp_path: Path, workers: list[str], **provider: Any) -> str:
    """A configuration of the autoscaler; gives the option that names it."""
    path = tmp_path / "bootstrap.yaml"
    config = {"cluster_name": "grid", "provider": {"type": "local", "head_ip": HEAD, "worker_ips": workers, **provider}}
    path.write_text(yaml.safe_dump(config))
    return f"--autoscaling-config={path}"


def state() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(ray_config.get_state_path("grid")).read_text())
    return found


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], None),
        (["--verbose", "--autoscaling"], None),
        (["--autoscaling-config"], None),
        (["--autoscaling-config="], None),
        (["--autoscaling-config-of=x"], None),
        (["-v", "--autoscaling-config=/a/b=c.yaml", "-w"], Path("/a/b=c.yaml")),
        (["-v", "--autoscaling-config", "/a/b.yaml", "-w"], Path("/a/b.yaml")),
    ],
)
def test_the_configuration_is_found_among_the_options(words: list[str], found: Path | None) -> None:
    assert configuration(words) == found


def test_a_tilde_in_the_path_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell has expanded the tilde behind an equals sign."""
    monkeypatch.setenv("HOME", "/home/of-somebody")

    assert configuration(["--autoscaling-config=~/c.yaml"]) == Path("/home/of-somebody/c.yaml")


def test_new_machines_are_reported_and_those_that_run_keep_their_state(tmp_path: Path) -> None:
    update_autoscaler([write(tmp_path, ["10.0.0.11"])])
    Path(ray_config.get_state_path("grid")).write_text(json.dumps({**state(), "10.0.0.11": UP}))

    update_autoscaler([write(tmp_path, ["10.0.0.11", "10.0.0.12"])])

    assert set(state()) == {HEAD, "10.0.0.11", "10.0.0.12"}
    assert state()["10.0.0.11"] == UP
    assert state()["10.0.0.12"]["state"] == "terminated"  # it is free to be started


def test_machines_that_were_removed_are_dropped(tmp_path: Path) -> None:
    update_autoscaler([write(tmp_path, ["10.0.0.11", "10.0.0.12"])])
    update_autoscaler([write(tmp_path, ["10.0.0.12"])])

    assert set(state()) == {HEAD, "10.0.0.12"}


def test_without_an_autoscaler_nothing_is_reported(tmp_path: Path) -> None:
    update_autoscaler(["--verbose"])

    assert list(tmp_path.iterdir()) == []


def test_other_providers_need_no_report(tmp_path: Path) -> None:
    update_autoscaler([write(tmp_path, [], type="aws")])

    assert [path.name for path in tmp_path.iterdir()] == ["bootstrap.yaml"]


@pytest.mark.parametrize("text", [b"", b"[1]", b"provider: local\ncluster_name: x", b"cluster_name: x"])
def test_what_is_no_configuration_is_an_error(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "c.yaml").write_bytes(text)

    with pytest.raises(SettingsError, match=r"c\.yaml is not an autoscaler's configuration; it needs cluster_name"):
        update_autoscaler(["--autoscaling-config", str(tmp_path / "c.yaml")])


@pytest.mark.parametrize("text", [None, b"a: [", b"\xff\xfe\x00"])
def test_a_configuration_that_cannot_be_read_is_an_error(tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / "c.yaml").write_bytes(text)

    with pytest.raises(SettingsError, match=r"cannot read the autoscaler's configuration .*c\.yaml"):
        update_autoscaler(["--autoscaling-config", str(tmp_path / "c.yaml")])
