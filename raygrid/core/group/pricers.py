"""The pricers that a group may run, and how long a job waits for a pricer that is not among them.

This applies only to jobs without a definition, which an older release has stored; all others run their definition.

A pricer is missing for one of two reasons: it was removed from the settings, or this leader's settings are older than
those of the parent that took the job (after a restart of its actor, for example). In the first case the job fails; in
the second it waits for the parent to send the newer settings.
"""

from __future__ import annotations

GRACE_S = 15.0  # a parent with newer settings sends them within a second or two of reaching the leader


class Pricers:
    """The pricers by name; None allows any."""

    def __init__(self, known: frozenset[str] | None) -> None:
        self._known = known
        self._removed: frozenset[str] = frozenset()

    def changed(self, known: frozenset[str] | None) -> None:
        """Replace the known pricers by those of newer settings."""
        if known is None or self._known is None:
            self._removed = frozenset()
        else:
            self._removed = (self._removed | self._known) - known
        self._known = known

    def __contains__(self, name: str) -> bool:
        return self._known is None or name in self._known

    def is_removed(self, name: str) -> bool:
        """Whether newer settings removed that pricer."""
        return name in self._removed


def removed_message(name: str) -> str:
    """The message for a job whose pricer was removed."""
    return f"pricer {name!r} is not configured any more; configure it again and submit under a new jobId"
