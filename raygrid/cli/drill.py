"""`raygrid drill`: break a part of a running grid on purpose, and check that no job is lost."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import httpx
import typer

from raygrid.cli.grid import INTERRUPTED, GridChoice, new_table, print_error, print_note, print_out, print_table
from raygrid.cli.local_grid import settings_of
from raygrid.cli.options import HOST_DIRECTORY, AsJson, HostDirectory
from raygrid.client import Client
from raygrid.client.default import find_grid
from raygrid.drill.local import grid_at, way_into
from raygrid.errors import SettingsError
from raygrid.system.home import expanded

if TYPE_CHECKING:
    from raygrid.drill.injector import Injector
    from raygrid.drill.report import Report
    from raygrid.local import GridFile
    from raygrid.settings.model import GridSettings

PRICER = "drill"
HARMLESS = """pricers:
  drill:
    command: [sh, -c, 'sleep 0.2; cat "$0"', "{input}"]
    result: stdout"""


class What(StrEnum):
    """The parts that a drill can break."""

    LEADER = "leader"
    NODE = "node"
    AGENT = "agent"
    GROUP = "group"
    PARENT = "parent"
    HEAD = "head"
    ALL = "all"
    EVERYTHING = "everything"


def drill(
    context: typer.Context,
    what: Annotated[
        What,
        typer.Argument(
            help="The part to break. `all` breaks one part after the other. `everything` kills all processes of a grid "
            "on this machine and starts it again."
        ),
    ],
    *,
    jobs: Annotated[int, typer.Option(min=1, help="Smallest number of jobs in each scenario.")] = 100,
    runs: Annotated[int, typer.Option(min=1, help="Number of runs of each scenario; medians are shown.")] = 1,
    pricer: Annotated[
        str | None, typer.Option(help=f"Harmless pricer for the load; by default the one called `{PRICER}`.")
    ] = None,
    urls: Annotated[
        list[str] | None,
        typer.Option("--url", help="Entry of the grid; repeatable, or several separated by commas. By default all."),
    ] = None,
    as_json: AsJson = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, even if the grid runs other jobs.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="For `everything`: the settings file that the grid was started with.")
    ] = None,
    directory: HostDirectory = HOST_DIRECTORY,
) -> None:
    """Break a part of the running grid under load, and check that no job is lost.

    The last line states the outcome. The exit code is 1 if a job was lost or failed, a result was wrong, or another
    guarantee did not hold.
    """
    choice: GridChoice = context.obj
    given = [url.strip() for word in urls or [] for url in word.split(",") if url.strip()]
    url, key = find_grid(given[0] if given else choice.url, choice.api_key)
    environment, local_key = _way_into_ray(url, expanded(directory).absolute())
    key = key or local_key
    with Client(url, key) as client:
        name = _pricer(client, pricer)
        _ask(client, yes)
    try:
        if what is What.EVERYTHING:
            reports = asyncio.run(_lose_everything(url, key, name, jobs, config))
        else:
            reports = asyncio.run(_run(given or [url], key, name, environment, what, jobs, runs, expand=not given))
    except KeyboardInterrupt:
        print_error("interrupted; frozen processes were continued, and the jobs of the drill are cancelled")
        raise typer.Exit(INTERRUPTED) from None
    from raygrid.drill.report import medians, summary  # noqa: PLC0415 - only this command needs it

    rows = medians(reports)
    if as_json:
        print(json.dumps({"scenarios": [*map(asdict, reports)], "medians": rows}))
    else:
        _show(reports, rows)
    for report in reports:
        for violation in report.violations[:10]:
            print_error(f"{report.scenario}: {violation}")
    well = all(report.is_well for report in reports)
    if not as_json:
        print_out(summary(reports), style="" if well else "red")
    raise typer.Exit(0 if well else 1)


def _pricer(client: Client, wanted: str | None) -> str:
    """Choose the pricer of the load.

    Raises:
        SettingsError: the grid has no such pricer; the message shows the settings to add.
    """
    there = {pricer.name for pricer in client.pricers()}
    name = wanted or PRICER
    if name in there:
        return name
    if wanted is not None:
        raise SettingsError(f"the grid has no pricer {wanted}; it has: {', '.join(sorted(there))}")
    raise SettingsError(
        f"a drill needs a harmless pricer, and this grid has none called {PRICER}. Add it to the grid's settings "
        f"(grid.yaml):\n\n{HARMLESS}\n\nor name with --pricer another one whose results depend on its input only"
    )


def _ask(client: Client, yes: bool) -> None:
    """Ask for confirmation if the grid runs other jobs.

    Raises:
        SettingsError: standard input is not a terminal.
    """
    capacity = client.capacity()
    busy = capacity.running + capacity.queued
    if yes or not busy:
        return
    warning = (
        f"the grid has other work: {capacity.running} jobs run and {capacity.queued} wait. A drill loses no job, but "
        "jobs on the broken part run again"
    )
    if not sys.stdin.isatty():
        raise SettingsError(f"{warning}. To go on, add --yes")
    if not typer.confirm(f"{warning}. Go on?", err=True):
        raise typer.Exit(1)


def _way_into_ray(url: str, directory: Path) -> tuple[Mapping[str, str], str | None]:
    """The environment for joining the grid's Ray cluster, and the API key in the file of a grid on this machine."""
    grid = _local_grid(url)
    if grid is not None:
        return way_into(grid), grid.api_key
    from raygrid.cluster import adopt_environment  # noqa: PLC0415 - only drills need it

    adopt_environment(directory)
    return {}, None


