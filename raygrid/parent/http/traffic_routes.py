"""`GET /traffic`: payload bytes that the answering parent moved, by purpose and group."""

from __future__ import annotations

from fastapi import APIRouter

from raygrid.parent.http import schemas
from raygrid.parent.http.openapi import problem_responses
from raygrid.parent.service import Parent


def add_to(router: APIRouter, parent: Parent) -> None:
    """Add the route."""

    @router.get(
        "/traffic",
        tags=["grid"],
        summary="Payload bytes that this parent moved, by purpose and group",
        responses=problem_responses(401),
    )
    async def traffic() -> schemas.Traffic:
        counted = parent.traffic
        sites = {group.group_id: group.site for group in parent.groups.capacities(silent_too=True)}
        return schemas.Traffic(
            parent=counted.parent_id,
            home=parent.groups.home,
            since=counted.since,
            received=counted.of("received"),
            stored=counted.of("stored"),
            groups=[
                schemas.GroupTraffic(
                    group=group_id,
                    site=sites.get(group_id),
                    inline=counted.of("inline", group_id),
                    from_cache=counted.of("from_cache", group_id),
                    from_blobs=counted.of("from_blobs", group_id),
                )
                for group_id in sorted(sites.keys() | counted.groups())
            ],
        )
