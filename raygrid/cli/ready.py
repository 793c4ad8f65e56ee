"""`raygrid wait-ready`: for scripts that start a grid or a cluster and continue when it takes jobs."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from raygrid.cli.duration import seconds_of
from raygrid.cli.grid import GridChoice, print_error, print_out
from raygrid.client import Client
from raygrid.client.default import find_grid
from raygrid.errors import NotAuthorizedError, RaygridError, SettingsError

_POLL_S = 0.5
_ANSWER_S = 5.0


def wait_ready(
    context: typer.Context,
    nodes: Annotated[int, typer.Option(min=1, help="Number of nodes that must be `ok`.")] = 1,
    timeout: Annotated[str, typer.Option(metavar="DURATION", help="Longest wait, such as 60s or 2m.")] = "60s",
) -> None:
    """Wait until the grid takes jobs and has enough nodes that are `ok`; exit with 1 if that takes too long."""
    timeout_s = seconds_of(timeout)
    began = time.monotonic()
    while (missing := _missing(context.obj, nodes)) is not None:
        left_s = began + timeout_s - time.monotonic()
        if left_s <= 0:
            print_error(f"not ready within {timeout_s:g} s: {missing}")
            raise typer.Exit(1)
        time.sleep(min(_POLL_S, left_s))
    print_out(f"ready after {time.monotonic() - began:.1f} s, with at least {nodes} node(s)")


def _missing(choice: GridChoice, wanted: int) -> str | None:
    """What is still missing; None if the grid is ready.

    Raises:
        SettingsError: the URL is not valid, so waiting would not help.
        NotAuthorizedError: the key is missing or wrong.
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
    ok = [node for node in found if node.state == "ok"]
    if len(ok) >= wanted:
        return None
    others = "; ".join(f"{node.node} is {node.state}" for node in found if node.state != "ok")
    return f"{len(ok)} of {wanted} nodes are ok" + (f" ({others})" if others else "")
