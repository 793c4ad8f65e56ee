"""The routes of the nodes: the list, and draining."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from raygrid.parent.grid_view import seen_groups
from raygrid.parent.http import schemas
from raygrid.parent.http.openapi import problem_responses
from raygrid.parent.service import Parent

LONGEST_DEADLINE_S = 30 * 86_400

Deadline = Annotated[
    float | None,
    Query(
        ge=0,
        le=LONGEST_DEADLINE_S,
        allow_inf_nan=False,
        description="Seconds until what still runs there is moved to other nodes; without it, everything may finish",
    ),
]


def node_routes(router: APIRouter, parent: Parent) -> None:
    """Add the routes of the nodes."""

    @router.get("/nodes", tags=["grid"], summary="All nodes", responses=problem_responses(401))
    async def nodes() -> schemas.NodeList:
        found = [node for group in seen_groups(parent) for node in group.nodes]
        return schemas.NodeList(nodes=[schemas.node_answer(node) for node in found])

    @router.post(
        "/nodes/{node}/drain",
        tags=["grid"],
        summary="Give a node no new jobs; asking again changes the deadline",
        status_code=202,
        responses=problem_responses(401, 404, 422),
    )
    async def drain(node: str, deadline_s: Deadline = None) -> schemas.NodeAnswer:
        return schemas.node_answer(await parent.nodes.drain(node, deadline_s))

    @router.delete(
        "/nodes/{node}/drain",
        tags=["grid"],
        summary="Let a node work again",
        responses=problem_responses(401, 404, 422),
    )
    async def undrain(node: str) -> schemas.NodeAnswer:
        return schemas.node_answer(await parent.nodes.undrain(node))
