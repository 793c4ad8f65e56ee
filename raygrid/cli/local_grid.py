"""Finds or starts the grid on this machine; shared by `raygrid up` and `raygrid.init()`."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raygrid import local
from raygrid.client import Client
from raygrid.client.default import connect
from raygrid.errors import SettingsError
from raygrid.local import GridFile
from raygrid.settings import shell_words
from raygrid.settings.model import GridSettings, load_settings
from raygrid.system.home import expanded

LOCAL_CONTACT_S = 15.0  # a parent of the grid may be restarting
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63})=(?P<command>.+)", re.DOTALL)


def pricer_commands(words: Sequence[str]) -> dict[str, str]:
    """Read `NAME=COMMAND`, or `COMMAND` alone, which gets the name `pricer`.

    Raises:
        SettingsError: two commands have the same name.
    """
    commands: dict[str, str] = {}
    for word in words:
        named = _NAMED.fullmatch(word)
        name, command = (named["name"], named["command"]) if named else ("pricer", word)
        if name in commands:
            raise SettingsError(f"two pricers are called {name!r}; give each a name: --pricer NAME='COMMAND'")
        commands[name] = command
    return commands


def settings_of(
    pricers: Mapping[str, str],
    config: Path | None = None,
    *,
    name: str | None = None,
    http: Mapping[str, Any] | None = None,
    slots: int | None = None,
    without_input: bool = False,
) -> GridSettings:
    """Load the settings from `grid.yaml` and the environment, and override them with the arguments.

    Args:
        pricers: name to command; relative paths in a command are relative to the current directory.
        config: the file, if any.
        name: the grid's name.
        http: host and port.
        slots: slots of each node.
        without_input: accept commands without `{input}`.

    Raises:
        SettingsError: a setting is wrong.
    """
    settings = load_settings(config, **({"name": name} if name else {}))
    if pricers:
        commands = {name: {"command": _from_here(command)} for name, command in pricers.items()}
        if not without_input:
            _require_input(pricers)
        added = load_settings(config, pricers=commands).pricers
        settings = settings.model_copy(update={"pricers": {**settings.pricers, **added}})
    state_dir = os.environ.get("RAYGRID_STATE_DIR")
    changes: dict[str, dict[str, Any]] = {
        "http": dict(http or {}),
        "node": {"slots": slots} if slots else {},
        "storage": {"state_dir": Path(state_dir)} if state_dir else {},
    }
    sections = {
        section: getattr(settings, section).model_copy(update=change) for section, change in changes.items() if change
    }
    settings = settings.model_copy(update={**sections, **({"name": name} if name else {})})
    settings.require_safe_listening()
    return settings


def _require_input(pricers: Mapping[str, str]) -> None:
    for name, command in pricers.items():
        if "{input}" not in command:
            raise SettingsError(
                f"the command of pricer {name!r} has no {{input}}, so it would not get the name of the file to price: "
                f"write for instance '{command} {{input}}'. If it reads no file, use `raygrid up --no-input`, or put "
                "the pricer into grid.yaml"
            )


def _from_here(command: str) -> list[str]:
    """Make the paths of a command absolute, because it runs in the job directory."""
    try:
        words = shell_words.split(command)
    except ValueError as error:
        raise SettingsError(f"the pricer's command {command!r} cannot be read: {error}") from None
    # A first word without a slash is looked up in PATH, as in a shell; with a slash it is a path, existing or not.
    return [
        str(Path(word).absolute()) if ("/" in word and "{" not in word if at == 0 else Path(word).is_file()) else word
        for at, word in enumerate(words)
    ]


def running(settings: GridSettings) -> GridFile | None:
    """The grid of that name, if it runs on this machine."""
    return local.running_grid(settings.name, expanded(settings.storage.state_dir))


def start(settings: GridSettings, racks: int, nodes: int, *, with_caller: bool = False) -> GridFile:
    """Start a grid on this machine; `with_caller` ends it with this process.

    Raises:
        SettingsError: no pricer is configured.
    """
    if not settings.pricers:
        raise SettingsError(
            "no pricer is configured; name its command, for instance: raygrid up --pricer './pricer.exe {input}'"
        )
    return local.start_grid(settings, racks=racks, nodes=nodes, with_caller=with_caller)


def nodes_in_words(count: int) -> str:
    """A number of nodes as text."""
    return "1 node" if count == 1 else f"{count} nodes"


def _announce(message: str) -> None:
    """Log a message; at a prompt or in a notebook print it instead, if the log is not shown."""
    log = logging.getLogger("raygrid")
    log.info(message)
    logged = log.isEnabledFor(logging.INFO) and log.hasHandlers()
    if not logged and (hasattr(sys, "ps1") or sys.flags.interactive):  # IPython and its kernels have a ps1, too
        print(message, file=sys.stderr, flush=True)


def commands_of(pricers: Mapping[str, str]) -> set[str]:
    """The names of the settings that hold the commands of pricers."""
    return {f"pricers.{name}.command".lower() for name in pricers}


def require_pricers(client: Client, wanted: Mapping[str, str]) -> None:
    """Refuse a running grid that lacks a wanted pricer.

    Raises:
        SettingsError: names the missing pricers and what to do.
    """
    if not wanted:
        return
    there = {pricer.name for pricer in client.pricers()}
    if missing := sorted(wanted.keys() - there):
        raise SettingsError(
            f"the grid at {client.url} runs already and has no pricer {', '.join(missing)} (it has: "
            f"{', '.join(sorted(there)) or 'none'}). Stop it with `raygrid down`, then start it with the "
            "pricers you want"
        )


def find_or_start(
    pricer: str | Mapping[str, str] | None, config: str | Path | None, racks: int | None, nodes: int | None
) -> tuple[Client, GridFile | None]:
    """Connect to the configured or running grid, or start one; gives the grid's file if this call started it.

    A running grid must match the arguments: pricers, racks and nodes, and with `config` all settings.
    """
    pricers = {"pricer": pricer} if isinstance(pricer, str) else dict(pricer or {})
    if os.environ.get("RAYGRID_URL"):
        client = connect()
        require_pricers(client, pricers)
        return client, None
    settings = settings_of(pricers, Path(config) if config else None)
    grid = running(settings)
    started = None
    if grid is None:
        racks, nodes = racks or 1, nodes or 1
        _announce(f"raygrid: starting a grid of {nodes_in_words(racks * nodes)} on this machine, which takes a while")
        grid = started = start(settings, racks, nodes, with_caller=True)
    else:
        local.require_same(grid, settings, racks, nodes, None if config is not None else commands_of(pricers))
    key = os.environ.get("RAYGRID_API_KEY") or grid.api_key
    return connect(grid.url, key, contact_s=LOCAL_CONTACT_S), started
