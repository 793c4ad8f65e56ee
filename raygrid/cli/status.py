"""`raygrid status`, `raygrid nodes` and `raygrid pricers`: how the grid, or one job, is doing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Annotated, Any

import typer
from pydantic_core import to_json
from rich.filesize import decimal
from rich.table import Table

from raygrid.cli.grid import client_of, out
from raygrid.client import Client

_TRAFFIC = ("inputs", "data", "results", "served")


def status(
    context: typer.Context,
    job: Annotated[str | None, typer.Argument(help="A job's id; without one: the whole grid.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how the grid, or one job, is doing."""
    client = client_of(context)
    if job is not None:
        _print_job(client, job, as_json)
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
    _print_table("groups", ("group", "site", "nodes", "slots", "running", "free", "queued"), groups)
    _print_table("nodes", ("node", "group", "slots", "running", "state", "drain_deadline_at", "why"), nodes)


def nodes(context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the nodes, with the payload bytes that each has moved since its agent started."""
    found = client_of(context).nodes()
    if as_json:
        _print_json(found)
        return
    table = Table(title="nodes", title_justify="left")
    for column in ("node", "group", "state", "slots", "running", *_TRAFFIC):
        table.add_column(column, justify="right" if column in _TRAFFIC else "left")
    for node in found:
        moved = asdict(node.traffic)
        sizes = (decimal(moved[column]) for column in _TRAFFIC)
        table.add_row(node.node, node.group, node.state, str(node.slots), str(node.running), *sizes)
    out().print(table)


def pricers(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the pricers that the grid is configured for."""
    found = client_of(context).pricers()
    if as_json:
        _print_json(found)
    else:
        _print_table("pricers", ("name", "version", "takes_args", "result", "default"), found)


def _print_job(client: Client, job_id: str, as_json: bool) -> None:
    found = client.job(job_id).status()
    if as_json:
        _print_json(found)
        return
    table = Table(show_header=False, box=None)
    for field in fields(found):
        value = getattr(found, field.name)
        if value is not None:
            table.add_row(field.name, str(value))
    out().print(table)


def _print_json(value: Any) -> None:
    typer.echo(to_json(value, indent=2).decode())


def _print_table(title: str, columns: tuple[str, ...], rows: Iterable[Any]) -> None:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        values = asdict(row)
        table.add_row(*("" if values[column] is None else str(values[column]) for column in columns))
    out().print(table)
