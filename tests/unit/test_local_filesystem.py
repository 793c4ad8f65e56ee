"""A job store in SQLite is on a disk of the machine that uses it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raygrid.errors import SettingsError
from raygrid.local import start_grid
from raygrid.settings.model import GridSettings, load_settings
from raygrid.system import filesystem as module
from raygrid.system.filesystem import kind_of, require_local_job_store


def mounts(tmp_path: Path, kind: str) -> Callable[[str], str | None]:
    """The kernel's list of mounts, with the test's directory on a file system of this kind."""
    device = tmp_path.stat().st_dev
    listed = (
        "22 1 0:9999 / /elsewhere rw shared:1 - nfs4 server:/other rw\n"
        f"36 22 {os.major(device)}:{os.minor(device)} / /home\\040dirs rw,noatime shared:2 - {kind} server:/homes rw\n"
    )
    return {"/proc/self/mountinfo": listed}.get


def settings(tmp_path: Path, **storage: Any) -> GridSettings:
    return load_settings(
        pricers={"true": {"command": "true"}}, storage={"state_dir": tmp_path / "new" / "s", **storage}
    )


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "fuse.sshfs"])
def test_a_job_store_on_a_network_file_system_is_refused(tmp_path: Path, kind: str) -> None:
    """Also if its directory does not exist yet; the error has what to set."""
    with pytest.raises(SettingsError, match=rf"a network file system \({kind}\).*RAYGRID_STATE_DIR"):
        require_local_job_store(settings(tmp_path), mounts(tmp_path, kind))
    url = f"sqlite:///{tmp_path}/other/jobs.db"
    with pytest.raises(SettingsError, match="RAYGRID_STATE_DIR"):
        require_local_job_store(settings(tmp_path, database=url), mounts(tmp_path, kind))


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuse.fuse-overlayfs", "lustre"])
def test_disks_of_the_machine_are_accepted(tmp_path: Path, kind: str) -> None:
    """File systems whose locks and shared memory work are accepted, too."""
    require_local_job_store(settings(tmp_path), mounts(tmp_path, kind))


def test_postgresql_allows_any_file_system(tmp_path: Path) -> None:
    """With PostgreSQL only blobs are there, and these may be shared."""
    url = "postgresql://user@db.test/raygrid"
    require_local_job_store(settings(tmp_path, database=url), mounts(tmp_path, "nfs4"))


def test_an_unknown_file_system_is_accepted(tmp_path: Path) -> None:
    """There is no list of mounts, or none with this device, as for a subvolume."""
    require_local_job_store(settings(tmp_path), lambda _: None)
    assert kind_of(tmp_path, lambda _: "") is None


def test_a_grid_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`raygrid up` fails at once."""
    monkeypatch.setattr(module, "kind_of", lambda *_: "nfs4")
    with pytest.raises(SettingsError, match="network file system"):
        start_grid(settings(tmp_path))
    assert not (tmp_path / "new").exists()
