"""What protects a node from all of its pricers together: what each sandbox has, and what any leaves open. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from raygrid.core.sandbox_state import NO_SANDBOX, SandboxState

MOST_NAMES = 5


def weakest(states: Mapping[str, SandboxState]) -> SandboxState:
    """The sandbox that can be relied on whatever pricer runs.

    Args:
        states: the sandbox of each pricer, by the pricer's name.

    Returns:
        The weakest mode among pricers with a sandbox, the mechanisms that all of these have, and what stays open for
        any; what does not hold for all pricers names those that it holds for.
    """
    sandboxed = {name: state for name, state in states.items() if state.mode != NO_SANDBOX.mode}
    if not sandboxed:
        return NO_SANDBOX
    found: dict[str, list[str]] = {}
    for name, state in states.items():
        for each in state.open:
            found.setdefault(each, []).append(name)
    return SandboxState(
        mode="protect" if any(state.mode == "protect" for state in sandboxed.values()) else "strict",
        active=tuple(
            each
            for each in next(iter(sandboxed.values())).active
            if all(each in state.active for state in sandboxed.values())
        ),
        open=tuple(each if len(names) == len(states) else f"{_named(names)}: {each}" for each, names in found.items()),
    )


def _named(names: Iterable[str]) -> str:
    known = sorted(names)
    more = f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
    return f"{'pricer' if len(known) == 1 else 'pricers'} {', '.join(known[:MOST_NAMES])}{more}"
