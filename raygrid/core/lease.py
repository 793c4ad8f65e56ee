"""Leases: which candidate leads a group, and until when; and requests to hand a lead over.

Times are those of the store's clock, not of a leader's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to lead a group.

    Attributes:
        group_id: the group.
        holder: the candidate that leads.
        term: rises with every change of leader; every write of a leader carries it.
        expires_at: from then on another candidate may take the lease (the store's clock, UTC).
    """

    group_id: str
    holder: str
    term: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class HandOver:
    """The last request that the leader of a group step down for another candidate.

    Attributes:
        requested_at: instant of the request, by the store's clock.
        requested_by: the owner of the key that requested it.
    """

    requested_at: datetime
    requested_by: str


def next_lease(current: Lease | None, group_id: str, holder: str, now: datetime, expires_at: datetime) -> Lease | None:
    """Return the lease that `holder` gets at `now`; None while another candidate holds an unexpired one.

    Renewing an unexpired lease keeps the term; in every other case the term rises.
    """
    if current is None:
        return Lease(group_id, holder, 1, expires_at)
    alive = current.expires_at > now
    if current.holder == holder and alive:
        return Lease(group_id, holder, current.term, expires_at)
    if alive:
        return None
    return Lease(group_id, holder, current.term + 1, expires_at)
