"""`raygrid audit`: who did what at the parents on this machine."""

from __future__ import annotations

import heapq
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from raygrid.cli.duration import duration_option
from raygrid.cli.grid import print_lines, print_note, print_out
from raygrid.cli.local_grid import settings_of
from raygrid.cli.options import AsJson, GridName, StartedWithFile
from raygrid.errors import SettingsError
from raygrid.system.logs import DIRECTORY

_COLUMNS = ("time", "owner", "status", "action", "what", "key", "address", "request")
_DISPENSABLE = ("request", "address", "key")
_SHORTENED = {"owner": 8, "what": 26, "action": 10}
_REFUSED = range(400, 500)


def audit(
    owner: Annotated[str | None, typer.Option(help="Only requests of this owner.")] = None,
    key: Annotated[str | None, typer.Option(help="Only requests with the key of this id or name.")] = None,
    job: Annotated[str | None, typer.Option(help="Only requests about this job or batch.")] = None,
    since: Annotated[float | None, duration_option(help="Only the last part, such as 1h or 2d.")] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Only requests that were refused.")] = False,
    last: Annotated[int, typer.Option(min=1, help="At most so many, the latest.")] = 1_000,
    directory: Annotated[
        Path | None, typer.Option("--logs", help="Directory of the logs, on a machine of a cluster.")
    ] = None,
    as_json: AsJson = False,
    name: GridName = None,
    config: StartedWithFile = None,
) -> None:
    """Show the audit log of the parents on this machine: what changed something, fetched a result or was refused."""
    found = directory or settings_of({}, config, name=name).grid_dir / DIRECTORY
    after = "" if since is None else datetime.fromtimestamp(time.time() - since, UTC).isoformat()
    wanted = (
        entry
        for entry in _entries(found)
        if entry.get("time", "") >= after
        and (owner is None or entry.get("owner") == owner)
        and (key is None or entry.get("key") == key)
        and (job is None or job in (entry.get("job"), entry.get("batch"), *str(entry.get("path")).split("/")))
        and (not refused or entry.get("status") in _REFUSED)
    )
    shown = sorted(heapq.nlargest(last, wanted, key=_time_of), key=_time_of)
    if as_json:
        for entry in shown:
            print_out(json.dumps(entry))
    elif shown:
        print_lines(_COLUMNS, [_cells(entry) for entry in shown], dispensable=_DISPENSABLE, shortened=_SHORTENED)
    else:
        print_note(f"no such request in {found}")


def _entries(directory: Path) -> Iterator[dict[str, Any]]:
    """The entries of all audit logs in a directory.

    Raises:
        SettingsError: there is none, or it cannot be read.
    """
    files = sorted(directory.glob("audit*.log*"))
    if not files:
        raise SettingsError(
            f"there is no audit log in {directory}; name the grid with --name or --config as it was started, or the "
            "directory of a machine's logs with --logs"
        )
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                except ValueError:  # the last line, after a crash
                    continue
                if isinstance(entry, dict):
                    yield entry


def _time_of(entry: dict[str, Any]) -> str:
    return str(entry.get("time", ""))


def _cells(entry: dict[str, Any]) -> list[str]:
    about = entry.get("job") or entry.get("batch") or entry.get("path")
    values = {**entry, "what": about, "time": re.sub(r"\.\d+", "", _time_of(entry))}
    return [str(values.get(column) or "") for column in _COLUMNS]
