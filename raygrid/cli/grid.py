"""What all commands share: the choice of the grid, printing, and the presentation of errors.

Everything that commands print goes through this module, because texts of pricers and of other users must not control
the terminal.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from raygrid.cli.columns import GAP, NOTHING, lay_out
from raygrid.client import Client
from raygrid.client.default import find_grid
from raygrid.client.failure import last_lines
from raygrid.errors import JobFailedError, RaygridError, SettingsError
from raygrid.system.control_characters import escape_control_characters, escape_in_json

INTERRUPTED = 130  # exit code after Ctrl-C, as in shells
_FILE_WIDTH = 500


def out() -> Console:
    """Standard output, for answers."""
    return Console(soft_wrap=True, markup=False, emoji=False)


def err() -> Console:
    """Standard error, for progress, notes and errors."""
    return Console(stderr=True, soft_wrap=True, markup=False, emoji=False)


def visible(text: str, console: Console) -> str:
    """A text for a console: on a terminal with visible control characters, in a pipe or file as it is."""
    return escape_control_characters(text) if console.is_terminal or console.file.isatty() else text


def print_out(text: str, style: str = "") -> None:
    """Print a part of the answer."""
    console = out()
    console.print(Text(visible(text, console), style=style), highlight=False)


def print_note(text: str) -> None:
    """Print a note to standard error."""
    console = err()
    console.print(Text(visible(text, console)), highlight=False)


def print_error(text: str) -> None:
    """Print an error, in red on a terminal."""
    console = err()
    console.print(Text(visible(text, console), style="red"), highlight=False)


def print_line(text: str) -> None:
    """Print a line for people and scripts, tabs included."""
    typer.echo(visible(text, out()))


def print_bytes(data: bytes) -> None:
    """Print what a pricer printed: its own bytes into a pipe or file, visible text on a terminal."""
    if sys.stdout.isatty():
        text = data.decode(sys.stdout.encoding or "utf-8", errors="backslashreplace")
        typer.echo(escape_control_characters(text), nl=False)
    else:
        typer.echo(data, nl=False)


def print_json(data: bytes) -> None:
    """Print JSON, which is UTF-8 in every locale; on a terminal control characters are escaped."""
    typer.echo(escape_in_json(data.decode()).encode() if sys.stdout.isatty() else data)


@contextlib.contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show on a terminal what is waited for, while the block runs; a log gets one line."""
    console = err()
    if not console.is_terminal:
        print_note(text)
    with console.status(Text(visible(text, console))):
        yield


@contextlib.contextmanager
def progress_bar(description: str, total: int | None = None, *, shown: bool = True) -> Iterator[Callable[..., None]]:
    """Show a bar on a terminal while the block runs; gives the function that updates it (see `Progress.update`)."""
    console = err()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal), transient=True) as progress:
        yield partial(progress.update, progress.add_task(visible(description, console), total=total))


def print_stderr_tail(stderr: str) -> None:
    """Print the last lines of a pricer's stderr."""
    for line in last_lines(stderr):
        print_note(line)


def print_how_to_fetch(job: str) -> None:
    """Print how to fetch the files of a failed job."""
    print_note(f"fetch its stdout, stderr and files with: raygrid result {job} --even-if-failed --out DIR")


@dataclass(frozen=True, slots=True)
class GridChoice:
    """The grid that the options `--url` and `--api-key` name; None where they are left out."""

    url: str | None = None
    api_key: str | None = field(default=None, repr=False)

    def client(self) -> Client:
        """Make a client for the grid.

        Raises:
            SettingsError: no grid is known.
        """
        return Client(*find_grid(self.url, self.api_key))


def client_of(context: typer.Context) -> Client:
    """Make a client for the grid that the command line names."""
    choice: GridChoice = context.obj
    return choice.client()


def command_of(context: typer.Context) -> str:
    """The first words of a command for the same grid, without the API key."""
    choice: GridChoice = context.obj
    return "raygrid" if choice.url is None else f"raygrid --url {choice.url}"


class PlainTable(Table):
    """A table whose cells are texts without markup, for standard output."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row of texts."""
        console = out()
        super().add_row(*(Text(visible(cell, console)) if isinstance(cell, str) else cell for cell in cells), **options)


def new_table(title: str | None, left: Sequence[str], right: Sequence[str] = (), **style: Any) -> Table:
    """Make a table with its title on the left, left-aligned columns and then right-aligned ones."""
    table = PlainTable(title=title, title_justify="left", **style)
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    return table


def print_table(table: Table) -> None:
    """Print a table; a value that is too long for its column continues on the next line instead of being cut."""
    for column in table.columns:
        column.overflow = "fold"
    console = out()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _FILE_WIDTH  # a pipe has no right edge
    console.print(table, soft_wrap=False)


def print_lines(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    dispensable: Sequence[str] = (),
    shortened: Mapping[str, int] = NOTHING,
    whole: str = "--json",
) -> None:
    """Print each row on one line, below the names of the columns; empty columns are left out.

    A pipe gets whole lines. On a terminal columns are left out or shortened (see `lay_out`), and what is wider all the
    same is cut at its right edge; a note names these columns, and `whole`, which shows them.
    """
    console = out()
    rows = [[visible(" ".join(cell.split()), console) for cell in row] for row in rows]
    filled = [at for at in range(len(columns)) if any(row[at] for row in rows)]
    wanted = {columns[at]: max(len(columns[at]), *(cell_len(row[at]) for row in rows)) for at in filled}
    cut = console.is_terminal or "COLUMNS" in os.environ
    layout = lay_out(wanted, console.width if cut else sys.maxsize, dispensable=dispensable, shortened=shortened)
    for row in (columns, *rows):
        cells = [Text(row[at]) for at in filled if columns[at] in layout.widths]
        for cell, width in zip(cells, layout.widths.values(), strict=True):
            cell.truncate(width, overflow="ellipsis", pad=True)
        line = Text((" " * GAP).join(cell.plain for cell in cells).rstrip())
        console.print(line, no_wrap=True, overflow="ellipsis" if cut else "ignore", crop=cut, soft_wrap=False)
    if layout.reduced:
        print_note(f"left out or cut: {', '.join(layout.reduced)}; a wider terminal or {whole} shows all")


class GridCommands(TyperGroup):
    """Turns raygrid's errors into a red line and an exit code: 2 for wrong settings, 1 for all others.

    After the line of a failed job come the last lines of its stderr. Ctrl-C prints one line, unless the command prints
    more.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except RaygridError as error:
            message = error.message if isinstance(error, JobFailedError) else str(error)
            print_error("\n".join([message, *getattr(error, "__notes__", ())]))
            if isinstance(error, JobFailedError):
                print_stderr_tail(error.stderr_tail or "")
                if error.has_result:
                    print_how_to_fetch(error.job_id)
            raise typer.Exit(2 if isinstance(error, SettingsError) else 1) from None
        except KeyboardInterrupt:
            print_error("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of the pipe (`| head`) has closed it. Unwritten output must not cause an error at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None
        except OSError as error:
            print_error(f"{error.filename or 'system'}: {error.strerror or error}")
            raise typer.Exit(1) from None
