"""The parent as a Ray Serve ingress: the only file of this tier that knows Ray."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from fastapi import FastAPI
from ray import serve

from raygrid.blobs import BlobStore
from raygrid.config import GridSettings
from raygrid.errors import SettingsError
from raygrid.links import RayGroups, RayResultCaches, machines
from raygrid.parent.housekeeping import Housekeeping
from raygrid.parent.routes import build_app
from raygrid.parent.service import Parent
from raygrid.store import SqlStore

APP_NAME = "raygrid"
MAX_ONGOING = 2_000
GRACE_S = 10.0


def refuse_unsafe(settings: GridSettings, store: SqlStore, machine_count: int) -> None:
    """Refuse settings that would lose jobs or let strangers in.

    Raises:
        SettingsError: says what to set.
    """
    settings.require_safe_listening()
    if store.is_single_machine and machine_count > 1:
        raise SettingsError(
            f"the cluster has {machine_count} machines, but storage.database is a SQLite file, which only one "
            "machine can share; set storage.database to postgresql+asyncpg://user:password@host/raygrid"
        )


def asgi(settings: GridSettings) -> FastAPI:
    """The application of one replica."""
    store = SqlStore(settings.database_url)
    refuse_unsafe(settings, store, machines())
    blobs = BlobStore(settings.blobs_url)
    parent = Parent(settings, store, blobs, RayGroups(settings), RayResultCaches(settings))
    storage = settings.storage
    housekeeping = Housekeeping(store, blobs, timedelta(days=storage.retention_days), storage.purge_every_s)
    app = build_app(parent)
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with inner(app) as state:
            await housekeeping.open()
            try:
                yield state
            finally:
                await housekeeping.close()

    app.router.lifespan_context = lifespan
    return app


def build(settings: GridSettings) -> serve.Application:
    """The Serve application of a grid: what `serve run`, `serve deploy` and `raygrid up` deploy."""
    settings.require_safe_listening()
    settings = settings.deployed(time.time())  # the newest wins: leaders and agents outlive a deployment
    parents: Any = serve.deployment(
        serve.ingress(lambda: asgi(settings))(),
        name="parent",
        num_replicas=settings.http.parents,
        max_ongoing_requests=MAX_ONGOING,
        graceful_shutdown_timeout_s=GRACE_S,
        ray_actor_options={"num_cpus": 0},
    )
    application: serve.Application = parents.bind()
    return application


def serve_here(settings: GridSettings) -> None:
    """Start Serve on the connected cluster and deploy the parents; returns when they are up."""
    http = settings.http
    serve.start(proxy_location="HeadOnly", http_options={"host": http.host, "port": http.port})
    serve.run(build(settings), name=APP_NAME, route_prefix="/")
