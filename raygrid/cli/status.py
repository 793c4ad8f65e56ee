"""`raygrid status`, `jobs`, `batches`, `groups`, `nodes` and `pricers`: the state of the grid, its batches and jobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from heapq import nlargest, nsmallest
from itertools import islice
from typing import Annotated, Any

import typer
from pydantic_core import to_json
from rich.filesize import decimal

from raygrid.cli.grid import (
    client_of,
    command_of,
    err,
    new_table,
    print_json,
    print_lines,
    print_note,
    print_out,
    print_table,
)
from raygrid.cli.options import AsJson
from raygrid.cli.sandbox import OPEN_MARK, sandbox_cell, sandbox_details
from raygrid.client import BatchStatus, JobStatus
from raygrid.models import JobState

_JOB_COLUMNS = ("job_id", "state", "submitted_at", "reason", "input_name", "pricer", "node", "attempts", "message")
# The columns of lists that a narrow terminal leaves out, the first one first.
_DISPENSABLE = {
    "jobs": ("attempts", "node", "pricer", "message", "submitted_at", "reason"),
    "batches": ("submitted_at", "jobs", "running", "queued"),
    "groups": ("site", "term", "nodes", "leader"),
}
# Columns whose values may be shortened, to their least widths.
_SHORTENED = {"input_name": 20, "message": 20, "leader": 12, "pricer": 12, "node": 12}
_URGENCY = (JobState.FAILED, JobState.CANCELLED, JobState.RUNNING, JobState.QUEUED, JobState.DONE)
_SHOWN_OF_BATCH = 20
_TRAFFIC = ("inputs", "data", "results", "served")


def status(
    context: typer.Context,
    job: Annotated[str | None, typer.Argument(help="Id of a job; without it, the whole grid is shown.")] = None,
    batch: Annotated[str | None, typer.Option(help="Id of a batch to show.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the state of the grid, of a batch or of one job."""
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
            _print_urgent(client.jobs(batch=batch), counted.total, f"{command_of(context)} jobs --batch {batch}")
        return
    capacity, groups, nodes = client.capacity(), client.groups(), client.nodes()
    if as_json:
        _print_json({"url": client.url, "capacity": capacity, "groups": groups, "nodes": nodes})
        return
    print_out(
        f"grid at {client.url}: {capacity.slots} slots, {capacity.running} running, {capacity.free} free, "
        f"{capacity.queued} queued"
    )
    columns = ("group", "site", "nodes", "slots", "running", "free", "queued", "state", "lost_since")
    _print_table("groups", columns, groups)
    _print_table("nodes", ("node", "group", "slots", "running", "state", "drain_deadline_at", "why"), nodes)


def groups(context: typer.Context, as_json: AsJson = False) -> None:
    """List the groups, with the leader and the term of each."""
    columns = ("group", "site", "nodes", "slots", "running", "queued", "state", "leader", "term", "lost_since")
    found = client_of(context).groups()
    if as_json:
        _print_json(found)
    elif found:
        _print_rows("groups", (*columns, "unfinished"), found)
    else:
        print_note("no groups yet")


