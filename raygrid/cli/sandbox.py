"""The sandbox of nodes in words: a cell of the table of nodes, and all details. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from raygrid.client.status import NodeStatus, SandboxStatus

OPEN_MARK = "*"
_UNKNOWN = "unknown, because no leader sees the node or the grid is of a release without sandboxes"
_ALL = "all that the grid's user may do"


def sandbox_cell(sandbox: SandboxStatus | None) -> str:
    """The mode, with a mark if something stays open; empty if unknown."""
    if sandbox is None:
        return ""
    return f"{sandbox.mode}{OPEN_MARK}" if sandbox.open and sandbox.mode != "off" else sandbox.mode


def note_after_start(nodes: Iterable[NodeStatus], command: str) -> str | None:
    """A line for `raygrid up` if pricers can do more than they should; None if all is well or unknown.

    `command` are the first words of a command for that grid.
    """
    found = [node.sandbox for node in nodes if node.sandbox is not None]
    if any(sandbox.mode == "off" for sandbox in found):
        return f"sandbox: off; pricers can do {_ALL}"
    worst = max(found, key=lambda sandbox: len(sandbox.open), default=None)
    if worst is None or not worst.open:
        return None
    count = len(worst.open)
    gaps = "1 gap, which" if count == 1 else f"{count} gaps, which"
    return f"sandbox: {worst.mode}, with {gaps} `{command} nodes --sandbox` describes"


def sandbox_details(nodes: Iterable[NodeStatus]) -> list[str]:
    """A paragraph for each set of nodes with the same sandbox: its mode, what is active, and what stays open."""
    alike: dict[SandboxStatus | None, list[str]] = {}
    for node in nodes:
        alike.setdefault(node.sandbox, []).append(node.node)
    return [_paragraph(sandbox, names) for sandbox, names in alike.items()]


def _paragraph(sandbox: SandboxStatus | None, names: list[str]) -> str:
    heading = ", ".join(names)
    if sandbox is None:
        return f"{heading}: {_UNKNOWN}"
    lines = [f"{heading}: {sandbox.mode}"]
    if sandbox.active:
        lines.append(f"  active: {', '.join(sandbox.active)}")
    if sandbox.open:
        lines.append("  stays open:")
        lines += (f"  - {each}" for each in sandbox.open)
    else:
        lines.append(f"  stays open: {_ALL}" if sandbox.mode == "off" else "  nothing is left open")
    return "\n".join(lines)
