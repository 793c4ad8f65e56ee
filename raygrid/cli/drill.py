"""`raygrid drill`: break a part of a running grid on purpose, and see that nothing is lost."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import httpx
import typer
from rich.table import Table
from rich.text import Text

from raygrid.cli.grid import INTERRUPTED, GridChoice, complain, err, out, print_table
from raygrid.cli.local_grid import settings_of
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
    """What can be broken."""

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
            help="The part to break; `all` breaks each, one after the other; `everything`, on a grid of this machine, "
            "kills all of its processes and starts it again."
        ),
    ],
    *,
    jobs: Annotated[int, typer.Option(min=1, help="Run at least this many jobs in each scenario.")] = 100,
    runs: Annotated[int, typer.Option(min=1, help="Run each scenario this many times, and show medians.")] = 1,
    pricer: Annotated[
        str | None, typer.Option(help=f"A harmless pricer for the load; by default the one called `{PRICER}`.")
    ] = None,
    urls: Annotated[
        list[str] | None,
        typer.Option("--url", help="An entry of the grid; repeatable, or several with commas. By default all of them."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, even if the grid has other work.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="For `everything`: the settings file that the grid was started with.")
    ] = None,
    directory: Annotated[
        Path, typer.Option("--dir", help="On a machine of a cluster: where `raygrid host` keeps its state.")
    ] = Path("~/.raygrid/host"),
) -> None:
    """Break a part of the running grid under load, and check that nothing is lost.

    The last line states the outcome in a sentence.

    Exits with 1 if a job was lost or failed, a result was wrong, or a promise was broken.
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
        complain("interrupted; what was frozen goes on, and the jobs of the drill are cancelled")
        raise typer.Exit(INTERRUPTED) from None
    from raygrid.drill.report import medians, verdict  # noqa: PLC0415 - only this command needs it

    rows = medians(reports)
    if as_json:
        print(json.dumps({"scenarios": [report.as_json() for report in reports], "medians": rows}))
    else:
        _show(reports, rows)
    for report in reports:
        for violation in report.violations[:10]:
            complain(f"{report.scenario}: {violation}")
    well = all(report.is_well for report in reports)
    if not as_json:
        out().print(Text(verdict(reports), style="" if well else "red"), highlight=False)
    raise typer.Exit(0 if well else 1)


def _pricer(client: Client, wanted: str | None) -> str:
    """The pricer of the load.

    Raises:
        SettingsError: the grid has none for it; says what to add.
    """
    there = {pricer.name for pricer in client.pricers()}
    name = wanted or PRICER
    if name in there:
        return name
    if wanted is not None:
        raise SettingsError(f"the grid has no pricer {wanted}; it has: {', '.join(sorted(there))}")
    raise SettingsError(
        f"a drill needs a harmless pricer, and this grid has none called {PRICER}. Add it to the grid's settings "
        f"(grid.yaml):\n\n{HARMLESS}\n\nor name another one with --pricer, whose results depend on its input only"
    )


def _ask(client: Client, yes: bool) -> None:
    """Ask before breaking a grid that others work on.

    Raises:
        SettingsError: there is nobody to ask.
    """
    capacity = client.capacity()
    busy = capacity.running + capacity.queued
    if yes or not busy:
        return
    said = f"the grid has other work: {capacity.running} jobs run and {capacity.queued} wait. None is lost by a drill"
    if not sys.stdin.isatty():
        raise SettingsError(f"{said}, but those that are hit run again. Say --yes to go on")
    if not typer.confirm(f"{said}, but those that are hit run again. Go on?", err=True):
        raise typer.Exit(1)


def _way_into_ray(url: str, directory: Path) -> tuple[Mapping[str, str], str | None]:
    """The environment that leads into the grid's Ray cluster, and the API key that a grid on this machine left."""
    grid = _local_grid(url)
    if grid is not None:
        return way_into(grid), grid.api_key
    from raygrid.cluster import adopt_environment  # noqa: PLC0415 - only drills need it

    adopt_environment(directory)
    return {}, None


def _local_grid(url: str) -> GridFile | None:
    return grid_at(url, Path(os.environ.get("RAYGRID_STATE_DIR") or "~/.raygrid"))


def open_injector(environment: Mapping[str, str]) -> Callable[[], Injector]:
    """What breaks things, made anew for every scenario."""
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
    console = err()
    console.print(f"load: pricer {pricer}, through {', '.join(urls)}", highlight=False, markup=False)

    def say(words: str) -> None:
        console.print(words, highlight=False, markup=False)

    drilled = Drill(urls, key, pricer, make, jobs=jobs, say=say)
    return await drilled.run(COMMANDS[what.value], runs)


async def _lose_everything(url: str, key: str | None, pricer: str, jobs: int, config: Path | None) -> list[Report]:
    from raygrid.drill.drill import Drill  # noqa: PLC0415 - only this command needs it
    from raygrid.drill.everything import lose_everything  # noqa: PLC0415

    grid = _local_grid(url)
    if grid is None:
        raise SettingsError(f"`raygrid drill everything` is for a grid on this machine, and none listens at {url}")
    settings = settings_of({}, config, name=grid.name)
    _require_known(grid, settings)
    console = err()
    drilled = Drill(
        [url],
        key,
        pricer,
        open_injector({}),
        jobs=jobs,
        say=lambda words: console.print(words, highlight=False, markup=False),
    )
    with Client(url, key) as client:
        slots = client.capacity().slots
    return [await lose_everything(drilled, grid, settings, slots)]


def _require_known(grid: GridFile, settings: GridSettings) -> None:
    """Refuse to kill a grid that could not be started again as it was.

    Raises:
        SettingsError: says what is not known of it, and what to do.
    """
    unknown = grid.started_with.differences(settings, None, None) if grid.started_with is not None else []
    if unknown:
        raise SettingsError(
            "\n  - ".join((f"the drill has to start grid {grid.name} again as it was, and would not:", *unknown))
            + "\nSay with --config which settings file it was started with. What was said on the command line of "
            "`raygrid up` (--pricer, --slots, --port) has to stand in that file, or in RAYGRID__ variables"
        )


async def _entries(url: str, make: Callable[[], Injector]) -> list[str]:
    """On a machine of a cluster, the entries of all of its machines; elsewhere the one that was named."""
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
    well = [
        each
        for each, answer in zip(found, alive, strict=True)
        if isinstance(answer, httpx.Response) and answer.is_success
    ]
    return well or [url]


def _show(reports: Sequence[Report], rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title="What the drill found")
    table.add_column("scenario")
    for column in ("runs", "acknowledged", "done", "lost", "failed", "repeated", "wrong", "client errors", "recovery"):
        table.add_column(column, justify="right")
    notes = {row["scenario"]: _note(row, reports) for row in rows}
    noted = any(notes.values())
    if noted:
        table.add_column("note")
    for row in rows:
        numbers = [str(row[name]) for name in ("runs", "acknowledged", "done", "lost", "failed", "repeated", "wrong")]
        recovery = "-" if row["recovery_s"] is None else f"{row['recovery_s']:.1f} s"
        note = [notes[row["scenario"]]] if noted else []
        table.add_row(row["scenario"], *numbers, str(row["client_errors"]), recovery, *note)
    print_table(table)


def _note(row: Mapping[str, Any], reports: Sequence[Report]) -> str:
    if row["skipped"]:
        return f"skipped: {row['skipped']}"
    return next((report.note for report in reports if report.scenario == row["scenario"] and report.note), "")
