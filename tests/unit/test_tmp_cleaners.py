"""A grid's temporary files are not removed by programs that clean /tmp."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from raygrid.local.supervisor import GridSupervisor
from raygrid.settings.model import load_settings
from raygrid.system import ray_directory, tmp_cleaners

OLD_S = 60 * 86_400


def is_locked(directory: Path) -> bool:
    """Whether a process that wants a directory for itself, as a cleaner does, is refused."""
    own = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(own)
    return False


def test_a_grid_locks_its_directory_of_ray_for_its_life(tmp_path: Path) -> None:
    """From the start on, and even while nothing is in it."""
    supervisor = GridSupervisor(load_settings(storage={"state_dir": tmp_path}), 1, 1)
    try:
        assert is_locked(supervisor._ray_dir)
    finally:
        shutil.rmtree(supervisor._ray_dir)


def test_several_grids_lock_one_directory_and_each_keeps_its_lock(tmp_path: Path) -> None:
    """On hosts of a cluster Ray's directory is shared; the lock ends with the last of them."""
    first, second = tmp_cleaners.lock(tmp_path), tmp_cleaners.lock(tmp_path)
    assert first is not None
    assert second is not None
    os.close(first)
    assert is_locked(tmp_path)
    os.close(second)
    assert not is_locked(tmp_path)


def test_a_missing_directory_is_not_locked(tmp_path: Path) -> None:
    """A directory that is missing, or no directory, stops no grid."""
    (tmp_path / "file").touch()
    assert tmp_cleaners.lock(tmp_path / "none") is None
    assert tmp_cleaners.lock(tmp_path / "file") is None


@pytest.mark.parametrize(
    ("environment", "place"),
    [({}, "/tmp/ray"), ({"TMPDIR": "/a"}, "/a/ray"), ({"TMPDIR": "/a", "RAY_TMPDIR": "/b"}, "/b/ray")],
)
def test_the_directory_of_ray_is_found_as_ray_does(
    environment: dict[str, str], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ray finds it itself."""
    from ray._common.utils import get_default_ray_temp_dir

    monkeypatch.setattr(os, "environ", environment)
    assert get_default_ray_temp_dir() == place  # type: ignore[no-untyped-call]  # Ray has no types
    assert str(ray_directory.of_cluster(environment)) == place


def test_systemd_leaves_a_locked_directory_alone(tmp_path: Path) -> None:
    """systemd-tmpfiles itself, where it is installed: old files go, those of the grid stay."""
    cleaner = shutil.which("systemd-tmpfiles")
    if cleaner is None:
        pytest.skip("no systemd-tmpfiles on this machine")
    old = time.time() - OLD_S
    for name in ("grid", "other"):
        (tmp_path / "tmp" / name / "r").mkdir(parents=True)
        (tmp_path / "tmp" / name / "r" / "session").write_text("x")
        os.utime(tmp_path / "tmp" / name / "r" / "session", (old, old))
    (tmp_path / "rules.conf").write_text(f"q {tmp_path}/tmp 0755 - - am:10d\n")
    held = tmp_cleaners.lock(tmp_path / "tmp" / "grid")
    assert held is not None
    try:
        subprocess.run([cleaner, "--clean", str(tmp_path / "rules.conf")], check=False, timeout=30)
    finally:
        os.close(held)
    assert (tmp_path / "tmp" / "grid" / "r" / "session").exists()
    assert not (tmp_path / "tmp" / "other" / "r" / "session").exists()
