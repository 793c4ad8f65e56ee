"""The routes of the grid: capacity, groups, nodes, pricers and traffic."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query

from raygrid.parent.grid_view import all_groups, led, seen_groups
from raygrid.parent.http import schemas
from raygrid.parent.http.auth import AnyCaller, Operator
from raygrid.parent.http.openapi import problem_responses
from raygrid.parent.service import Parent

LONGEST_DEADLINE_S = 30 * 86_400

Deadline = Annotated[
    float | None,
    Query(
        ge=0,
        le=LONGEST_DEADLINE_S,
        allow_inf_nan=False,
        description="Seconds until jobs that still run on the node are moved to other nodes; by default all may finish",
    ),
]


def grid_routes(parent: Parent) -> APIRouter:
    """The routes of the grid, which any key may read."""
    router = APIRouter(tags=["grid"])

    @router.get("/capacity", summary="Load of the grid and of each group")
    async def capacity(_caller: AnyCaller) -> schemas.GridCapacity:
        views = await all_groups(parent)
        loads = [view.load for view in views]
        return schemas.GridCapacity(
            slots=sum(load.slots for load in loads),
            running=sum(load.running for load in loads),
            free=sum(load.free for load in loads),
            queued=sum(load.queued for load in loads),
            groups=[schemas.group_answer(view) for view in views],
        )

    @router.get("/pricers", summary="List pricers")
    async def pricers(caller: AnyCaller) -> schemas.PricerList:
        settings = parent.settings
        return schemas.PricerList(
            pricers=[
                schemas.PricerAnswer(
                    name=name,
                    version=pricer.version,
                    takes_args=pricer.takes_args,
                    result=pricer.result,
                    reuse=pricer.reuse,
                    sandbox=pricer.sandbox_mode,
                    definition=parent.definitions.digest(name),
                    default=name == settings.chosen_default_pricer,
                )
                for name, pricer in sorted(settings.pricers.items())
                if caller.may_use(name)
            ]
        )

    @router.get("/traffic", summary="Payload bytes that the answering parent moved, by purpose and group")
    async def traffic(_caller: AnyCaller) -> schemas.Traffic:
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

    @router.get("/nodes", summary="List nodes")
    async def nodes(_caller: AnyCaller) -> schemas.NodeList:
        found = [node for group in seen_groups(parent) for node in group.nodes]
        is_draining = any(node.state in ("draining", "drained") for node in found)
        drains = await parent.store.drains() if is_draining else {}
        return schemas.NodeList(nodes=[schemas.node_answer(node, drains.get(node.node_id)) for node in found])

    @router.post(
        "/nodes/{node}/drain",
        summary="Drain a node: it gets no new jobs; a second request changes the deadline",
        status_code=202,
        responses=problem_responses("node-not-found", "invalid-request"),
    )
    async def drain(node: str, caller: Operator, deadline_s: Deadline = None) -> schemas.NodeAnswer:
        return schemas.node_answer(await parent.nodes.drain(node, deadline_s, caller.owner), drained_by=caller.owner)

    @router.delete(
        "/nodes/{node}/drain",
        summary="End the drain of a node",
        responses=problem_responses("node-not-found", "invalid-request"),
    )
    async def undrain(node: str, _caller: Operator) -> schemas.NodeAnswer:
        return schemas.node_answer(await parent.nodes.undrain(node))

    @router.get("/groups", summary="List groups")
    async def groups(_caller: AnyCaller) -> schemas.GroupList:
        return schemas.GroupList(groups=[schemas.group_answer(view) for view in await all_groups(parent)])

    @router.post(
        "/groups/{group}/handover",
        summary="Hand the lead of a group over to another candidate; answers when that candidate leads",
        responses=problem_responses("group-not-found", "hand-over", "invalid-request", "unavailable"),
    )
    async def hand_over(
        group: str,
        caller: Operator,
        term: Annotated[
            int | None,
            Query(
                ge=0,
                le=2**62,
                description="`term` of the group when this is decided. If another candidate leads since, nothing "
                "happens, so that a repeated request does not give the lead back",
            ),
        ] = None,
    ) -> schemas.GroupAnswer:
        load = await parent.hand_over(group, caller.owner, term)
        return schemas.group_answer(replace(led(load), hand_over=parent.sweeper.hand_overs.get(group)))

    return router
