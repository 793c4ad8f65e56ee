"""`raygrid demo`: a grid on this machine prices the example book, from start to a table of prices."""

from __future__ import annotations

import csv
import io
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from raygrid.cli.grid import err, out
from raygrid.client import Client
from raygrid.config import load_settings
from raygrid.errors import RaygridError, SettingsError

RESULT = "prices.csv"


def demo(
    examples: Annotated[Path, typer.Option(help="Where the examples of the project are.")] = Path("examples"),
    results: Annotated[Path, typer.Option("--out", help="Where the results go.")] = Path("demo-results"),
    files: Annotated[int, typer.Option(min=1, help="Input files, each one job.")] = 40,
    instruments: Annotated[int, typer.Option(min=1, help="Instruments in each file.")] = 25,
) -> None:
    """Start a grid on this machine, price an example book on it, show the prices, stop it."""
    from raygrid.local import free_port, start_grid, stop_grid  # noqa: PLC0415 - brings Ray

    here = examples.absolute() / "quantlib"
    if not (here / "price.py").is_file():
        raise SettingsError(f"no example pricer at {here}; run this in the project's directory, or say --examples DIR")
    with tempfile.TemporaryDirectory(prefix="raygrid-demo-") as scratch:
        book = _write_book(here / "book.py", Path(scratch) / "book", files, instruments)
        settings = load_settings(
            name="demo",
            pricers={"quantlib": {"command": [sys.executable, str(here / "price.py"), "{input}"]}},
            http={"port": free_port()},
            storage={"state_dir": scratch},
        )
        with err().status("starting a grid on this machine"):
            grid = start_grid(settings, with_caller=True)
        try:
            failed = _price(Client(grid.url), book, results.absolute())
        finally:
            with err().status("stopping the grid"):
                stop_grid(grid)
    print(f"demo: {files - failed} jobs done, {failed} failed")
    raise typer.Exit(1 if failed else 0)


def _write_book(program: Path, directory: Path, files: int, instruments: int) -> list[Path]:
    command = [sys.executable, str(program), str(directory), f"--files={files}", f"--instruments={instruments}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return sorted(directory.glob("*.csv"))


def _price(client: Client, book: list[Path], results: Path) -> int:
    """Price the book; gives the number of failed jobs."""
    shutil.rmtree(results, ignore_errors=True)
    prices: dict[str, list[float]] = defaultdict(list)
    failed = 0
    columns = (TextColumn("pricing"), BarColumn(), MofNCompleteColumn(), TextColumn("files"), TimeElapsedColumn())
    with client, Progress(*columns, console=err()) as progress:
        bar = progress.add_task("pricing", total=len(book))
        jobs = client.map(book)
        for path, result in zip(book, jobs.results(return_errors=True), strict=True):
            progress.advance(bar)
            if isinstance(result, RaygridError):
                failed += 1
                err().print(f"{path.name}: {result}", style="red", markup=False)
                continue
            result.extract(results / path.stem)
            for row in csv.DictReader(io.StringIO(result.text(RESULT))):
                prices[row["kind"]].append(float(row["price"]))
    out().print(_table(prices))
    out().print(f"results: {results}", highlight=False, soft_wrap=True)
    return failed


def _table(prices: dict[str, list[float]]) -> Table:
    table = Table(title="Prices by kind of instrument")
    table.add_column("kind")
    for column in ("instruments", "lowest", "median", "highest"):
        table.add_column(column, justify="right")
    for kind, values in sorted(prices.items()):
        numbers = (min(values), statistics.median(values), max(values))
        table.add_row(kind, str(len(values)), *(f"{number:,.4f}" for number in numbers))
    return table
