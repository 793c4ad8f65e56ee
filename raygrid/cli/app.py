"""The command `raygrid`, assembled from its commands."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

import raygrid
from raygrid.cli import (
    audit,
    bench,
    cancel,
    data,
    demo,
    deploy,
    drill,
    host,
    keys,
    lifecycle,
    maintenance,
    plan,
    ready,
    result,
    simulate,
    status,
    submit,
)
from raygrid.cli.grid import GridChoice, GridCommands
from raygrid.cli.text import escape_unprintable_characters, read_names_as_utf8
from raygrid.client.endpoint import PLAIN_HTTP


class _Command(typer.Typer):
    def __call__(self, *args: Any, **named: Any) -> Any:
        """Run the command line of this process."""
        read_names_as_utf8()
        escape_unprintable_characters()
        return super().__call__(*args, **named)


app = _Command(
    cls=GridCommands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # typer's tracebacks show local variables, which may hold an API key
    help="Turn any executable into a fault-tolerant compute grid.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"raygrid {raygrid.__version__}")
        raise typer.Exit


@app.callback()
def choose_grid(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            help="URL of the grid, or several separated by commas; by default RAYGRID_URL, then a grid on this machine."
        ),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(help="API key. RAYGRID_API_KEY is safer: other users can see command lines.")
    ] = None,
    plain_http: Annotated[
        bool,
        typer.Option(help="Send the key over plain HTTP to other machines, too, as with RAYGRID_PLAIN_HTTP=1."),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Turn any executable into a fault-tolerant compute grid."""
    if plain_http:
        os.environ[PLAIN_HTTP] = "1"  # for every client of this command
    context.obj = GridChoice(url, api_key)


def _help_of(command: Callable[..., None]) -> str:
    """A command's docstring with each paragraph on one line, so that the terminal's width decides where lines end."""
    paragraphs = inspect.getdoc(command) or ""
    return "\n\n".join(" ".join(each.split()) for each in paragraphs.split("\n\n"))


for _command in (
    lifecycle.up,
    lifecycle.down,
    ready.wait_ready,
    demo.demo,
    submit.submit,
    status.status,
    status.groups,
    status.nodes,
    status.jobs,
    status.batches,
    result.result,
    cancel.cancel,
    status.pricers,
    deploy.deploy,
    maintenance.drain,
    maintenance.undrain,
    maintenance.handover,
    audit.audit,
    drill.drill,
    bench.bench,
    plan.plan,
):
    app.command(help=_help_of(_command))(_command)
app.add_typer(data.app, name="data")
app.add_typer(keys.app, name="keys")
app.add_typer(host.app, name="host")
app.add_typer(simulate.app, name="simulate", hidden=True)
