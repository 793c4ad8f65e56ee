"""The description of the interface and its pages, behind the same API key as everything else."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse

# FastAPI's own routes know no dependencies: they are turned off, and `install` puts these in their place.
OFF: dict[str, Any] = {"openapi_url": None, "docs_url": None, "redoc_url": None}
_DESCRIPTION = "/openapi.json"


def install(app: FastAPI, guarded: APIRouter) -> None:
    """Add the routes to a router that lets nobody in without a key."""

    def where(request: Request) -> str:
        return str(request.scope.get("root_path", "")).rstrip("/") + _DESCRIPTION

    @guarded.get(_DESCRIPTION, include_in_schema=False)
    async def description() -> dict[str, Any]:
        return app.openapi()

    @guarded.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        return get_swagger_ui_html(openapi_url=where(request), title=app.title)

    @guarded.get("/redoc", include_in_schema=False)
    async def redoc(request: Request) -> HTMLResponse:
        return get_redoc_html(openapi_url=where(request), title=app.title)
