"""The routes of shared inputs, which are stored once and used by many jobs."""

from __future__ import annotations

from fastapi import APIRouter, Request

from raygrid.parent.http import schemas
from raygrid.parent.http.forms import limited, require_plain_body
from raygrid.parent.http.openapi import DATA_BODY, problem_responses
from raygrid.parent.service import Parent


def data_routes(parent: Parent) -> APIRouter:
    """The routes of shared inputs."""
    router = APIRouter(tags=["data"])

    @router.put(
        "/data/{name}",
        summary="Store a shared input",
        status_code=201,
        openapi_extra=DATA_BODY,
        responses=problem_responses("too-large", "invalid-request"),
    )
    async def put_data(request: Request, name: str) -> schemas.DataAnswer:
        require_plain_body(request.headers.get("content-encoding", ""))
        stored = await parent.put_data(name, limited(request.stream(), parent.settings.http.max_body))
        return schemas.DataAnswer(name=stored.name, digest=stored.digest, size=stored.size)

    @router.get("/data", summary="List shared inputs")
    async def list_data() -> schemas.DataList:
        found = await parent.data()
        return schemas.DataList(
            data=[
                schemas.DataAnswer(name=name, digest=each.data.digest, size=each.data.size, stored_at=each.stored_at)
                for name, each in sorted(found.items())
            ]
        )

    return router
