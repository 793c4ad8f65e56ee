"""`raygrid status`, `jobs`, `nodes` and `pricers`: how the grid, a batch or one job is doing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

import typer
from pydantic_core import to_json
from rich.filesize import decimal
from rich.table import Table

from raygrid.cli.grid import client_of, err, out, print_table
from raygrid.client import BatchStatus, JobStatus
from raygrid.models import JobState

_TRAFFIC = ("inputs", "data", "results", "served")


def status(
    context: typer.Context,
    job: Annotated[str | None, typer.Argument(help="A job's id; without one: the whole grid.")] = None,
    batch: Annotated[str | None, typer.Option(help="Show this batch.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how the grid, a batch or one job is doing."""
    if job is not None and batch is not None:
        raise typer.BadParameter("name a job or a batch, not both")
    client = client_of(context)
    if job is not None:
        _print_fields(client.job(job).status(), as_json)
        return
    if batch is not None:
        _print_batch(client.batch_status(batch), as_json)
        return
    capacity, groups, nodes = client.capacity(), client.groups(), client.nodes()
    if as_json:
        _print_json({"url": client.url, "capacity": capacity, "groups": groups, "nodes": nodes})
        return
    out().print(
        f"grid at {client.url}: {capacity.slots} slots, {capacity.running} running, {capacity.free} free, "
        f"{capacity.queued} queued",
        highlight=False,
    )
    _print_table(
        "groups", ("group", "site", "nodes", "slots", "running", "free", "queued", "state", "lost_since"), groups
    )
    _print_table("nodes", ("node", "group", "slots", "running", "state", "drain_deadline_at", "why"), nodes)


def nodes(context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the nodes, with the payload bytes that each has moved since its agent started."""
    found = client_of(context).nodes()
    if as_json:
        _print_json(found)
        return
    table = Table(title="nodes", title_justify="left")
    for column in ("node", "group", "state", "slots", "running", *_TRAFFIC, "why"):
        table.add_column(column, justify="right" if column in _TRAFFIC else "left", no_wrap=column in ("node", "state"))
    for node in found:
        moved = asdict(node.traffic)
        sizes = (decimal(moved[column]) for column in _TRAFFIC)
        table.add_row(node.node, node.group, node.state, str(node.slots), str(node.running), *sizes, node.why or "")
    print_table(table)


def pricers(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the pricers that the grid is configured for."""
    found = client_of(context).pricers()
    if as_json:
        _print_json(found)
    else:
        _print_table("pricers", ("name", "version", "takes_args", "result", "reuse", "default"), found)


def jobs(
    context: typer.Context,
    *,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only jobs of this batch.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many at most.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List jobs, in the order of their ids."""
    listing = client_of(context).jobs(state=state.value if state else None, batch=batch)
    found = list(islice(listing, limit))
    if as_json:
        _print_json(found)
        return
    _print_table("jobs", ("job_id", "state", "pricer", "node", "attempts", "submitted_at", "reason", "message"), found)
    if len(found) == limit and next(listing, None) is not None:
        err().print(f"there are more than these {limit}; see more with --limit", highlight=False)


def _print_batch(found: BatchStatus, as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    counts = ", ".join(f"{count:,} {state.value}" for state, count in found.counts.items() if count)
    how = "has ended" if found.finished else "goes on"
    reused = f"; {found.reused:,} did not run but took over a stored result" if found.reused else ""
    out().print(f"batch {found.batch_id} {how}: {found.total:,} jobs, {counts or 'none'}{reused}", highlight=False)


def _print_fields(found: JobStatus, as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    table = Table(show_header=False, box=None)
    for field in fields(found):
        value = getattr(found, field.name)
        if value is not None:
            table.add_row(field.name, str(value))
    print_table(table)


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return "" if value is None else str(value)


def _print_json(value: Any) -> None:
    typer.echo(to_json(value, indent=2).decode())


def _print_table(title: str, columns: tuple[str, ...], rows: Iterable[Any]) -> None:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        values = asdict(row)
        table.add_row(*(_cell(values[column]) for column in columns))
    print_table(table)
