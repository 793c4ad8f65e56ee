"""What a group decides by, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from raygrid.core.group.retry import JobRetryPolicy
from raygrid.core.group.stragglers import StragglerPolicy


@dataclass(frozen=True, slots=True)
class GroupPolicy:
    """The settings that a group decides by; see `Placement` and `Group` in the settings for their meaning.

    Attributes:
        pricers: names of the configured pricers; None for whatever a job names.
        stragglers: by pricer, when a job gets a second attempt; pricers that are not among them get none.
        deployed_at: stamp of the settings; a node that follows older ones gets no jobs until it was told.
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
