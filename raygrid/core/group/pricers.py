"""Which pricers a group may run, and for how long a job may wait for one that is not among them.

This concerns jobs without a definition, which an older release has stored; all others run theirs in any case.

Two things can be behind it: the pricer was taken out of the settings, or this leader has older settings than the
parent that took the job (its actor was restarted, say) and will be told in a moment. In the first case no waiting
helps, in the second the job must not be failed.
"""

from __future__ import annotations

# A parent with newer settings tells a leader within a second or two of reaching it.
GRACE_S = 15.0


class Pricers:
    """The pricers by name; None allows any."""

    def __init__(self, known: frozenset[str] | None) -> None:
        self._known = known
        self._removed: frozenset[str] = frozenset()

    def changed(self, known: frozenset[str] | None) -> None:
        """Newer settings have come."""
        if known is None or self._known is None:
            self._removed = frozenset()
        else:
            self._removed = (self._removed | self._known) - known
        self._known = known

    def __contains__(self, name: str) -> bool:
        return self._known is None or name in self._known

    def is_removed(self, name: str) -> bool:
        """Whether newer settings have taken that pricer out."""
        return name in self._removed


def removed_message(name: str) -> str:
    """The message for the client of a job whose pricer is gone."""
    return f"pricer {name!r} is not configured any more; configure it again and submit under a new jobId"
