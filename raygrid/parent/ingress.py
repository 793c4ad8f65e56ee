"""The parent as a Ray Serve ingress, and its deployment. The only file of this tier that uses Ray."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import os
import pickle
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from fastapi import FastAPI
from ray import serve
from ray._private import services
from ray.exceptions import AuthenticationError
from ray.experimental import internal_kv
from ray.serve._private import constants
from ray.serve._private.direct_ingress_http_util import ASGIDIReceiveProxy

from raygrid.blobs import BlobStore
from raygrid.errors import SettingsError, UnavailableError
from raygrid.parent.audit import AuditLog
from raygrid.parent.housekeeping import Housekeeping
from raygrid.parent.http.app import build_app
from raygrid.parent.http.backpressure import Backpressure
from raygrid.parent.http.listener import Listener
from raygrid.parent.service import Parent
from raygrid.settings.model import GridSettings
from raygrid.store import SqlStore
from raygrid.system import local_key
from raygrid.system.garbage_collection import spare_what_is_loaded
from raygrid.system.log_files import PARENT, keep_logs
from raygrid.system.logs import VARIABLE as LOGS
from raygrid.system.processes import forbid_tracing
from raygrid.transport.actors import ActorClasses
from raygrid.transport.groups import RayGroups
from raygrid.transport.nodes import RayResultCaches
from raygrid.transport.racks import groups_of, home, live_nodes, machines

logger = logging.getLogger(__name__)

APP_NAME = "raygrid"
DEPLOYED = b"raygrid:deployed"
GRID = b"raygrid:grid"
SETTINGS = b"raygrid:settings"  # of a grid on one machine, with digests instead of API keys
HEAD = "node:__internal_head__"  # a resource of the head of each Ray cluster
SHARE = 0.001  # of a CPU or of HEAD: selects the machines for parents, and reserves almost nothing
MAX_ONGOING = 2_000
GRACE_S = 10.0
REPLACED_S = 60.0
HEAD_ANSWERS_S = 5.0
RETRY_S = 5.0  # of the blob store; short, because clients retry themselves


def refuse_unsafe(settings: GridSettings, store: SqlStore, machine_count: int) -> None:
    """Refuse settings that would lose jobs, and remote access without API keys.

    Raises:
        SettingsError: with the setting to change.
    """
    settings.require_safe_listening()
    if store.is_single_machine and machine_count > 1:
        raise SettingsError(
            f"the cluster has {machine_count} machines, but storage.database is a SQLite file, which only one "
            "machine can share; set storage.database to postgresql+asyncpg://user:password@host/raygrid"
        )
    if settings.storage.blobs is None and machine_count > 1:
        raise SettingsError(
            f"the cluster has {machine_count} machines, but storage.blobs is not set, so each would keep inputs and "
            "results in its own directory; set storage.blobs to a directory that all machines share, or to "
            "s3://bucket/prefix"
        )


def asgi(settings: GridSettings, actors: ActorClasses, *, listens: bool = False) -> FastAPI:
    """The application of one replica; with `listens` it has its own listener instead of Serve's proxy."""
    forbid_tracing()
    keep_logs(PARENT)
    store = SqlStore(settings.database_url)
    refuse_unsafe(settings, store, machines(live_nodes()))
    blobs = BlobStore(settings.blobs_url, settings.storage.blob_options, retry_s=RETRY_S)
    if listens and not settings.http.api_keys:  # on loopback
        key = local_key.needed(settings.grid_dir)
        settings = settings if key is None else settings.with_key("local", key)
    groups = RayGroups(settings, actors)
    parent = Parent(settings, store, blobs, groups, RayResultCaches(settings), home(settings))
    storage = settings.storage
    housekeeping = Housekeeping(store, blobs, timedelta(days=storage.retention_days), storage.purge_every_s)
    audit = _audit_log()
    app = build_app(parent, audit=audit)
    if not constants.RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD:  # only then Serve waits for room in its queue
        app.add_middleware(Backpressure, gathers=ASGIDIReceiveProxy)
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with inner(app) as state:
            await housekeeping.open()
            http = settings.http
            own_user_only = not http.api_keys
            listener = (
                Listener(app, http.host, http.port, own_user_only=own_user_only, audit=audit) if listens else None
            )
            if listener is not None:
                await listener.open()
            spare_what_is_loaded()
            try:
                yield state
            finally:
                if listener is not None:
                    await listener.close()
                await housekeeping.close()
        groups.close()  # the parent has ended
        if audit is not None:
            audit.close()

    app.router.lifespan_context = lifespan
    return app