def nodes(
    context: typer.Context,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Show what keeps pricers from harming the grid, and what stays open.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the nodes, with the payload bytes that each has moved since its agent started."""
    found = client_of(context).nodes()
    if as_json:
        _print_json(found)
        return
    if sandbox:
        print_out("\n\n".join(sandbox_details(found)))
        return
    columns = ["node", "group", "state", "slots", "running", "sandbox", *_TRAFFIC]
    # Fits 80 columns.
    table = new_table("nodes", columns[:-4], _TRAFFIC, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in table.columns:
        column.no_wrap = True
    if any(node.why for node in found):
        columns.append("why")
        table.add_column("why")
    for node in found:
        sizes = {purpose: decimal(size) for purpose, size in asdict(node.traffic).items()}
        cells = {**sizes, "sandbox": sandbox_cell(node.sandbox)}
        table.add_row(*(cells[column] if column in cells else _cell(getattr(node, column)) for column in columns))
    print_table(table)
    if any(node.sandbox is not None and node.sandbox.open for node in found):
        print_note(f"{OPEN_MARK} something stays open; see: {command_of(context)} nodes --sandbox")


def pricers(context: typer.Context, as_json: AsJson = False) -> None:
    """List the pricers of the grid."""
    columns = ("name", "version", "takes_args", "result", "reuse", "sandbox", "default")
    _print_list("pricers", columns, client_of(context).pricers(), as_json)


def jobs(
    context: typer.Context,
    *,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only jobs of this batch.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Largest number of jobs to show.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first, one on a line; `raygrid status JOB` shows all fields of a job."""
    client = client_of(context)
    if batch is not None:
        client.batch_status(batch)  # an unknown batch is an error, not an empty list
    with err().status("reading the list of jobs"):
        found, count = _newest(client.jobs(state=state.value if state else None, batch=batch), limit)
    if as_json:
        _print_json(found)
        return
    if found:
        _print_rows("jobs", _JOB_COLUMNS, found)
    else:
        print_note("no such jobs" if state or batch else "no jobs yet")
    if count > limit:
        print_note(f"these are the newest {limit} of {count:,}; see more with --limit")


def batches(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="Largest number of batches to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List batches, the newest first; `raygrid status --batch BATCH` shows the jobs of a batch."""
    found = list(islice(client_of(context).batches(), limit + 1))
    shown = found[:limit]
    if as_json:
        _print_json(shown)
        return
    if not found:
        print_note("no batches yet")
        return
    rows = []
    for each in shown:
        counts = [str(each.counts.get(state, 0)) for state in JobState]
        rows.append([each.batch_id, _cell(each.submitted_at), str(each.total), *counts])
    columns = ("batch_id", "submitted_at", "jobs", *(state.value for state in JobState))
    print_lines(columns, rows, dispensable=_DISPENSABLE["batches"])
    if len(found) > limit:
        print_note(f"these are the newest {limit}; see more with --limit")


def _newest(jobs: Iterable[JobStatus], limit: int) -> tuple[list[JobStatus], int]:
    """The jobs that were submitted last, newest first, and the number of all jobs; the grid lists them by id."""
    count = 0

    def counted() -> Iterator[JobStatus]:
        nonlocal count
        for count, job in enumerate(jobs, 1):  # noqa: B007 - returned below
            yield job

    never = datetime.min.replace(tzinfo=UTC)
    return nlargest(limit, counted(), key=lambda job: job.submitted_at or never), count


def _print_batch(found: BatchStatus, as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    counts = ", ".join(f"{count:,} {state.value}" for state, count in found.counts.items() if count)
    progress = "has ended" if found.finished else "goes on"
    reused = f"; {found.reused:,} did not run but took over a stored result" if found.reused else ""
    print_out(f"batch {found.batch_id} {progress}: {found.total:,} jobs, {counts or 'none'}{reused}")


def _print_urgent(jobs: Iterable[JobStatus], total: int, command: str) -> None:
    """Print some jobs of a batch; those that may need attention come first, within a state as submitted."""
    some = nsmallest(_SHOWN_OF_BATCH, jobs, key=lambda job: _URGENCY.index(job.state))
    if some:
        columns = ("job_id", "state", "reason", "input_name", "node", "message")
        _print_rows("jobs", columns, some, whole=f"{command} --json")
    if total > len(some):
        print_note(f"these are {len(some)} of {total:,}; see the others with: {command} --limit {total}")


def _print_fields(found: JobStatus, as_json: bool) -> None:
    if as_json:
        _print_json(found)
        return
    table = new_table(None, (), show_header=False, box=None)
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


def _cells(columns: Sequence[str], rows: Iterable[Any]) -> list[list[str]]:
    return [[_cell(getattr(row, column)) for column in columns] for row in rows]


def _print_json(value: Any) -> None:
    print_json(to_json(value, indent=2))


def _print_rows(title: str, columns: Sequence[str], rows: Iterable[Any], whole: str = "--json") -> None:
    cells = _cells(columns, rows)
    print_lines(columns, cells, dispensable=_DISPENSABLE[title], shortened=_SHORTENED, whole=whole)


def _print_list(title: str, columns: Sequence[str], rows: Iterable[Any], as_json: bool) -> None:
    if as_json:
        _print_json(rows)
    else:
        _print_table(title, columns, rows)


def _print_table(title: str, columns: Sequence[str], rows: Iterable[Any]) -> None:
    """Print a table; empty columns are left out, except the first one."""
    cells = _cells(columns, rows)
    shown = [at for at in range(len(columns)) if at == 0 or not cells or any(row[at] for row in cells)]
    table = new_table(title, [columns[at] for at in shown])
    for row in cells:
        table.add_row(*(row[at] for at in shown))
    print_table(table)
