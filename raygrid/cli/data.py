"""`raygrid data`: inputs that many jobs share, such as market data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raygrid.cli.grid import client_of, new_table, print_out, print_table

app = typer.Typer(no_args_is_help=True, help="Store and list shared data, which many jobs read.")


@app.command()
def put(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name by which jobs refer to the data.")],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="File to store.")],
) -> None:
    """Store a file under a name; storing again changes the data for new jobs."""
    stored = client_of(context).put_data(name, file)
    print_out(f"stored {stored.name}: {stored.size:,} bytes, sha256 {stored.digest}")


@app.command("list")
def list_data(context: typer.Context) -> None:
    """List the shared data."""
    table = new_table(None, ("name", "size", "stored_at", "sha256"))
    for stored in client_of(context).data():
        stored_at = f"{stored.stored_at:%Y-%m-%dT%H:%M:%SZ}" if stored.stored_at else ""
        table.add_row(stored.name, f"{stored.size:,}", stored_at, stored.digest[:16])
    print_table(table)
