"""What sandboxes hide and make read-only so that pricers start nothing outside of them."""

from __future__ import annotations

from pathlib import Path

from raygrid.node.sandbox.escapes import code_of_others, service_sockets
from raygrid.node.sandbox.hidden import hidden_paths
from raygrid.settings.model import load_settings

HOME = Path("/home/quant")


def test_services_that_start_programs_are_hidden() -> None:
    """The user's systemd and D-Bus, container engines, and servers of terminals."""
    found = set(map(str, service_sockets({}, 1000)))
    assert {"/run/user/1000", "/run/docker.sock", "/run/podman", "/tmp/tmux-1000"} <= found
    assert "/run/dbus" not in found  # an ordinary user starts nothing there
    moved = set(map(str, service_sockets({"XDG_RUNTIME_DIR": "/run/mine", "TMUX_TMPDIR": "/scratch"}, 1000)))
    assert {"/run/mine", "/run/user/1000", "/scratch/tmux-1000"} <= moved
    assert {"/run/dbus", "/run/systemd/private"} <= set(map(str, service_sockets({}, 0)))
    assert set(service_sockets({}, 1000)) <= set(hidden_paths(load_settings(), {}, HOME, uid=1000))


def test_code_that_runs_elsewhere_is_read_only() -> None:
    """The installation of the grid, what shells run at a login, and who may log in."""
    venv, base = Path("/home/quant/desk/venv"), Path("/home/quant/.pyenv/versions/3.11.7")
    found = code_of_others(HOME, [venv, base, Path("relative"), Path("/opt/x/../raygrid")], [Path("/tmp")])
    assert {venv, base, Path("/opt/raygrid"), HOME / ".bashrc", HOME / ".ssh"} <= set(found)
    assert Path("relative") not in found


def test_directories_that_pricers_write_to_stay_writable() -> None:
    """An entry that contains the home directory or a temporary one is left out."""
    found = code_of_others(HOME, [Path("/home"), HOME, Path("/"), Path("/scratch")], [Path("/scratch/tmp")])
    assert set(found).isdisjoint({Path("/home"), HOME, Path("/"), Path("/scratch")})
