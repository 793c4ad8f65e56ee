"""The settings that a group's decisions use, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from raygrid.core.group.retry import JobRetryPolicy
from raygrid.core.group.stragglers import StragglerPolicy


@dataclass(frozen=True, slots=True)
class GroupPolicy:
    """The settings of a group's decisions; `Placement` and `Group` in the settings describe the other fields.

    Attributes:
        pricers: names of the configured pricers; None allows any name.
        stragglers: by pricer, when a job gets a second attempt; jobs of other pricers get none.
        deployed_at: deployment time of the settings; a node with older settings gets no jobs.
    """

    quota: int | None = None
    placement: str = "least_loaded"
    weights: Mapping[str, float] = field(default_factory=dict)
    prefetch: int = 1
    probation_after: int = 3
    probation_s: float = 15.0
    node_timeout_s: float = 4.0
    window: int = 8_192
    retry: JobRetryPolicy = field(default_factory=JobRetryPolicy)
    pricers: frozenset[str] | None = None
    stragglers: Mapping[str, StragglerPolicy] = field(default_factory=dict)
    deployed_at: float = 0.0
