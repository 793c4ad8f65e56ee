"""Settings of the sandbox: what pricers get from the grid, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raygrid.errors import SettingsError
from raygrid.settings.model import GridSettings, load_settings
from raygrid.settings.started_with import StartedWith

COMMAND = {"command": "price {input}"}


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("RAYGRID"):
            monkeypatch.delenv(name)


def settings(pricer: dict[str, Any] | None = None, **grid: Any) -> GridSettings:
    return load_settings(**{"pricers": {"p": {**COMMAND, **(pricer or {})}}, **grid})


def test_protect_is_the_default_and_not_required() -> None:
    """A grid without settings protects itself, and runs jobs also where a mechanism is missing."""
    pricer = settings().pricers["p"]
    assert (pricer.sandbox, pricer.sandbox_mode, pricer.sandbox_required) == ("protect", "protect", False)


@pytest.mark.parametrize(
    ("grid", "pricer", "mode", "required"),
    [
        ({"sandbox": "strict", "sandbox_required": True}, {}, "strict", True),
        ({"sandbox": "strict", "sandbox_required": True}, {"sandbox": "off"}, "off", True),
        ({"sandbox": "off"}, {"sandbox": "protect", "sandbox_required": True}, "protect", True),
        ({"sandbox_required": True}, {"sandbox_required": False}, "protect", False),
    ],
)
def test_a_pricer_has_its_own_value_or_that_of_the_grid(
    grid: dict[str, Any], pricer: dict[str, Any], mode: str, required: bool
) -> None:
    """Nodes receive pricers only, so each pricer carries what holds for it."""
    found = settings(pricer, **grid).for_nodes.pricers["p"]
    assert (found.sandbox_mode, found.sandbox_required) == (mode, required)


def test_a_variable_decides_for_pricers_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment wins over the file before pricers get the grid's value."""
    monkeypatch.setenv("RAYGRID__SANDBOX", "off")
    monkeypatch.setenv("RAYGRID__SANDBOX_REQUIRED", "true")
    assert settings(sandbox="strict").pricers["p"].sandbox_mode == "off"
    assert settings().pricers["p"].sandbox_required is True


def test_paths_are_absolute_or_below_home() -> None:
    """Each node reads `~/` as its own home directory."""
    pricer = settings({"sandbox": "strict", "read": ["/opt/market", "~/models"], "write": ["/tmp/out"]}).pricers["p"]
    assert (pricer.read, pricer.write) == (("/opt/market", "~/models"), ("/tmp/out",))


@pytest.mark.parametrize("name", ["read", "write"])
@pytest.mark.parametrize("path", ["models", "./models", "", "~", "~other/models", "$HOME/models"])
def test_other_paths_are_refused(name: str, path: str) -> None:
    """A relative path would mean another directory on each node; the error says what to write."""
    with pytest.raises(
        SettingsError, match=rf"pricers\.p\.{name}\.0: write an absolute path, or one that begins with ~/"
    ):
        settings({name: [path]})


@pytest.mark.parametrize(
    ("wrong", "fragment"),
    [
        ({"sandbox": "strickt"}, r"pricers\.p\.sandbox: must be 'protect', 'strict' or 'off'"),
        ({"read": "/opt"}, r"pricers\.p\.read: must be a list"),
        ({"read": ["/opt\0"]}, r"pricers\.p\.read\.0: a path cannot contain NUL"),
        ({"network": "sometimes"}, r"pricers\.p\.network: must be true or false"),
    ],
)
def test_values_that_mean_nothing_are_refused(wrong: dict[str, Any], fragment: str) -> None:
    """The error names the place and what is allowed there."""
    with pytest.raises(SettingsError, match=fragment):
        settings(wrong)


def test_off_in_a_file_is_text(tmp_path: Path) -> None:
    """YAML reads a bare `off` as false; every setting with that value accepts it."""
    path = tmp_path / "grid.yaml"
    path.write_text("sandbox: off\npricers:\n  p: {command: price, sandbox: off, reuse: off}\n", encoding="utf-8")
    found = load_settings(path)
    assert (found.sandbox, found.pricers["p"].sandbox, found.pricers["p"].reuse) == ("off", "off", "off")


@pytest.mark.parametrize("mode", ["protect", "off"])
def test_permissions_without_effect_are_accepted(mode: str) -> None:
    """A grid may be switched from `strict` to another sandbox without a change of its pricers."""
    settings({"read": ["/opt"], "write": ["~/cache"], "network": True}, sandbox=mode)
    settings({"network": False}, sandbox=mode)  # as in settings that were read, written and read again


def test_a_change_of_the_grids_sandbox_is_one_difference() -> None:
    """Not one for each pricer that has the grid's value; a pricer's own value is one."""
    protect, strict = settings(), settings(sandbox="strict")
    assert StartedWith.of(protect, 1, 1).differences(strict, 1, 1) == [
        "sandbox: the grid uses protect, you asked for strict"
    ]
    own = settings({"sandbox": "strict"})
    assert StartedWith.of(protect, 1, 1).differences(own, 1, 1) == [
        "pricers.p.sandbox: the grid uses nothing, you asked for strict"
    ]
