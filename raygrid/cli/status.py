"""`raygrid status`, `jobs`, `batches`, `groups`, `nodes` and `pricers`: how the grid, a batch or one job is doing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from datetime import UTC, datetime
from heapq import nlargest, nsmallest
from itertools import islice
from typing import Annotated, Any

import typer
from pydantic_core import to_json
from rich.filesize import decimal
from rich.table import Table

from raygrid.cli.grid import client_of, command_of, err, out, print_lines, print_table
from raygrid.client import BatchStatus, JobStatus
from raygrid.models import JobState

# What tells jobs apart comes first: a terminal cuts lines off at its right edge.
_JOB_COLUMNS = ("job_id", "state", "submitted_at", "reason", "input_name", "pricer", "node", "attempts", "message")
_URGENCY = (JobState.FAILED, JobState.CANCELLED, JobState.RUNNING, JobState.QUEUED, JobState.DONE)
_SOME = 20
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
        counted = client.batch_status(batch)
        _print_batch(counted, as_json)
        if not as_json:
            _print_some(client.jobs(batch=batch), counted.total, f"{command_of(context)} jobs --batch {batch}")
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
    columns = ("group", "site", "nodes", "slots", "running", "free", "queued", "state", "lost_since")
    _print_table("groups", columns, groups)
    _print_table("nodes", ("node", "group", "slots", "running", "state", "drain_deadline_at", "why"), nodes)


def groups(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the groups, with the leader and the term of each."""
    found = client_of(context).groups()
    if as_json:
        _print_json(found)
        return
    columns = ("group", "site", "nodes", "slots", "running", "queued", "state", "leader", "term", "lost_since")
    _print_table("groups", (*columns, "unfinished"), found)


def nodes(context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the nodes, with the payload bytes that each has moved since its agent started."""
    found = client_of(context).nodes()
    if as_json:
        _print_json(found)
        return
    columns = (
        "node",
        "group",
        "state",
        "slots",
        "running",
        *_TRAFFIC,
        *(("why",) if any(n.why for n in found) else ()),
    )
    table = Table(title="nodes", title_justify="left", box=None, pad_edge=False)  # so that it fits 80 columns
    for column in columns:
        table.add_column(column, justify="right" if column in _TRAFFIC else "left", no_wrap=column != "why")
    for node in found:
        moved = asdict(node.traffic)
        sizes = (decimal(moved[column]) for column in _TRAFFIC)
        table.add_row(
            node.node,
            node.group,
            node.state,
            str(node.slots),
            str(node.running),
            *sizes,
            *([node.why or ""] if "why" in columns else []),
        )
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
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List jobs, the newest first, one on a line; `raygrid status JOB` shows everything about one."""
    client = client_of(context)
    if batch is not None:
        client.batch_status(batch)  # an unknown one is an error, not a list of nothing
    with err().status("looking through the jobs"):
        found, count = _newest(client.jobs(state=state.value if state else None, batch=batch), limit)
    if as_json:
        _print_json(found)
        return
    if found:
        print_lines(_JOB_COLUMNS, [[_cell(getattr(job, name)) for name in _JOB_COLUMNS] for job in found])
    else:
        err().print("no such jobs" if state or batch else "no jobs yet", highlight=False)
    if count > limit:
        err().print(f"these are the newest {limit} of {count:,}; see more with --limit", highlight=False)


def batches(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List batches, the newest first; `raygrid status --batch BATCH` shows more of one."""
    found = list(islice(client_of(context).batches(), limit + 1))
    shown = found[:limit]
    if as_json:
        _print_json(shown)
        return
    if not found:
        err().print("no batches yet", highlight=False)
        return
    columns = ("batch_id", "submitted_at", "jobs", *(state.value for state in JobState))
    lines = []
    for each in shown:
        counts = [str(each.counts.get(state, 0)) for state in JobState]
        lines.append([each.batch_id, _cell(each.submitted_at), str(each.total), *counts])
    print_lines(columns, lines)
    if len(found) > limit:
        err().print(f"these are the newest {limit}; see more with --limit", highlight=False)


def _newest(jobs: Iterable[JobStatus], limit: int) -> tuple[list[JobStatus], int]:
    """The last that were submitted, the very last first, and how many there are; the grid lists them by id."""
    count = 0

    def counted() -> Iterator[JobStatus]:
        nonlocal count
        for count, job in enumerate(jobs, 1):  # noqa: B007 - it is given below
            yield job

    never = datetime.min.replace(tzinfo=UTC)
    return nlargest(limit, counted(), key=lambda job: job.submitted_at or never), count


def _print_batch(found: BatchStatus, as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    counts = ", ".join(f"{count:,} {state.value}" for state, count in found.counts.items() if count)
    how = "has ended" if found.finished else "goes on"
    reused = f"; {found.reused:,} did not run but took over a stored result" if found.reused else ""
    out().print(f"batch {found.batch_id} {how}: {found.total:,} jobs, {counts or 'none'}{reused}", highlight=False)


def _print_some(jobs: Iterable[JobStatus], total: int, command: str) -> None:
    """Print jobs of a batch, those first that somebody may have to look after."""
    some = nsmallest(_SOME, jobs, key=lambda job: _URGENCY.index(job.state))  # of a state as submitted
    columns = ("job_id", "state", "reason", "input_name", "node", "message")
    if some:
        print_lines(columns, [[_cell(getattr(job, name)) for name in columns] for job in some])
    if total > len(some):
        err().print(
            f"these are {len(some)} of {total:,}; see the others with: {command} --limit {total}", highlight=False
        )


def _print_fields(found: JobStatus, as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    table = Table(show_header=False, box=None)
    for field in fields(found):
        value = getattr(found, field.name)
        if value is not None and value != ():
            table.add_row(field.name, _cell(value))
    print_table(table)


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def _print_json(value: Any) -> None:
    typer.echo(to_json(value, indent=2))  # bytes: JSON is UTF-8 whatever the terminal's encoding is


def _print_table(title: str, columns: tuple[str, ...], rows: Iterable[Any]) -> None:
    """Print a table; columns in which nothing stands are left out, but for the first."""
    cells = [[_cell(getattr(row, column)) for column in columns] for row in rows]
    shown = [at for at in range(len(columns)) if at == 0 or not cells or any(row[at] for row in cells)]
    table = Table(title=title, title_justify="left")
    for at in shown:
        table.add_column(columns[at])
    for row in cells:
        table.add_row(*(row[at] for at in shown))
    print_table(table)