def _audit_log() -> AuditLog | None:
    """The audit log beside the logs of this machine; None if the environment names no directory for them."""
    directory = os.environ.get(LOGS)
    if directory is None:
        return None
    try:
        return AuditLog(Path(directory))
    except OSError as error:
        logger.warning("there is no audit log in %s, so requests are not recorded: %s", directory, error)
        return None


def build(settings: GridSettings, actors: ActorClasses, *, spread: bool = True) -> serve.Application:
    """The Serve application of a grid, for `serve run`, `raygrid deploy` and `raygrid up`.

    The parents create leaders and agents of the classes in `actors`. With `spread`, at most one parent runs per machine
    and none on machines without CPUs for Ray (a cluster's head), and Serve's proxies pass requests to them. Otherwise
    all parents run on the head, where a drill that ends the node of a rack does not end them, and have own listeners.
    """
    settings.require_safe_listening()
    settings = settings.with_hidden_keys.deployed(
        time.time()
    )  # leaders and agents outlive a deployment and follow the newest settings
    parents: Any = serve.deployment(
        serve.ingress(lambda: asgi(settings, actors, listens=not spread))(),
        name="parent",
        num_replicas=settings.http.parents,
        max_ongoing_requests=MAX_ONGOING,
        graceful_shutdown_timeout_s=GRACE_S,
        ray_actor_options={"num_cpus": SHARE} if spread else {"num_cpus": 0, "resources": {HEAD: SHARE}},
    )
    if spread:
        parents = parents.options(max_replicas_per_node=1)
    application: serve.Application = parents.bind()
    return application


def serve_here(settings: GridSettings, actors: ActorClasses) -> None:
    """Start Serve on the connected cluster and deploy the parents; returns when they run."""
    serve.start(proxy_location="Disabled")
    serve.run(build(settings, actors, spread=False), name=APP_NAME, route_prefix="/")
    internal_kv._internal_kv_put(SETTINGS, pickle.dumps(settings.with_hidden_keys), overwrite=True)


