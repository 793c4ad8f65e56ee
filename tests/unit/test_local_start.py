"""What can be known about a grid on this machine before anything is started."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from raygrid.config import load_settings
from raygrid.errors import SettingsError
from raygrid.local import GridFile, running_grid, start_grid
from raygrid.local.grid_file import start_time
from raygrid.local.supervisor import node_name, only_one


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    """A port that somebody else has is an error that names it and says what to do; nothing is left behind."""
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


def test_the_grid_file_is_its_owners_alone(tmp_path: Path) -> None:
    """The file may hold an API key, so nobody else may read it."""
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
