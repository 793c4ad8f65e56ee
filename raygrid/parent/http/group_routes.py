"""The routes of the groups: the list, and handing a group's lead over."""

from __future__ import annotations

from fastapi import APIRouter

from raygrid.parent.grid_view import all_groups, led
from raygrid.parent.http import schemas
from raygrid.parent.http.openapi import problem_responses
from raygrid.parent.service import Parent


def group_routes(router: APIRouter, parent: Parent) -> None:
    """Add the routes of the groups."""

    @router.get("/groups", tags=["grid"], summary="All groups", responses=problem_responses(401))
    async def groups() -> schemas.GroupList:
        return schemas.GroupList(groups=[schemas.group_answer(view) for view in await all_groups(parent)])

    @router.post(
        "/groups/{group}/handover",
        tags=["grid"],
        summary="Have a group's leader hand over to another candidate; answers when that one leads",
        responses=problem_responses(401, 404, 409, 422, 503),
    )
    async def hand_over(group: str) -> schemas.GroupAnswer:
        return schemas.group_answer(led(await parent.groups.hand_over(group)))
