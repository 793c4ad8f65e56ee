"""What all commands share: which grid they talk to, where they print, and how an error looks."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from raygrid.client import Client
from raygrid.client.default import find_grid
from raygrid.client.failure import last_lines
from raygrid.errors import JobFailedError, RaygridError, SettingsError

INTERRUPTED = 130  # exit code after Ctrl-C, as shells count it
_FILE_WIDTH = 500


def out() -> Console:
    """Where answers go."""
    return Console(soft_wrap=True)


def err() -> Console:
    """Where progress and complaints go."""
    return Console(stderr=True, soft_wrap=True)


@contextlib.contextmanager
def waiting(words: str) -> Iterator[None]:
    """Say what is waited for: a terminal shows it while it lasts, a log gets it as a line."""
    console = err()
    if not console.is_terminal:
        console.print(words, highlight=False, markup=False)
    with console.status(Text(words)):
        yield


def complain(message: str) -> None:
    """Print an error, in red on a terminal."""
    err().print(Text(message, style="red"), highlight=False)


def print_tail(stderr: str) -> None:
    """Print the last lines of what a pricer wrote to its stderr."""
    for line in last_lines(stderr):
        err().print(line, highlight=False, markup=False)


def print_what_is_left(job: str) -> None:
    """Print how to fetch what a failed job left."""
    words = f"what it left (stdout, stderr, files): raygrid result {job} --even-if-failed --out DIR"
    err().print(words, highlight=False, markup=False)


@dataclass(frozen=True, slots=True)
class GridChoice:
    """The grid that the command line names, if it does."""

    url: str | None = None
    api_key: str | None = field(default=None, repr=False)

    def client(self) -> Client:
        """Connect.

        Raises:
            SettingsError: no grid is known.
        """
        return Client(*find_grid(self.url, self.api_key))


def client_of(context: typer.Context) -> Client:
    """Connect to the grid that the command line names."""
    choice: GridChoice = context.obj
    return choice.client()


def command_of(context: typer.Context) -> str:
    """How the command line begins that talks to the same grid; shows no key."""
    choice: GridChoice = context.obj
    return "raygrid" if choice.url is None else f"raygrid --url {choice.url}"


def print_table(table: Table) -> None:
    """Print a table that fits: what is too long for its column goes on below, and nothing is cut off."""
    for column in table.columns:
        column.overflow = "fold"
    console = out()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _FILE_WIDTH  # what reads a pipe has no right edge
    console.print(table, soft_wrap=False)


def print_lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows one on a line, below the names of their columns; a column that is empty throughout is left out.

    A terminal cuts a line off at its right edge; what reads a pipe gets all of it.
    """
    shown = [at for at in range(len(columns)) if any(row[at] for row in rows)]
    widths = {at: max(len(columns[at]), *(len(row[at]) for row in rows)) for at in shown}
    console = out()
    cut = console.is_terminal or "COLUMNS" in os.environ
    for row in (columns, *rows):
        line = "  ".join(" ".join(row[at].split()).ljust(widths[at]) for at in shown).rstrip()
        console.print(Text(line), no_wrap=True, overflow="ellipsis" if cut else "ignore", crop=cut, soft_wrap=False)


class GridCommands(TyperGroup):
    """Turns the errors of raygrid into a red line and an exit code: 2 for wrong settings, 1 for the rest.

    A failed job's line is followed by the end of its stderr; Ctrl-C is one line, too, where a command says no more.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except RaygridError as error:
            said = error.message if isinstance(error, JobFailedError) else str(error)
            complain("\n".join([said, *getattr(error, "__notes__", ())]))
            if isinstance(error, JobFailedError):
                print_tail(error.stderr_tail or "")
                if error.has_result:
                    print_what_is_left(error.job_id)
            raise typer.Exit(2 if isinstance(error, SettingsError) else 1) from None
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read this (`| head`) has seen enough. What is still unwritten must not complain at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None
        except OSError as error:
            complain(f"{error.filename or 'system'}: {error.strerror or error}")
            raise typer.Exit(1) from None
