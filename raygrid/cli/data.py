"""`raygrid data`: inputs that many jobs share, such as market data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from raygrid.cli.grid import client_of, out, print_table

app = typer.Typer(no_args_is_help=True, help="Shared data: stored once, read by many jobs.")


@app.command()
def put(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name that jobs refer to.")],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What to store.")],
) -> None:
    """Store a file under a name."""
    stored = client_of(context).put_data(name, file)
    out().print(f"stored {stored.name}: {stored.size:,} bytes, sha256 {stored.digest}", highlight=False)


@app.command("list")
def list_data(context: typer.Context) -> None:
    """List the shared data."""
    table = Table()
    for column in ("name", "size", "stored_at", "sha256"):
        table.add_column(column)
    for stored in client_of(context).data():
        table.add_row(
            stored.name,
            f"{stored.size:,}",
            f"{stored.stored_at:%Y-%m-%dT%H:%M:%SZ}" if stored.stored_at else "",
            stored.digest[:16],
        )
    print_table(table)
