"""`raygrid wait-ready`: for scripts that start a grid, or a cluster, and go on when it can take jobs."""

from __future__ import annotations

import re
import time
from typing import Annotated

import typer

from raygrid.cli.grid import GridChoice, complain, out
from raygrid.client import Client
from raygrid.client.default import find_grid
from raygrid.errors import NotAuthorizedError, RaygridError, SettingsError

_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>s|m|h|)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
_POLL_S = 0.5
_ANSWER_S = 5.0


def seconds(text: str) -> float:
    """Read `60s`, `2m`, `1h` or a plain number of seconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a time; write for instance 60s or 2m", param_hint="--timeout")
    return float(match["number"]) * _SECONDS[match["unit"]]


def wait_ready(
    context: typer.Context,
    nodes: Annotated[int, typer.Option(min=1, help="How many nodes have to be `ok`.")] = 1,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long to wait, such as 60s or 2m.")] = "60s",
) -> None:
    """Wait until the grid can take jobs and has enough working nodes; exits with 1 if that takes too long."""
    timeout_s = seconds(timeout)
    began = time.monotonic()
    while (missing := _missing(context.obj, nodes)) is not None:
        left_s = began + timeout_s - time.monotonic()
        if left_s <= 0:
            complain(f"not ready within {timeout_s:g} s: {missing}")
            raise typer.Exit(1)
        time.sleep(min(_POLL_S, left_s))
    out().print(f"ready after {time.monotonic() - began:.1f} s, with at least {nodes} node(s)", highlight=False)


def _missing(choice: GridChoice, wanted: int) -> str | None:
    """What there is to wait for; None if everything is there.

    Raises:
        SettingsError: the URL cannot be right, so waiting would not help.
        NotAuthorizedError: the key is not right.
    """
    try:
        url, key = find_grid(choice.url, choice.api_key)
    except SettingsError:
        return "no grid runs on this machine, and neither --url nor RAYGRID_URL names another"
    with Client(url, key, retry_s=0, timeout=_ANSWER_S) as client:
        try:
            client.require_ready()
            found = client.nodes()
        except NotAuthorizedError:
            raise
        except RaygridError as error:
            return str(error)
    well = [node for node in found if node.state == "ok"]
    if len(well) >= wanted:
        return None
    others = "; ".join(f"{node.node} is {node.state}" for node in found if node.state != "ok")
    return f"{len(well)} of {wanted} nodes are there and well" + (f" ({others})" if others else "")
