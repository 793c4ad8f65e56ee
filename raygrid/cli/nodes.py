"""`raygrid drain` and `raygrid undrain`: take a node out of work, and back."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated

import typer

from raygrid.cli.duration import seconds_of, words_of
from raygrid.cli.grid import INTERRUPTED, client_of, complain, err, out
from raygrid.client import Client, NodeStatus

LOOK_EVERY_S = 0.5
GONE_S = 30.0  # unseen for this long, it will not come back by itself: a change of leader takes a few seconds
STOPPING_S = 60.0  # what is stopped at the deadline may take its grace, and its result has to be stored


def drain(
    context: typer.Context,
    node: Annotated[str, typer.Argument(help="Name of the node, as in `raygrid status`.")],
    *,
    deadline: Annotated[
        float | None,
        typer.Option(
            parser=seconds_of,
            metavar="DURATION",
            help="Move what still runs after this time to other nodes, such as 10m; by default everything finishes.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until nothing runs there.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            parser=seconds_of,
            metavar="DURATION",
            help="Longest wait; by default a minute more than the deadline, or as long as it takes.",
        ),
    ] = None,
) -> None:
    """Give a node no new jobs; with --wait exits with 1 if it is not drained in time."""
    client = client_of(context)
    found = client.drain(node, deadline)
    rest = "everything that runs there may finish"
    if deadline is not None:
        rest = f"what still runs there in {words_of(deadline)} is moved to other nodes"
    out().print(f"draining node {node}: no new jobs; {rest}", highlight=False, markup=False)
    if not wait:
        return
    if timeout is None and deadline is not None:
        timeout = deadline + STOPPING_S
    try:
        last = _wait(client, found, timeout)
    except KeyboardInterrupt:
        complain(f"interrupted; node {node} goes on draining. Take it back with: raygrid undrain {node}")
        raise typer.Exit(INTERRUPTED) from None
    if last.state != "drained":
        complain(
            f"node {node} is not drained: {_still(last)}. It goes on draining; wait "
            f"again with `raygrid drain {node} --wait`, set a shorter --deadline, or take it back with "
            f"`raygrid undrain {node}`"
        )
        raise typer.Exit(1)
    out().print(f"node {node} is drained", highlight=False, markup=False)


def undrain(
    context: typer.Context,
    node: Annotated[str, typer.Argument(help="Name of the node, as in `raygrid status`.")],
) -> None:
    """Let a drained node work again."""
    found = client_of(context).undrain(node)
    more = f", but it is {found.state}: {found.why}" if found.why else ""
    out().print(f"node {node} gets jobs again{more}", highlight=False, markup=False)


def _wait(client: Client, found: NodeStatus, timeout_s: float | None) -> NodeStatus:
    """Watch the node until it is drained or the time is over; gives what was seen last."""
    started = seen_at = time.monotonic()
    console = err()
    said = ""
    with console.status("") as spinner:
        while True:
            now = time.monotonic()
            waited = now - started
            if found.state != "lost":
                seen_at = now
            text = f"node {found.node}: {_still(found)}"
            spinner.update(f"{text} ({words_of(waited)})")
            if not console.is_terminal and text != said:
                console.print(text, highlight=False, markup=False)
            said = text
            # What no leader sees is not known to be drained: it may run jobs behind a cut line.
            over = now - seen_at >= GONE_S or (timeout_s is not None and waited >= timeout_s)
            if found.state == "drained" or over:
                return found
            time.sleep(LOOK_EVERY_S)
            seen = (each for each in client.nodes() if each.node == found.node)
            found = next(seen, replace(found, state="lost"))


def _still(node: NodeStatus) -> str:
    if node.state == "drained":
        return "drained"
    if node.state == "lost":
        return "no leader sees it now"
    return f"{node.running} job{'' if node.running == 1 else 's'} still there"