@contextmanager
def joined(address: str) -> Iterator[None]:
    """Connect to the Ray cluster at an address for the duration of the context.

    Raises:
        UnavailableError: the cluster refused the connection.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        ray.init(address, namespace="raygrid-deploy", log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, AuthenticationError) as error:
        raise UnavailableError(f"the Ray cluster at {address} refused the connection: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def deployed_here() -> GridSettings:
    """The settings of the connected grid of one machine.

    Raises:
        SettingsError: another release started the grid.
    """
    known: bytes | None = internal_kv._internal_kv_get(SETTINGS)
    try:
        found: object = pickle.loads(known or b"")  # noqa: S301 - proven by Ray's token # nosec B301
    except Exception:  # names and fields of another release: pickle raises almost anything
        found = None
    if not isinstance(found, GridSettings):
        raise SettingsError(
            "the grid was started by another release of raygrid, whose settings this one cannot read; stop the grid "
            "with `raygrid down` and start it again: its jobs continue"
        )
    return found


def replace_here(
    settings: GridSettings, actors: ActorClasses, ready: Callable[[], None], within_s: float = REPLACED_S
) -> None:
    """Replace the parents of the connected grid of one machine by parents with newer settings.

    The new parents listen on the same port before the old ones end, so that no connection is refused; leaders and
    agents stay, and get the settings from the new parents. `ready` must return when the new parents take jobs, or
    raise.

    Raises:
        UnavailableError: the new parents did not start within `within_s` seconds; the old ones continue.
    """
    before = [name for name in serve.status().applications if _is_ours(name)]
    name = next(each for number in itertools.count(1) if (each := _app_name(number)) not in before)
    target = serve.RunTarget(build(settings, actors, spread=False), name=name, route_prefix=None)
    try:
        serve.run_many([target], wait_for_applications_running=False)
        _await_running(within_s, name)
        ready()
    except BaseException:
        with suppress(Exception):
            serve.delete(name)
        raise
    internal_kv._internal_kv_put(SETTINGS, pickle.dumps(settings.with_hidden_keys), overwrite=True)
    for each in before:
        serve.delete(each)


def _app_name(number: int) -> str:
    return APP_NAME if number == 1 else f"{APP_NAME}-{number}"


def _is_ours(name: str) -> bool:
    return name == APP_NAME or name.startswith(f"{APP_NAME}-")


def deploy(settings: GridSettings, actors: ActorClasses, *, wait_s: float | None) -> bool:
    """Deploy the parents on this machine's cluster, or replace running ones by parents with new settings.

    Serve replaces parents one after the other, and lets each finish its requests. Equal settings replace none. Waits at
    most `wait_s` seconds until every parent runs, or not at all if it is None: Serve starts them as machines join.

    Returns:
        Whether anything was changed.

    Raises:
        SettingsError: the settings cannot work on a cluster.
        UnavailableError: no Ray runs here, the job store does not answer, or the parents did not start in time.
    """
    with joined(cluster_address()):
        racks = groups_of(live_nodes(), settings.group_prefix)
        store = SqlStore(settings.database_url)
        # If no machine with a rack has joined yet, the racks will be on other machines than this one.
        refuse_unsafe(settings, store, machines(live_nodes()) if racks else 2)
        _require_same_grid(asyncio.run(_identity(store)))
        wanted, known = _digest(settings), internal_kv._internal_kv_get(DEPLOYED)
        application = serve.status().applications.get(APP_NAME)
        if known == wanted and application is not None and application.status.value in ("RUNNING", "DEPLOYING"):
            if wait_s is not None:
                _await_running(wait_s)
            return False
        http = settings.http
        serve.start(proxy_location="EveryNode", http_options={"host": http.host, "port": http.port})
        target = serve.RunTarget(build(settings, actors), name=APP_NAME, route_prefix="/")
        serve.run_many([target], wait_for_applications_running=False)
        internal_kv._internal_kv_put(DEPLOYED, wanted, overwrite=True)
        if wait_s is not None:
            _await_running(wait_s)
        return True


def cluster_address() -> str:
    """The address of the head of this machine's cluster, or of RAY_ADDRESS.

    Checks that the head answers, because Ray would try for minutes to reach it.

    Raises:
        UnavailableError: no Ray runs here, or its head does not answer.
        SettingsError: RAY_ADDRESS is not an address.
    """
    try:
        address = services.canonicalize_bootstrap_address("auto")
    except ConnectionError:
        address = None
    except ValueError as error:
        raise SettingsError("RAY_ADDRESS must be HOST:PORT of the cluster's head") from error
    if address is None:
        raise UnavailableError(
            "no Ray cluster runs on this machine; deploy on a machine of the cluster after `raygrid host start` (or "
            "`ray up cluster.yaml`) has started it; on a single machine use `raygrid up`"
        )
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=HEAD_ANSWERS_S).close()
    except OSError as error:
        raise UnavailableError(
            f"the head of this machine's Ray cluster, {address}, does not answer ({error}); start it with "
            "`raygrid host start --head`, or set RAY_ADDRESS to the address of the cluster's head"
        ) from error
    return str(address)


def _digest(settings: GridSettings) -> bytes:
    """A digest of the settings and the release, because Serve treats every deployment as a new one."""
    keys = [(each.name, each.key.get_secret_value()) for each in settings.http.api_keys]
    content = f"{version('raygrid')} {settings.model_dump_json()} {keys}"
    return hashlib.sha256(content.encode()).hexdigest().encode()


def _await_running(within_s: float, name: str = APP_NAME) -> None:
    until = time.monotonic() + within_s
    while True:
        application = serve.status().applications[name]
        state, why = application.status.value, "; ".join(each.message for each in application.deployments.values())
        if state == "RUNNING":
            return
        if state == "DEPLOY_FAILED":
            raise UnavailableError(f"the parents cannot start: {application.message or why}")
        if time.monotonic() > until:
            raise UnavailableError(
                f"not all parents started within {within_s:g} s ({state.lower()}: {why or 'no reason given'}); Serve "
                "continues to start them. Check that there are as many machines with a rack as http.parents"
            )
        time.sleep(0.5)


async def _identity(store: SqlStore) -> str:
    """The id of a job store, created if it has none; also brings its schema up to date."""
    await store.open()
    try:
        return await store.agree("grid", uuid4().hex)
    finally:
        await store.close()


def _require_same_grid(identity: str) -> None:
    """Refuse a job store other than that of the running grid, whose jobs the new parents would not see."""
    known: bytes | None = internal_kv._internal_kv_get(GRID)
    if known is None:
        internal_kv._internal_kv_put(GRID, identity.encode(), overwrite=False)
    elif known != identity.encode():
        raise SettingsError(
            "storage.database differs from that of the grid that runs on this cluster, whose jobs new parents would "
            "not see. Set the former one, or stop the grid (`ray down`) and start it with the other database"
        )