def _local_grid(url: str) -> GridFile | None:
    return grid_at(url, Path(os.environ.get("RAYGRID_STATE_DIR") or "~/.raygrid"))


def open_injector(environment: Mapping[str, str]) -> Callable[[], Injector]:
    """Give the function that makes an injector of faults, for each scenario a new one."""
    from raygrid.drill.injector import RayInjector  # noqa: PLC0415 - only drills need it

    return lambda: RayInjector(environment)


async def _run(
    urls: Sequence[str],
    key: str | None,
    pricer: str,
    environment: Mapping[str, str],
    what: What,
    jobs: int,
    runs: int,
    *,
    expand: bool,
) -> list[Report]:
    from raygrid.drill.drill import Drill  # noqa: PLC0415 - only this command needs it
    from raygrid.drill.scenarios import COMMANDS  # noqa: PLC0415

    make = open_injector(environment)
    if expand:
        urls = await _entries(urls[0], make)
    print_note(f"load: pricer {pricer}, through {', '.join(urls)}")
    drilled = Drill(urls, key, pricer, make, jobs=jobs, say=print_note)
    return await drilled.run(COMMANDS[what.value], runs)


async def _lose_everything(url: str, key: str | None, pricer: str, jobs: int, config: Path | None) -> list[Report]:
    from raygrid.drill.drill import Drill  # noqa: PLC0415 - only this command needs it
    from raygrid.drill.everything import lose_everything  # noqa: PLC0415

    grid = _local_grid(url)
    if grid is None:
        raise SettingsError(f"`raygrid drill everything` is for a grid on this machine, and none listens at {url}")
    settings = settings_of({}, config, name=grid.name)
    _require_known(grid, settings)
    drilled = Drill([url], key, pricer, open_injector({}), jobs=jobs, say=print_note)
    with Client(url, key) as client:
        slots = client.capacity().slots
    return [await lose_everything(drilled, grid, settings, slots)]


def _require_known(grid: GridFile, settings: GridSettings) -> None:
    """Refuse to kill a grid that these settings would not start again as it was.

    Raises:
        SettingsError: lists the differences and what to do.
    """
    unknown = grid.started_with.differences(settings, None, None) if grid.started_with is not None else []
    if unknown:
        raise SettingsError(
            "\n  - ".join((f"the drill cannot start grid {grid.name} again as it was:", *unknown))
            + "\nName the settings file that it was started with (--config). Options of `raygrid up` (--pricer, "
            "--slots, --port) must be in that file, or in RAYGRID__ variables"
        )


async def _entries(url: str, make: Callable[[], Injector]) -> list[str]:
    """The entries of all machines of a cluster, if `url` is on this machine and that is part of one; else `url`."""
    parsed = urlsplit(url)
    if parsed.hostname not in ("127.0.0.1", "localhost", "::1"):
        return [url]
    injector = make()
    try:
        addresses = sorted({place.address for place in (await injector.look()).places})
    finally:
        await injector.close()
    if len(addresses) < 2:
        return [url]
    found = [f"{parsed.scheme}://{address}:{parsed.port or 80}" for address in addresses]
    async with httpx.AsyncClient(timeout=3.0, trust_env=False) as client:
        alive = await asyncio.gather(*(client.get(f"{each}/health/live") for each in found), return_exceptions=True)
    answers = zip(found, alive, strict=True)
    return [each for each, answer in answers if isinstance(answer, httpx.Response) and answer.is_success] or [url]


def _show(reports: Sequence[Report], rows: Sequence[Mapping[str, Any]]) -> None:
    counts = ("runs", "acknowledged", "done", "lost", "failed", "repeated", "wrong")
    table = new_table("Results of the drill", ("scenario",), (*counts, "client errors", "recovery"))
    notes = {row["scenario"]: _note(row, reports) for row in rows}
    noted = any(notes.values())
    if noted:
        table.add_column("note")
    for row in rows:
        numbers = [str(row[name]) for name in counts]
        recovery = "-" if row["recovery_s"] is None else f"{row['recovery_s']:.1f} s"
        note = [notes[row["scenario"]]] if noted else []
        table.add_row(row["scenario"], *numbers, str(row["client_errors"]), recovery, *note)
    print_table(table)


def _note(row: Mapping[str, Any], reports: Sequence[Report]) -> str:
    if row["skipped"]:
        return f"skipped: {row['skipped']}"
    return next((report.note for report in reports if report.scenario == row["scenario"] and report.note), "")
