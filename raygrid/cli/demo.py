"""`raygrid demo`: price the example book on a grid on this machine, and kill a node agent meanwhile."""

from __future__ import annotations

import asyncio
import csv
import io
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from raygrid import local
from raygrid.cli.grid import new_table, out, print_error, print_out, progress_bar, waiting
from raygrid.client import Client
from raygrid.drill.local import way_into
from raygrid.errors import RaygridError, SettingsError
from raygrid.models import JobState
from raygrid.settings.model import load_settings

if TYPE_CHECKING:
    from raygrid.local import GridFile

NODES = 2  # jobs of the node whose agent is killed run again on the other one
RESULT = "prices.csv"


def demo(
    examples: Annotated[Path, typer.Option(help="Directory of the project's examples.")] = Path("examples"),
    results: Annotated[Path, typer.Option("--out", help="Directory for the results.")] = Path("demo-results"),
    files: Annotated[int, typer.Option(min=1, help="Number of input files, one job each.")] = 40,
    instruments: Annotated[int, typer.Option(min=1, help="Number of instruments in each file.")] = 25,
) -> None:
    """Start a grid on this machine, price an example book on it, show the prices, and stop it.

    After half of the jobs a node agent is killed, to show that no job is lost.
    """
    here = examples.absolute() / "quantlib"
    if not (here / "price.py").is_file():
        raise SettingsError(f"no example pricer at {here}; run this in the project's directory, or use --examples DIR")
    with tempfile.TemporaryDirectory(prefix="raygrid-demo-") as scratch:
        book = _write_book(here / "book.py", Path(scratch) / "book", files, instruments)
        settings = load_settings(
            name="demo",
            pricers={"quantlib": {"command": [sys.executable, str(here / "price.py"), "{input}"]}},
            http={"port": local.free_port()},
            storage={"state_dir": scratch},
        )
        with waiting(f"starting a grid of {NODES} nodes on this machine"):
            grid = local.start_grid(settings, nodes=NODES, with_caller=True)
        try:
            with asyncio.Runner() as runner:
                failed = _price(Client(grid.url), book, results.absolute(), *_aim_at_agent(grid, runner))
        finally:
            with waiting("stopping the grid"):
                local.stop_grid(grid)
    print(f"demo: {files - failed} jobs done, {failed} failed")
    raise typer.Exit(1 if failed else 0)


def _write_book(program: Path, directory: Path, files: int, instruments: int) -> list[Path]:
    command = [sys.executable, str(program), str(directory), f"--files={files}", f"--instruments={instruments}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return sorted(directory.glob("*.csv"))


def _aim_at_agent(grid: GridFile, runner: asyncio.Runner) -> tuple[str, Callable[[], None]]:
    """Choose the grid's last node; gives its name and the function that kills its agent."""
    from raygrid.drill.injector import FaultTarget, RayInjector  # noqa: PLC0415 - only these commands need it

    injector = RayInjector(way_into(grid))
    snapshot = runner.run(injector.look())
    node = max(place.name for place in snapshot.places if place.agent)
    runner.run(injector.aim(FaultTarget("agent", (node,))))

    def kill() -> None:
        runner.run(injector.inject())
        runner.run(injector.close())

    return node, kill


def _price(client: Client, book: list[Path], results: Path, node: str, kill: Callable[[], None]) -> int:
    """Price the book, and kill the agent of the node after half of it; gives the number of failed jobs."""
    shutil.rmtree(results, ignore_errors=True)
    prices: dict[str, list[float]] = defaultdict(list)
    failed = 0
    with client, progress_bar("pricing files", len(book)) as update:
        jobs = client.map(book)
        running = 0
        for number, (path, result) in enumerate(zip(book, jobs.results(return_errors=True), strict=True)):
            if number == len(book) // 2:
                running = sum(each.running for each in client.nodes() if each.node == node)
                kill()
            update(advance=1)
            if isinstance(result, RaygridError):
                failed += 1
                print_error(f"{path.name}: {result}")
                continue
            result.extract(results / path.stem)
            for row in csv.DictReader(io.StringIO(result.text(RESULT))):
                prices[row["kind"]].append(float(row["price"]))
        found = list(client.jobs(batch=jobs.batch_id))
    out().print(_table(prices))
    print_out(f"results: {results}")
    done = sum(job.state is JobState.DONE for job in found)
    again = sum(job.attempts > 1 for job in found)
    print_out(
        f"killed the agent of {node} after {len(book) // 2} jobs ({running} running there): "
        f"{done} of {len(book)} jobs done, {len(book) - len(found)} lost, {again} run again"
    )
    return failed


def _table(prices: dict[str, list[float]]) -> Table:
    columns = ("instruments", "lowest", "median", "highest")
    table = new_table("Prices by kind of instrument", ("kind",), columns)
    for kind, values in sorted(prices.items()):
        numbers = (min(values), statistics.median(values), max(values))
        table.add_row(kind, str(len(values)), *(f"{number:,.4f}" for number in numbers))
    return table
