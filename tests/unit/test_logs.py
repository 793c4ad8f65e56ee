"""Logs of the tiers: plain lines with time, level and tier, in files of bounded size that only their owner reads."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from raygrid.errors import RaygridError
from raygrid.local import start_grid
from raygrid.system.logs import line, log_end, log_size
from tests.unit.test_local_start import settings_for

TIER = """
import logging, sys, threading
from raygrid.system import log_files
log_files.MOST_BYTES = int(sys.argv[2])
log_files.keep_logs(sys.argv[1])
log_files.keep_logs(sys.argv[1])
log = logging.getLogger("raygrid.leader.election")
"""
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) [a-z]+( [^ ]+)?: .*")


def tier(directory: Path | None, code: str, who: str = "leader rack-a", most: int = 10_000) -> str:
    """Run code in a process of a tier; gives what it wrote to its standard error."""
    environment: Mapping[str, str] = {**os.environ, **({"RAYGRID_LOGS": str(directory)} if directory else {})}
    done = subprocess.run(
        [sys.executable, "-c", TIER + code, who, str(most)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stderr


def test_a_line_has_time_level_and_tier() -> None:
    """The time is UTC to the millisecond; further lines are indented, and no control character gets through."""
    at = 1_796_060_401.1239
    assert line(at, "WARNING", "leader rack-a", "lease lost") == (
        "2026-11-30T17:40:01.123Z WARNING leader rack-a: lease lost"
    )
    assert (
        line(at, "INFO", "parent", "a\nb\x1b[31m\tc\n") == "2026-11-30T17:40:01.123Z INFO parent: a\n  b\\x1b[31m\\tc"
    )
    assert line(at, "INFO", "parent", "").endswith(" INFO parent: ")


def test_a_process_of_a_tier_writes_a_file_of_its_own(tmp_path: Path) -> None:
    """Warnings and infos of raygrid, warnings of libraries and the ends of threads are in it; debug output is not."""
    message = tier(
        tmp_path / "logs",
        "log.warning('lease of %s lost', 'rack-a')\n"
        "log.info('価格')\n"
        "log.debug('nothing')\n"
        "logging.getLogger('httpx').info('nothing')\n"
        "logging.getLogger('asyncio').error('never retrieved')\n"
        "thread = threading.Thread(target=lambda: 1 / 0, name='watchdog')\n"
        "thread.start(); thread.join()\n",
    )
    assert message == ""
    [log] = (tmp_path / "logs").glob("*.log")
    assert log.name == "leader-rack-a.log"
    lines = log.read_text(encoding="utf-8").splitlines()
    begins = lines.pop(0)
    assert re.fullmatch(r"INFO leader rack-a: process \d+ begins", begins.partition("Z ")[2])
    assert [each.partition("Z ")[2] for each in lines[:3]] == [
        "WARNING leader rack-a: lease of rack-a lost",
        "INFO leader rack-a: 価格",
        "ERROR leader rack-a: asyncio: never retrieved",
    ]
    assert lines[3].endswith("ERROR leader rack-a: thread watchdog ended with an error")
    assert all(LINE.fullmatch(each) or each.startswith("  ") for each in lines)
    assert lines[-1] == "  ZeroDivisionError: division by zero"
    for path in (tmp_path / "logs").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "logs").stat().st_mode) == 0o700


def test_a_later_process_goes_on_with_the_file_and_one_at_the_same_time_has_another(tmp_path: Path) -> None:
    """What was logged before a restart stays; two processes of one name never rotate the same file."""
    tier(tmp_path, "log.warning('first')\n")
    second = f"import subprocess\nsubprocess.run([sys.executable, '-c', {TIER + 'log.warning(3)'!r}, *sys.argv[1:]])\n"
    tier(tmp_path, f"log.warning('second')\n{second}")
    found = {path.name: path.read_text().count("WARNING") for path in tmp_path.glob("*.log")}
    assert found == {"leader-rack-a.log": 2, "leader-rack-a-2.log": 1}


def test_a_log_is_bounded(tmp_path: Path) -> None:
    """Of a process that logs without end a few files of the largest size are left."""
    tier(tmp_path, "for n in range(5_000): log.warning('line %d', n)\n", "agent node/../é 1")
    files = {path.name: path.stat().st_size for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert sorted(files) == [f"agent-node-..-1.log{end}" for end in ("", ".1", ".2", ".3")]
    assert max(files.values()) <= 10_000
    assert (tmp_path / "agent-node-..-1.log").read_text().splitlines()[-1].endswith("line 4999")


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null/logs"])
def test_a_process_without_a_place_for_its_log_goes_on(place: str) -> None:
    """A tier must not end because its log cannot be written; it prints a warning where it can."""
    assert "has no log file in" in tier(Path(place), "print('well')\n")


def test_without_a_directory_nothing_is_set_up() -> None:
    """Processes that no supervisor has started log as Python does by itself."""
    assert tier(None, "log.warning('by itself')\n") == "by itself\n"


SUPERVISOR = """
import sys
from raygrid.system import logs
logs.MOST_BYTES = 2_000
for number in range(200):
    logs.write_line("supervisor", f"line {number} \\udcff")
"""


def test_the_log_of_a_supervisor_is_bounded_too(tmp_path: Path) -> None:
    """It is standard output; what it holds is set aside when it has grown, and no line is lost on the way there."""
    log = tmp_path / "supervisor.log"
    with log.open("ab") as output:
        subprocess.run([sys.executable, "-c", SUPERVISOR], stdout=output, check=True, timeout=60)
    earlier = log.with_name("supervisor.log.1")
    lines = (earlier.read_text() + log.read_text()).splitlines()
    assert all(LINE.fullmatch(each) for each in lines)
    assert lines[-1].endswith("line 199 \\udcff")
    numbers = [int(each.split()[4]) for each in lines]
    assert numbers == list(range(numbers[0], 200))
    assert log.stat().st_size <= 2_000
    assert stat.S_IMODE(earlier.stat().st_mode) == 0o600


def test_an_error_shows_the_end_of_the_log_of_this_life_only(tmp_path: Path) -> None:
    """The log has what earlier processes wrote; a message about this one does not repeat it."""
    log = tmp_path / "supervisor.log"
    assert log_size(log) == 0
    log.write_text("before\n")
    since = log_size(log)
    with log.open("a") as more:
        more.write("now\n")
    assert log_end(log, since) == "now"
    assert log_end(log) == "before\nnow"
    log.write_text("anew\n")
    assert log_end(log, 1000) == "anew"


def test_a_grid_that_does_not_start_names_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of `raygrid up` quotes the log, whose lines have a date, and the log stays."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "ray.py").write_text("raise RuntimeError('no Ray here')\n")
    settings = settings_for(tmp_path)
    with pytest.raises(RaygridError, match="no Ray here") as caught:
        start_grid(settings, timeout_s=60)
    log = settings.grid_dir / "logs" / "supervisor.log"
    assert str(log) in str(caught.value)
    lines = log.read_text().splitlines()
    assert LINE.fullmatch(lines[0])
    assert any(LINE.fullmatch(each) and " ERROR supervisor: Traceback" in each for each in lines)
    assert json.dumps(str(caught.value)).count("Traceback") == 1
