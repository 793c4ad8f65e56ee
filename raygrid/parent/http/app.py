"""The HTTP interface as a plain FastAPI application: it runs under Ray Serve, and without Ray in tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import APIRouter, Depends, FastAPI, Request

from raygrid.errors import UnavailableError
from raygrid.parent.audit import AuditLog
from raygrid.parent.grid_view import why_not_ready
from raygrid.parent.http import docs, problems, schemas
from raygrid.parent.http.audited import Audited
from raygrid.parent.http.auth import Access
from raygrid.parent.http.batch_routes import batch_routes
from raygrid.parent.http.data_routes import data_routes
from raygrid.parent.http.grid_routes import grid_routes
from raygrid.parent.http.head import AppWithHead
from raygrid.parent.http.job_routes import job_routes
from raygrid.parent.http.key_routes import key_routes
from raygrid.parent.http.openapi import problem_responses
from raygrid.parent.http.own_site import OwnSite
from raygrid.parent.http.query import require_known_query
from raygrid.parent.http.submit_routes import submit_routes
from raygrid.parent.service import Parent


def build_app(parent: Parent, *, manage: bool = True, audit: AuditLog | None = None) -> FastAPI:
    """The application of a parent; with `manage` it opens and closes the parent itself.

    `audit` is the log in which requests are recorded, if any; its owner closes it.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if manage:
            await parent.open()
        try:
            yield
        finally:
            if manage:
                await parent.close()

    app = AppWithHead(
        title="raygrid",
        version=version("raygrid"),
        description="Turns any executable into a fault-tolerant compute grid.",
        lifespan=lifespan,
        # A redirect would name the scheme of the request, which behind a proxy with TLS is plain HTTP.
        redirect_slashes=False,
        **docs.OFF,
    )
    problems.install(app)
    app.add_middleware(OwnSite, hosts=parent.settings.http.known_hosts)
    app.add_middleware(Audited, log=audit)  # the outer one: what `OwnSite` refuses is recorded
    http = parent.settings.http
    access = Access(parent.keys, key_required=bool(http.api_keys) or not http.is_loopback)
    guarded = APIRouter(
        dependencies=[Depends(access.authenticate), Depends(require_known_query)],
        responses=problem_responses("unauthorized", "forbidden", "busy"),  # busy: a key has used up its requests
    )
    for routes in (submit_routes, job_routes, batch_routes, data_routes, grid_routes, key_routes):
        guarded.include_router(routes(parent))
    docs.install(app, guarded)
    app.include_router(guarded)
    _health_routes(app, parent, access)
    return app


def _health_routes(app: FastAPI, parent: Parent, access: Access) -> None:
    @app.get("/health/live", tags=["health"], summary="Whether this parent runs")
    async def live() -> schemas.Health:
        return schemas.Health(status="live")

    @app.get(
        "/health/ready",
        tags=["health"],
        summary="Whether this parent can take jobs and the grid can run them",
        responses=problem_responses("unavailable"),
    )
    async def ready(request: Request) -> schemas.Health:
        try:
            await _require_ready(parent)
        except UnavailableError:
            if await access.admits(request):
                raise
            raise UnavailableError("this parent takes no jobs now; a request with an API key tells why") from None
        return schemas.Health(status="ready")


async def _require_ready(parent: Parent) -> None:
    parent.blob_check.require_answer()
    await parent.store_check.require()  # before the groups, because a failed store is the cause of missing leaders
    if (why := why_not_ready(parent)) is not None:
        raise UnavailableError(why)
    await parent.store.get([])
