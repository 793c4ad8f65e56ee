"""Paths that begin with `~` without a home directory: an error in one sentence, no traceback."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from raygrid.errors import SettingsError
from raygrid.settings.model import load_settings
from raygrid.system.home import expanded, usual_state_dir

# As a user runs it that the system does not know.
HOMELESS_RAYGRID = """
import pwd, sys
pwd.getpwuid = {}.__getitem__
from raygrid.cli import app
sys.exit(app())
"""


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """HOME is not set, and the system does not know the user, as in many containers."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "RAYGRID_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_a_tilde_becomes_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tilde at the beginning of a path is the home directory; others are names."""
    monkeypatch.setenv("HOME", "/home/desk")
    assert expanded("~/x") == Path("/home/desk/x")
    assert expanded(Path("~")) == Path("/home/desk")
    assert expanded("/a/~/b") == Path("/a/~/b")
    assert expanded("a") == Path("a")


@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_error_has_what_to_set() -> None:
    """It names the path and the variables; what needs no home goes on."""
    with pytest.raises(SettingsError, match=r"no home directory for ~/\.raygrid: set HOME; or set RAYGRID_STATE_DIR"):
        _ = load_settings().grid_dir
    assert load_settings(storage={"state_dir": "/var/grid"}).grid_dir == Path("/var/grid/default")
    assert usual_state_dir() is None


def test_an_empty_home_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """HOME= would put the state below the root directory."""
    monkeypatch.setenv("HOME", "")
    with pytest.raises(SettingsError, match="set HOME"):
        expanded("~/.raygrid")


def test_an_unknown_user_has_no_home() -> None:
    """`~name` of an unknown user is an error."""
    with pytest.raises(SettingsError, match="no home directory for ~nobody-of-that-name/x"):
        expanded("~nobody-of-that-name/x")


@pytest.mark.parametrize("words", [["jobs"], ["down"], ["up", "--pricer", "cat {input}"], ["host", "stop"], ["status"]])
def test_commands_end_with_a_sentence(words: list[str]) -> None:
    """A user without a home directory gets one line with what to set, and exit code 2."""
    env = {name: value for name, value in os.environ.items() if name not in ("HOME", "RAYGRID_STATE_DIR")}
    command = [sys.executable, "-c", HOMELESS_RAYGRID, *words]
    ran = subprocess.run(command, check=False, env=env, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "set HOME" in ran.stderr
