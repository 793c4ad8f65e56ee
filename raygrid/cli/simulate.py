"""`raygrid simulate`: commands of earlier versions, which print what replaced them."""

from __future__ import annotations

import typer

from raygrid.cli.grid import print_error

_ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

app = typer.Typer(no_args_is_help=True, help="Replaced by `raygrid plan` and `make simulate`.")


@app.command(context_settings=_ANYTHING)
def scale() -> None:
    """Replaced by `raygrid plan`."""
    print_error("`raygrid simulate scale` is now `raygrid plan`; its options are the same")
    raise typer.Exit(2)


@app.command(context_settings=_ANYTHING)
def faults() -> None:
    """Replaced by `make simulate`, in raygrid's sources."""
    print_error("`raygrid simulate faults` is now `make simulate SEEDS=200 FIRST_SEED=0`, in raygrid's sources")
    raise typer.Exit(2)
