"""Where Ray keeps the sessions of grids on one machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from raygrid.errors import SettingsError
from raygrid.local.port import MOST_SOCKET_PATH, ray_prefix
from raygrid.system.ray_directory import make_private, of_user, ray_directories

SOCKET = "12345678/session_2030-12-31_23-59-59_999999_4194304/sockets/plasma_store.999"


def test_only_its_owner_can_use_the_directory(tmp_path: Path) -> None:
    """It is made once, with permissions for the owner only, also if it was there with others."""
    directory = tmp_path / "raygrid-1"
    for _ in range(2):
        make_private(directory)
        assert directory.stat().st_mode & 0o777 == 0o700
        directory.chmod(0o755)


def test_a_directory_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    """A link or a file, and a directory of another user, are errors that name the remedy."""
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "foreign").mkdir()
    foreign = [tmp_path / "link"]
    if os.geteuid() == 0:
        os.chown(tmp_path / "foreign", 12_345, 12_345)
        foreign.append(tmp_path / "foreign")
    for directory in foreign:
        with pytest.raises(SettingsError, match="TMPDIR"):
            make_private(directory)


@pytest.mark.parametrize("uid", [0, 1000, 4_294_967_294])
def test_ray_directories_of_all_grids_of_a_user_are_in_what_sandboxes_hide(
    uid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the user's number is, /tmp is short enough for Ray's sockets."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    prefixes = {ray_prefix(Path(grid)) for grid in ("/state/one", "/state/two")}
    assert len(prefixes) == 2
    for prefix in prefixes:
        assert Path(prefix).parent == of_user("/tmp", uid)
        assert Path(prefix).parent in ray_directories({}, uid)
        assert len(prefix + SOCKET) <= MOST_SOCKET_PATH
