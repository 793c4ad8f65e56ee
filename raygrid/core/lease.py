"""Leases: who leads a group, and until when. Decided by the store's clock, never by a leader's own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to lead a group.

    Attributes:
        group_id: the group.
        holder: the candidate that holds it.
        term: rises with every change of leader; every write of a leader carries it.
        expires_at: when others may take it (the store's clock, UTC).
    """

    group_id: str
    holder: str
    term: int
    expires_at: datetime


def next_lease(current: Lease | None, group_id: str, holder: str, now: datetime, expires_at: datetime) -> Lease | None:
    """The lease that `holder` gets when it asks at `now`; None while another holds a live one.

    A holder that asks again while its lease lives keeps its term (a renewal); else the term rises.
    """
    if current is None:
        return Lease(group_id, holder, 1, expires_at)
    alive = current.expires_at > now
    if current.holder == holder and alive:
        return Lease(group_id, holder, current.term, expires_at)
    if alive:
        return None
    return Lease(group_id, holder, current.term + 1, expires_at)
