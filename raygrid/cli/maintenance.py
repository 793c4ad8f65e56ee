"""`raygrid drain`, `undrain` and `handover`: take a node or a leader out of work, as before work on its machine."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated

import typer
from rich.text import Text

from raygrid.cli.duration import duration_option, words_of
from raygrid.cli.grid import INTERRUPTED, client_of, err, print_error, print_note, print_out, visible
from raygrid.cli.options import NodeName
from raygrid.client import Client, NodeStatus

POLL_S = 0.5
GONE_S = 30.0  # a node that no leader has listed for so long is gone: a change of leader takes a few seconds
STOPPING_S = 60.0  # after the deadline: time to stop the remaining jobs and to store their results


def drain(
    context: typer.Context,
    node: NodeName,
    *,
    deadline: Annotated[
        float | None,
        duration_option(
            help="After this time, such as 10m, move the jobs that still run to other nodes; by default they go on."
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until no job runs on the node.")] = False,
    timeout: Annotated[
        float | None,
        duration_option(
            help="With --wait: the longest wait; by default a minute more than the deadline, if there is one."
        ),
    ] = None,
) -> None:
    """Give a node no new jobs; with --wait, exit with 1 if it is not drained in time."""
    client = client_of(context)
    found = client.drain(node, deadline)
    rest = "everything that runs there may finish"
    if deadline is not None:
        rest = f"what still runs there in {words_of(deadline)} is moved to other nodes"
    print_out(f"draining node {node}: no new jobs; {rest}")
    if not wait:
        return
    if timeout is None and deadline is not None:
        timeout = deadline + STOPPING_S
    try:
        last = _wait(client, found, timeout)
    except KeyboardInterrupt:
        print_error(f"interrupted; node {node} goes on draining. Take it back with: raygrid undrain {node}")
        raise typer.Exit(INTERRUPTED) from None
    if last.state != "drained":
        print_error(
            f"node {node} is not drained: {_progress(last)}. It goes on draining; wait again with `raygrid drain "
            f"{node} --wait`, set a shorter --deadline, or take it back with `raygrid undrain {node}`"
        )
        raise typer.Exit(1)
    print_out(f"node {node} is drained")


def undrain(context: typer.Context, node: NodeName) -> None:
    """Give a drained node jobs again."""
    found = client_of(context).undrain(node)
    problem = f", but it is {found.state}: {found.why}" if found.why else ""
    print_out(f"node {node} gets jobs again{problem}")


def handover(
    context: typer.Context,
    group: Annotated[str, typer.Argument(help="Name of the group, as in `raygrid groups`.")],
) -> None:
    """Let the other candidate of a group lead it, before work on the machine of its leader.

    Running and queued jobs are not affected.
    """
    found = client_of(context).hand_over(group)
    print_out(f"group {group}: {found.leader} leads in term {found.term}")


def _wait(client: Client, found: NodeStatus, timeout_s: float | None) -> NodeStatus:
    """Wait until the node is drained or the time is over; gives its last state."""
    started = seen_at = time.monotonic()
    console = err()
    printed = ""
    with console.status("") as spinner:
        while True:
            now = time.monotonic()
            waited = now - started
            if found.state != "lost":
                seen_at = now
            text = f"node {found.node}: {_progress(found)}"
            spinner.update(Text(visible(f"{text} ({words_of(waited)})", console)))
            if not console.is_terminal and text != printed:
                print_note(text)
            printed = text
            # A node that no leader lists is not drained: it may run jobs while its network is cut.
            over = now - seen_at >= GONE_S or (timeout_s is not None and waited >= timeout_s)
            if found.state == "drained" or over:
                return found
            time.sleep(POLL_S)
            listed = (each for each in client.nodes() if each.node == found.node)
            found = next(listed, replace(found, state="lost"))


def _progress(node: NodeStatus) -> str:
    if node.state == "drained":
        return "drained"
    if node.state == "lost":
        return "no leader sees it now"
    return f"{node.running} job{'' if node.running == 1 else 's'} still there"
