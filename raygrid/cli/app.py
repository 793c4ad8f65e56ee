"""The command `raygrid`, put together from its families of commands."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import raygrid
from raygrid.cli import (
    bench,
    data,
    demo,
    deploy,
    drill,
    groups,
    host,
    lifecycle,
    nodes,
    plan,
    ready,
    results,
    simulate,
    status,
    submit,
)
from raygrid.cli.grid import GridChoice, GridCommands
from raygrid.cli.text import print_whatever_comes, read_names_as_utf8


class _Command(typer.Typer):
    def __call__(self, *args: Any, **named: Any) -> Any:
        """Run as a program does."""
        read_names_as_utf8()
        print_whatever_comes()
        return super().__call__(*args, **named)


app = _Command(
    cls=GridCommands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its tracebacks show local variables, and an API key may be one
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
            help="The grid's URL, or several with commas between; by default RAYGRID_URL, then a grid on this machine."
        ),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(help="API key. Better set RAYGRID_API_KEY: others can see command lines.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Turn any executable into a fault-tolerant compute grid."""
    context.obj = GridChoice(url, api_key)


app.command()(lifecycle.up)
app.command()(lifecycle.down)
app.command()(ready.wait_ready)
app.command()(demo.demo)
app.command()(submit.submit)
app.command()(status.status)
app.command()(status.groups)
app.command()(status.nodes)
app.command()(status.jobs)
app.command()(status.batches)
app.command()(results.result)
app.command()(results.cancel)
app.command()(status.pricers)
app.command()(deploy.deploy)
app.command()(nodes.drain)
app.command()(nodes.undrain)
app.command()(drill.drill)
app.command()(bench.bench)
app.command()(plan.plan)
app.command()(groups.handover)
app.add_typer(data.app, name="data")
app.add_typer(host.app, name="host")
app.add_typer(simulate.app, name="simulate", hidden=True)
