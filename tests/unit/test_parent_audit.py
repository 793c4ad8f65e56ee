"""Lines of the audit log: what they hide, how long they are, and how many a stranger can cause."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raygrid.core.access import LOCAL, new_key
from raygrid.parent.audit import MOST_STRANGERS, AuditEntry, AuditLog

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ENTRY = AuditEntry("r1", LOCAL, "127.0.0.1", "DELETE /keys/{id}", "/keys/x", 404)


def line_of(path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(replace(ENTRY, path=path).line(NOW))
    return found


def test_a_key_in_a_path_is_masked() -> None:
    """Some send the whole key where its id belongs."""
    key, key_id = new_key()
    assert line_of(f"/keys/{key}")["path"] == f"/keys/rg_{key_id}_***"
    assert line_of(f"/a/{key}/{key}/rotate")["path"].count("***") == 2


@pytest.mark.parametrize("character", ["x", "\x01", "\u00e9", "\U0001f600", '"', "\\"])
def test_a_line_is_short_whatever_the_path_is(character: str) -> None:
    """JSON writes some characters with twelve."""
    line = replace(ENTRY, path="/" + character * 5_000).line(NOW)
    assert len(line) < 900
    assert json.loads(line)["path"].startswith("/" + character)


def lines_in(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in directory.iterdir() for line in path.read_text().splitlines()]


def test_strangers_cannot_displace_the_lines_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many requests without a valid key some are recorded, and the next line says how many are not."""
    now = [1_000.0]
    monkeypatch.setattr("raygrid.parent.audit.time", SimpleNamespace(monotonic=lambda: now[0]))
    log = AuditLog(tmp_path)
    stranger = replace(ENTRY, caller=None, status=401)
    for _ in range(MOST_STRANGERS + 500):
        log.write(stranger)
    log.write(ENTRY)
    log.write(ENTRY)
    now[0] += 60
    log.write(stranger)
    log.close()
    lines = lines_in(tmp_path)
    assert len(lines) == MOST_STRANGERS + 3
    assert [line.get("left_out") for line in lines if line["owner"] == "local"] == [500, None]
    assert lines[-1]["owner"] is None
