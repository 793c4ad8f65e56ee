"""`raygrid data`: inputs that many jobs share, such as market data."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Annotated

import typer

from raygrid.cli.grid import client_of, print_lines, print_note, print_out
from raygrid.client.status import DataInfo

app = typer.Typer(no_args_is_help=True, help="Store, fetch, list and remove shared data, which many jobs read.")


@app.command()
def put(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name by which jobs refer to the data.")],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="File to store.")],
) -> None:
    """Store a file under a name; storing again changes the data for new jobs."""
    stored = client_of(context).put_data(name, file)
    print_out(f"stored {stored.name}: {stored.size:,} bytes, sha256 {stored.digest}")


@app.command()
def get(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the data.")],
    file: Annotated[Path, typer.Argument(dir_okay=False, help="File to write; it appears when it is complete.")],
) -> None:
    """Write the content of shared data to a file."""
    client_of(context).save_data(name, file)
    print_out(f"{name} is in {file}")


@app.command()
def rm(context: typer.Context, name: Annotated[str, typer.Argument(help="Name of the data.")]) -> None:
    """Remove a name; jobs that were submitted with it keep its content."""
    client_of(context).delete_data(name)
    print_out(f"removed {name}")


@app.command("list")
def list_data(context: typer.Context) -> None:
    """List the shared data."""
    stored = client_of(context).data()
    if not stored:
        print_note("no shared data yet")
        return
    print_lines(
        ("name", "size", "stored_at", "owner", "sha256"),
        [[each.name, f"{each.size:,}", _at(each), each.owner or "", each.digest[:16]] for each in stored],
        dispensable=("sha256", "owner", "stored_at"),
    )


def _at(stored: DataInfo) -> str:
    return f"{stored.stored_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if stored.stored_at else ""
