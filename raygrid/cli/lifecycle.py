"""`raygrid up` and `raygrid down`: a grid on this machine."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from raygrid import local
from raygrid.cli.grid import INTERRUPTED, complain, err, out, waiting
from raygrid.cli.local_grid import (
    commands_of,
    nodes_in_words,
    pricer_commands,
    require_same,
    running,
    settings_of,
    start,
)
from raygrid.errors import SettingsError
from raygrid.settings.model import GridSettings
from raygrid.settings.sources import set_by_variables
from raygrid.system.grid_file import down_command
from raygrid.system.home import usual_state_dir


def up(
    *,
    pricer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]COMMAND",
            help="What to run, such as './pricer.exe {input}'. Repeatable. Warm pricers: in --config.",
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file, grid.yaml.")] = None,
    no_input: Annotated[
        bool, typer.Option("--no-input", help="Let a --pricer command have no {input}: it reads no file.")
    ] = False,
    racks: Annotated[int | None, typer.Option(min=1, help="Racks (groups) to start; 1 by default.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes in each rack; 1 by default.")] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Jobs at once on each node.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on.")] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; one that others can reach needs API keys.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the grid, to run several side by side.")] = None,
) -> None:
    """Start a grid on this machine; returns when it takes jobs. The grid runs until `raygrid down`.

    Its logs are in ~/.raygrid/NAME/logs (below RAYGRID_STATE_DIR or storage.state_dir, if set), and stay there.

    Running `up` again is safe: it succeeds if the running grid matches your options; otherwise it lists the
    differences. Options and variables are compared one by one, a settings file with all settings; without any of them,
    `up` only makes sure that a grid runs.
    """
    pricers = pricer_commands(pricer or [])
    http = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    settings = settings_of(pricers, config, name=name, http=http, slots=slots, without_input=no_input)
    grid = running(settings)
    if grid is not None:
        said = commands_of(pricers) | {f"http.{key}" for key in http} | ({"node.slots"} if slots else set())
        require_same(grid, settings, racks, nodes, _with_variables(said, config))
        out().print(f"grid {grid.name} runs already at {grid.url} (process {grid.pid})", highlight=False)
        return
    racks, nodes = racks or 1, nodes or 1
    try:
        with waiting(f"starting {nodes_in_words(racks * nodes)}"):
            grid = start(settings, racks, nodes)
    except KeyboardInterrupt:
        complain(f"interrupted; parts of the grid may have started: `{_down(settings)}` stops them")
        raise typer.Exit(INTERRUPTED) from None
    out().print(f"grid {grid.name} is up at {grid.url}\n", highlight=False)
    command = "raygrid" if _is_default(settings.grid_dir) else f"raygrid --url {grid.url}"
    names = sorted(settings.pricers)
    choice = "" if settings.default_pricer or len(names) == 1 else f" --pricer {names[0]}"
    out().print(
        f"  {command} submit trades/*.csv{choice}\n  {command} status\n  {_down(settings)}",
        highlight=False,
        markup=False,
    )


def down(
    name: Annotated[str | None, typer.Option(help="Name of the grid.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file that the grid was started with.")] = None,
) -> None:
    """Stop a grid on this machine; the next `raygrid up` continues with every job that was acknowledged."""
    settings = settings_of({}, config, name=name)
    try:
        grid = running(settings)
    except SettingsError:
        grid = None  # its file cannot be read; that of its lock can
    if grid is None:
        with err().status(f"looking for grid {settings.name}"):
            stopped = local.stop_supervisor(settings)
        said = "had no readable file, or was just starting or stopping; it is down" if stopped else "does not run here"
        out().print(f"grid {settings.name} {said}", highlight=False)
        return
    with err().status(f"stopping grid {grid.name}"):
        local.stop_grid(grid)
    out().print(f"grid {grid.name} is down", highlight=False)


def _with_variables(said: set[str], config: Path | None) -> Collection[str] | None:
    """The settings that are asked for: all of them where a file is read, which asks also by leaving a line out."""
    return None if config is not None or os.environ.get("RAYGRID_CONFIG") else said | set_by_variables()


def _is_default(grid_dir: Path) -> bool:
    """Whether the other commands find this grid by themselves."""
    if os.environ.get("RAYGRID_URL"):
        return False
    usual = usual_state_dir()
    return usual is not None and grid_dir == usual / "default"


def _down(settings: GridSettings) -> str:
    return down_command(settings.grid_dir, settings.config)
