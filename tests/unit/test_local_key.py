"""A grid on a machine that does not show the users of connections gets a key of its own."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from raygrid.system import local_key


def test_no_key_is_made_where_connections_show_their_users(tmp_path: Path) -> None:
    assert local_key.needed(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_elsewhere_a_key_is_made_once_and_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients find it in the grid's file; it stays the same after a restart."""

    def refuses() -> None:
        raise OSError("no socket diagnostics here")

    monkeypatch.setattr(local_key, "Peers", refuses)
    key = local_key.needed(tmp_path)
    assert key is not None
    assert len(key) >= 32
    assert local_key.needed(tmp_path) == key
    assert [(path.name, stat.S_IMODE(path.stat().st_mode)) for path in tmp_path.iterdir()] == [("local_key", 0o600)]
