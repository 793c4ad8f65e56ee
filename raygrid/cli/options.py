"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
PricerName = Annotated[str | None, typer.Option(help="Pricer to use; by default the grid's default pricer.")]
PricerArgs = Annotated[list[str] | None, typer.Option(help="Argument for the pricer. Repeatable.")]
DataNames = Annotated[list[str] | None, typer.Option(help="Name of shared data that the jobs read. Repeatable.")]
PricerCommands = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]COMMAND",
        help="Command to run for each job, such as './pricer.exe {input}'. Repeatable. Warm pricers need --config.",
    ),
]
NoInput = Annotated[
    bool, typer.Option("--no-input", help="Accept a --pricer command without {input}, which reads no file.")
]
SlotCount = Annotated[int | None, typer.Option(min=1, help="Jobs that run at once on each node.")]
SettingsFile = Annotated[Path | None, typer.Option(help="Settings file, grid.yaml.")]
StartedWithFile = Annotated[Path | None, typer.Option(help="Settings file that the grid was started with.")]
GridName = Annotated[str | None, typer.Option(help="Name of the grid on this machine, if several run there.")]
NodeName = Annotated[str, typer.Argument(help="Name of the node, as in `raygrid nodes`.")]
HostDirectory = Annotated[
    Path, typer.Option("--dir", help="Where `raygrid host` keeps the state and the logs of this machine.")
]
HOST_DIRECTORY = Path("~/.raygrid/host")
