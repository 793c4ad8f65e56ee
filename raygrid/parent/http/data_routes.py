"""The routes of shared inputs, which are stored once and used by many jobs."""

from __future__ import annotations

from contextlib import AsyncExitStack

from fastapi import APIRouter, Request, Response

from raygrid.parent.http import schemas
from raygrid.parent.http.auth import DataReader, DataWriter
from raygrid.parent.http.forms import limited, require_plain_body
from raygrid.parent.http.held import HeldResponse
from raygrid.parent.http.openapi import BYTES, DATA_BODY, problem_responses
from raygrid.parent.http.requests import DataName
from raygrid.parent.service import Parent
from raygrid.parent.whole_blob import PIECE


def data_routes(parent: Parent) -> APIRouter:
    """The routes of shared inputs."""
    router = APIRouter(tags=["data"])

    @router.put(
        "/data/{name}",
        summary="Store a shared input",
        status_code=201,
        openapi_extra=DATA_BODY,
        responses=problem_responses("conflict", "too-large", "invalid-request", "busy", "unavailable"),
    )
    async def put_data(request: Request, name: DataName, caller: DataWriter) -> schemas.DataAnswer:
        require_plain_body(request.headers.get("content-encoding", ""))
        body = limited(request.stream(), parent.settings.http.max_body)
        return schemas.data_answer(await parent.put_data(name, body, caller))

    @router.get("/data", summary="List shared inputs")
    async def list_data(caller: DataReader) -> schemas.DataList:
        found = await parent.data(caller)
        return schemas.DataList(data=[schemas.data_answer(each) for _, each in sorted(found.items())])

    @router.get(
        "/data/{name}",
        summary="Content of a shared input",
        response_class=Response,
        response_model=None,
        responses={
            200: {
                "description": "The content",
                "content": {"application/octet-stream": {"schema": BYTES}},
                "headers": {"ETag": {"description": "sha256 of the content", "schema": {"type": "string"}}},
            },
            **problem_responses("data-not-found", "invalid-request"),
        },
    )
    async def get_data(name: DataName, caller: DataReader) -> Response:
        async with AsyncExitStack() as held:
            await held.enter_async_context(parent.outflow.turn(caller.key, PIECE))
            stored, chunks = await parent.data_content(name, caller)
            headers = {"ETag": f'"{stored.data.digest}"', "Content-Length": str(stored.data.size)}
            return HeldResponse(chunks, held.pop_all(), headers, "application/octet-stream")

    @router.delete(
        "/data/{name}",
        summary="Remove the name of a shared input; jobs that were submitted with it keep its content",
        status_code=204,
        response_class=Response,
        responses=problem_responses("data-not-found", "conflict", "invalid-request"),
    )
    async def delete_data(name: DataName, caller: DataWriter) -> Response:
        await parent.delete_data(name, caller)
        return Response(status_code=204)

    return router
