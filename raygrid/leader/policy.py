"""Derives a group's policy and state machine from the grid's settings."""

from __future__ import annotations

from raygrid.core.group.policy import GroupPolicy
from raygrid.core.group.retry import JobRetryPolicy
from raygrid.core.group.state import GroupState
from raygrid.core.group.stragglers import StragglerPolicy
from raygrid.settings.model import GridSettings


def group_policy(settings: GridSettings, group_id: str) -> GroupPolicy:
    """Make a group's policy from the settings."""
    group, placement = settings.groups.get(group_id), settings.placement
    return GroupPolicy(
        quota=group.quota if group else None,
        placement=placement.policy,
        weights=placement.weights,
        prefetch=placement.prefetch,
        probation_after=placement.probation_after,
        probation_s=placement.probation_s,
        node_timeout_s=placement.node_timeout_s,
        window=placement.window,
        retry=JobRetryPolicy(
            placement.max_attempts,
            {name: pricer.retry_exit_codes for name, pricer in settings.pricers.items()},
        ),
        pricers=frozenset(settings.pricers),
        stragglers={
            name: StragglerPolicy(pricer.straggler.factor, pricer.straggler.min_s)
            for name, pricer in settings.pricers.items()
            if pricer.straggler is not None
        },
        deployed_at=settings.deployed_at,
    )


def group_site(settings: GridSettings, group_id: str) -> str | None:
    """The site of a group in the settings."""
    group = settings.groups.get(group_id)
    return group.site if group else None


def fresh_state(settings: GridSettings, group_id: str) -> GroupState:
    """Make the state machine of a group, without jobs and nodes."""
    return GroupState(group_id, group_policy(settings, group_id), site=group_site(settings, group_id))
