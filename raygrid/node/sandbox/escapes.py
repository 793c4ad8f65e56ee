"""Where a pricer could leave its sandbox without breaking it: services that start programs, and code that others run.

A service that this user may ask, such as systemd or Docker, would start a program outside of the sandbox; sandboxes
hide its socket. The grid itself, or the user at the next login, would run what a pricer wrote into their files;
sandboxes make these read-only. Pure: entries need not exist.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

# Each gives its user the machine's root account, as far as their permissions let the grid's user in.
_ENGINES = ("docker.sock", "podman", "containerd", "crio", "libvirt", "lxd", "incus")
_FOR_ROOT = ("dbus", "systemd/private", "systemd/io.systemd.Manager", "snapd.socket", "snapd-snap.socket")
_STARTUP = (
    *(".ssh", ".config/systemd", ".config/autostart", ".config/environment.d", ".config/fish", ".pam_environment"),
    *(".profile", ".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".bash_aliases", ".login", ".cshrc"),
    *(".zshenv", ".zprofile", ".zshrc", ".zlogin", ".kshrc", ".tmux.conf", ".screenrc", ".vimrc", ".gitconfig"),
)


def service_sockets(environment: Mapping[str, str], uid: int) -> tuple[Path, ...]:
    """Files and directories with sockets of services that start programs for this user: to hide.

    The user's systemd and D-Bus are in its runtime directory, terminal multiplexers in temporary directories.
    """
    runtime = [Path(f"/run/user/{uid}")]
    if environment.get("XDG_RUNTIME_DIR"):
        runtime.append(Path(environment["XDG_RUNTIME_DIR"]))
    terminals = [Path(environment.get("TMUX_TMPDIR") or "/tmp") / f"tmux-{uid}"]  # noqa: S108 - tmux's choice
    engines = [Path("/run") / name for name in (*_ENGINES, *(_FOR_ROOT if uid == 0 else ()))]
    return (*runtime, *terminals, *engines, Path("/var/lib/lxd/unix.socket"), Path("/var/lib/incus/unix.socket"))


def code_of_others(home: Path, installation: Iterable[Path], used: Collection[Path]) -> tuple[Path, ...]:
    """Files and directories with code that runs outside of sandboxes: to make read-only.

    Args:
        home: the home directory of the grid's user.
        installation: the directories from which the grid's processes load code.
        used: directories that pricers write to, such as temporary ones; what contains one of them, or the home
            directory, stays writable.
    """
    kept = {Path(os.path.normpath(path)) for path in installation if path.is_absolute()}
    kept |= {home / name for name in _STARTUP}
    return tuple(sorted(path for path in kept if not any(each.is_relative_to(path) for each in (home, *used))))
