"""Which settings of a grid on this machine can change while it runs, and what its file has afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from raygrid.errors import SettingsError
from raygrid.local import GridFile, require_same, running_grid
from raygrid.local.redeploy import FIXED, note, one_at_a_time, redeployment
from raygrid.settings.model import GridSettings, load_settings
from raygrid.settings.started_with import StartedWith
from raygrid.system.proc import start_time

PRICERS = {"p": {"command": "price {input}", "env": {"TOKEN": "hunter2"}}}


def settings(directory: Path, **changes: Any) -> GridSettings:
    storage = {"state_dir": directory, **changes.pop("storage", {})}
    return load_settings(None, **{"name": "g", "pricers": PRICERS, "storage": storage, **changes})


def test_changeable_settings_are_replaced(tmp_path: Path) -> None:
    """Pricers, quotas, slots and limits of requests are replaced; each change is named, values of variables not."""
    before = settings(tmp_path, groups={"rack-a": {"quota": 2}}, node={"slots": 2})
    asked = settings(
        tmp_path,
        groups={"rack-a": {"quota": 1}},
        node={"slots": 3},
        pricers={"p": {"command": "price {input}", "env": {"TOKEN": "other"}}, "q": {"command": "x {input}"}},
        http={"sync_wait_s": 5},
    )
    found = redeployment(before, asked)
    assert found.settings == asked
    assert found.kept == ()
    assert {line.partition(":")[0] for line in found.changes if "pricers.q" not in line} == {
        "groups.rack-a.quota",
        "http.sync_wait_s",
        "node.slots",
        "pricers.p.env changed",
    }
    assert "groups.rack-a.quota: 2 -> 1" in found.changes
    assert "pricers.q.command: nothing -> x {input}" in found.changes
    assert "other" not in str(found.changes)


def test_the_same_settings_change_nothing(tmp_path: Path) -> None:
    """Equal secrets are no change."""
    assert redeployment(settings(tmp_path), settings(tmp_path)).changes == ()


def test_an_empty_setting_is_shown_as_nothing(tmp_path: Path) -> None:
    """A sentence with a hole in it is hard to read."""
    before = settings(tmp_path, pricers={"desk": {"command": "cat", "read": []}})
    after = settings(tmp_path, pricers={"desk": {"command": "cat", "read": ["/srv/market"]}})
    assert redeployment(before, after).changes == ("pricers.desk.read: nothing -> /srv/market",)
    assert redeployment(after, before).changes == ("pricers.desk.read: /srv/market -> nothing",)
    assert StartedWith.of(before, 1, 1).differences(after, 1, 1) == [
        "pricers.desk.read: the grid uses nothing, you asked for /srv/market"
    ]


OTHER = [
    ({"group_prefix": "site-"}, "group_prefix"),
    ({"http": {"port": 9001}}, "http.port"),
    ({"http": {"host": "127.0.0.2"}}, "http.host"),
    ({"node": {"cache": "1MB"}}, "node.cache"),
    ({"node": {"data_cache": "1MB"}}, "node.data_cache"),
    ({"storage": {"database": "postgresql://u:hunter2@h/d"}}, "storage.database"),
    ({"storage": {"blobs": "/elsewhere/hunter2"}}, "storage.blobs"),
    ({"storage": {"blob_options": {"region": "x"}}}, "storage.blob_options"),
]


@pytest.mark.parametrize(("change", "name"), OTHER, ids=[name for _, name in OTHER])
def test_what_needs_a_restart_is_refused_by_name(tmp_path: Path, change: dict[str, Any], name: str) -> None:
    """Nothing is changed; the message has the restart command, and shows no secret."""
    with pytest.raises(SettingsError, match=f"nothing was changed:\n  - {name}: the grid uses") as caught:
        redeployment(settings(tmp_path), settings(tmp_path, **change))
    assert "raygrid down" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("change", "name"), OTHER, ids=[name for _, name in OTHER])
def test_a_setting_that_new_settings_leave_at_its_default_is_kept(
    tmp_path: Path, change: dict[str, Any], name: str
) -> None:
    """For example the port of `raygrid up --port`, which a settings file does not mention; a note is printed."""
    running = settings(tmp_path, **change)
    found = redeployment(running, settings(tmp_path))
    assert found.settings == running
    assert [line.partition(" ")[0] for line in found.kept] == [name]
    assert "hunter2" not in str(found.kept)


def test_every_fixed_setting_is_tested() -> None:
    """The list above is complete; a grid is found by its state directory, so that one is the same anyway."""
    assert {".".join(path) for path in FIXED} - {"storage.state_dir"} == {name for _, name in OTHER}


def test_afterwards_a_start_with_the_new_settings_finds_the_grid_as_asked_for(tmp_path: Path) -> None:
    """`raygrid up` with what was deployed succeeds; with what ran before, it names the difference."""
    before = settings(tmp_path)
    key = {"name": "k", "key": "0123456789abcdef"}
    newer = settings(tmp_path, groups={"rack-a": {"quota": 1}}, http={"api_keys": [key]})
    mine = start_time(os.getpid())
    assert mine is not None
    (tmp_path / "g").mkdir()
    grid = GridFile("http://127.0.0.1:1", os.getpid(), mine, "g", tmp_path / "g", None, "a:1", None, "token")
    GridFile(**{**_fields(grid), "started_with": StartedWith.of(before, 2, 3)}).write()
    found = running_grid("g", tmp_path)
    assert found is not None

    with one_at_a_time(found):
        note(found, newer)
        with (
            pytest.raises(SettingsError, match="another `raygrid deploy` on grid g is running"),
            one_at_a_time(found),
        ):
            pass

    after = running_grid("g", tmp_path)
    assert after is not None
    assert (after.api_key, after.ray_token) == (key["key"], "token")
    require_same(after, newer, 2, 3)
    with pytest.raises(SettingsError, match=r"groups\.rack-a\.quota: the grid uses 1, you asked for nothing"):
        require_same(after, before, 2, 3)


def _fields(grid: GridFile) -> dict[str, Any]:
    return {name: getattr(grid, name) for name in GridFile.__slots__}


def test_a_deployment_of_the_same_keys_changes_nothing(tmp_path: Path) -> None:
    """Ray's books have only digests of keys; another key is a change, whose value is not shown."""
    key, other = {"name": "k", "key": "0123456789abcdef"}, {"name": "k", "key": "fedcba9876543210"}
    mine = settings(tmp_path, http={"api_keys": [key]})
    assert redeployment(mine.with_hidden_keys, mine).changes == ()
    [change] = redeployment(mine.with_hidden_keys, settings(tmp_path, http={"api_keys": [other]})).changes
    assert "http.api_keys" in change
    assert other["key"] not in change
