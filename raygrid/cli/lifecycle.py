"""`raygrid up` and `raygrid down`: a grid on this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from raygrid import local
from raygrid.cli.grid import INTERRUPTED, err, print_error, print_note, print_out, waiting
from raygrid.cli.local_grid import commands_of, nodes_in_words, pricer_commands, running, settings_of, start
from raygrid.cli.options import GridName, NoInput, PricerCommands, SettingsFile, SlotCount, StartedWithFile
from raygrid.cli.sandbox import note_after_start
from raygrid.client import Client
from raygrid.client.retry import RetryPolicy
from raygrid.errors import RaygridError, SettingsError
from raygrid.local import GridFile
from raygrid.settings.model import GridSettings
from raygrid.settings.sources import set_by_variables
from raygrid.system.grid_file import down_command
from raygrid.system.home import usual_state_dir

ANSWER_S = 2.0  # longest wait of `raygrid down` for the number of unfinished jobs


def up(
    *,
    pricer: PricerCommands = None,
    config: SettingsFile = None,
    no_input: NoInput = False,
    racks: Annotated[int | None, typer.Option(min=1, help="Racks (groups) to start; 1 by default.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes in each rack; 1 by default.")] = None,
    slots: SlotCount = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on.")] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; one that other machines can reach needs API keys.")
    ] = None,
    name: GridName = None,
) -> None:
    """Start a grid on this machine and return when it takes jobs. The grid runs until `raygrid down`.

    Its logs are in ~/.raygrid/NAME/logs (below RAYGRID_STATE_DIR or storage.state_dir, if set) and are kept.

    Running `up` again is safe: it succeeds if the running grid matches your options; otherwise it lists the
    differences. Options and variables are compared one by one, a settings file with all settings; without any of them,
    `up` only makes sure that a grid runs.
    """
    pricers = pricer_commands(pricer or [])
    http = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    settings = settings_of(pricers, config, name=name, http=http, slots=slots, without_input=no_input)
    grid = running(settings)
    if grid is not None:
        given = commands_of(pricers) | {f"http.{key}" for key in http} | ({"node.slots"} if slots else set())
        local.require_same(grid, settings, racks, nodes, _compared(given, config))
        print_out(f"grid {grid.name} runs already at {grid.url} (process {grid.pid})")
        return
    racks, nodes = racks or 1, nodes or 1
    try:
        with waiting(f"starting {nodes_in_words(racks * nodes)}"):
            grid = start(settings, racks, nodes)
    except KeyboardInterrupt:
        print_error(f"interrupted; parts of the grid may have started: `{_down(settings)}` stops them")
        raise typer.Exit(INTERRUPTED) from None
    print_out(f"grid {grid.name} is up at {grid.url}\n")
    command = "raygrid" if _is_default(settings.grid_dir) else f"raygrid --url {grid.url}"
    names = sorted(settings.pricers)
    choice = "" if settings.default_pricer or len(names) == 1 else f" --pricer {names[0]}"
    print_out(f"  {command} submit trades/*.csv{choice}\n  {command} status\n  {_down(settings)}")
    _note_sandbox(grid, command)


def down(name: GridName = None, config: StartedWithFile = None) -> None:
    """Stop a grid on this machine; the next `raygrid up` continues with every job that was acknowledged."""
    settings = settings_of({}, config, name=name)
    try:
        grid = running(settings)
    except SettingsError:
        grid = None  # the grid's file cannot be read, but its lock can
    if grid is None:
        with err().status(f"looking for grid {settings.name}"):
            stopped = local.stop_supervisor(settings)
        state = "had no readable file, or was just starting or stopping; it is down" if stopped else "does not run here"
        print_out(f"grid {settings.name} {state}")
        return
    with err().status(f"stopping grid {grid.name}"):
        unfinished = _unfinished(grid)
        local.stop_grid(grid)
    print_out(f"grid {grid.name} is down")
    if unfinished:
        jobs = "1 unfinished job continues" if unfinished == 1 else f"{unfinished:,} unfinished jobs continue"
        print_note(f"{jobs} with the next `raygrid up`")


def _compared(given: set[str], config: Path | None) -> Collection[str] | None:
    """The settings to compare with those of the running grid; None for all.

    With a settings file all are compared, because a setting that the file leaves out has its default.
    """
    return None if config is not None or os.environ.get("RAYGRID_CONFIG") else given | set_by_variables()


def _note_sandbox(grid: GridFile, command: str) -> None:
    """Print a line if a sandbox leaves something open; the grid is up, so nothing here is an error."""
    retry = RetryPolicy(retry_s=0, first_contact_s=1)
    with contextlib.suppress(RaygridError), Client(grid.url, grid.api_key, retry=retry) as client:
        if (note := note_after_start(client.nodes(), command)) is not None:
            print_note(note)


def _unfinished(grid: GridFile) -> int:
    """How many jobs the grid has queued or running; 0 if it does not answer at once, because it is to be stopped."""
    retry = RetryPolicy(retry_s=0, first_contact_s=0)
    try:
        with Client(grid.url, grid.api_key, retry=retry, timeout=ANSWER_S) as client:
            capacity = client.capacity()
    except RaygridError:
        return 0
    return capacity.queued + capacity.running


def _is_default(grid_dir: Path) -> bool:
    """Whether other commands find this grid without `--url`."""
    if os.environ.get("RAYGRID_URL"):
        return False
    usual = usual_state_dir()
    return usual is not None and grid_dir == usual / "default"


def _down(settings: GridSettings) -> str:
    return down_command(settings.grid_dir, settings.config)
