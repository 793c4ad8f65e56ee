"""The HTTP interface as a plain FastAPI application: it runs under Ray Serve, and without Ray in tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from uuid_utils import uuid7

from raygrid.errors import InvalidRequestError, UnavailableError
from raygrid.models import DoneJob, JobState, NewJob, StoredJob
from raygrid.parent.grid_view import all_groups, why_not_ready
from raygrid.parent.http import data_routes, docs, problems, schemas, streams, traffic_routes
from raygrid.parent.http.auth import require_key
from raygrid.parent.http.batch_routes import batch_routes
from raygrid.parent.http.group_routes import group_routes
from raygrid.parent.http.head import AppWithHead
from raygrid.parent.http.naming import JOB
from raygrid.parent.http.node_routes import node_routes
from raygrid.parent.http.openapi import SUBMIT_FORM, ZIP, ZIP_OR_STDOUT, problem_responses
from raygrid.parent.http.preferences import preferences
from raygrid.parent.http.preferences import wait_s as preferred_wait_s
from raygrid.parent.http.query import require_known_query
from raygrid.parent.http.requests import Wait, read_form
from raygrid.parent.results import require_result
from raygrid.parent.service import Parent, Submitted
from raygrid.parent.submission import checked_id, make_job, options_of_form


def build_app(parent: Parent, *, manage: bool = True) -> FastAPI:
    """The application over a parent; with `manage` it opens and closes the parent itself."""

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
        # A redirect would name the scheme that the parent was asked with: behind a proxy with TLS, plain HTTP.
        redirect_slashes=False,
        **docs.OFF,
    )
    problems.install(app)
    guarded = APIRouter(
        dependencies=[Depends(require_key(parent.settings.http.api_keys)), Depends(require_known_query)]
    )
    _submit_routes(guarded, parent)
    _job_routes(guarded, parent)
    batch_routes(guarded, parent)
    data_routes.add_to(guarded, parent)
    _grid_routes(guarded, parent)
    traffic_routes.add_to(guarded, parent)
    node_routes(guarded, parent)
    group_routes(guarded, parent)
    docs.install(app, guarded)
    app.include_router(guarded)
    _health_routes(app, parent)
    return app


# --- submitting -----------------------------------------------------------------------------------------------------


async def _one_job(request: Request, parent: Parent, job_id: str | None) -> NewJob:
    """Read the form of a single submit."""
    form = await read_form(request, parent, max_files=1)
    if not form.files:
        raise InvalidRequestError("the form has no file; send one as: -F file=@trade.csv")
    if form.files[0].part != "file":
        raise InvalidRequestError(f"the file must be the part 'file', not {form.files[0].part[:80]!r}")
    given = form.options.pop("jobId", None) if job_id is None else None
    if given is not None and len(given) != 1:
        raise InvalidRequestError("the option 'jobId' is given more than once")
    options = options_of_form(form.options)
    data = {name: stored.data for name, stored in (await parent.data(options.data)).items()}
    chosen = job_id or (checked_id(given[0]) if given else str(uuid7()))
    return make_job(parent.settings, parent.definitions.digest, chosen, form.files[0], options, data)


def _accepted(submitted: Submitted, status: int = 202) -> JSONResponse:
    answer = schemas.SubmitAnswer(
        job_id=submitted.job_id,
        state=submitted.state,
        created=submitted.created,
        reused_from=submitted.reused_from,
        status_url=schemas.status_url(submitted.job_id),
        result_url=schemas.result_url(submitted.job_id),
    )
    body = answer.model_dump(mode="json", by_alias=True)
    return JSONResponse(body, status, {"Location": answer.status_url, JOB: answer.job_id})


def _submit_routes(router: APIRouter, parent: Parent) -> None:
    http = parent.settings.http

    @router.post(
        "/submit/{jobId}",
        tags=["submit"],
        summary="Submit a job and wait for its result",
        openapi_extra=SUBMIT_FORM,
        response_class=Response,
        response_model=None,
        responses={
            **ZIP_OR_STDOUT,
            202: {"model": schemas.SubmitAnswer, "description": "Taken; the wait is over or was not wanted"},
            **problem_responses(401, 409, 410, 413, 422, 429, 500, 503),
        },
    )
    async def submit_and_wait(
        request: Request,
        job_id: Annotated[str, Path(alias="jobId")],
        wait: Wait = None,
        prefer: Annotated[str, Header(description="`respond-async`, `wait=SECONDS` (RFC 7240)")] = "",
    ) -> Response:
        job = await _one_job(request, parent, checked_id(job_id))
        submitted = await parent.submit(job)
        preferred = preferences(request.headers.getlist("prefer")) if prefer else {}
        if "respond-async" in preferred:
            return _accepted(submitted)
        wait_s = next(each for each in (wait, preferred_wait_s(preferred), http.sync_wait_s) if each is not None)
        ended = await parent.wait(job_id, min(wait_s, http.max_wait_s), is_new=submitted.runs)
        if not ended.state.is_terminal:
            return _accepted(replace(submitted, state=ended.state))
        as_stdout = parent.settings.pricers.get(job.spec.pricer)
        return await _result(request, parent, ended, stdout=as_stdout is not None and as_stdout.result == "stdout")

    @router.post(
        "/submit",
        tags=["submit"],
        summary="Submit a job and go on",
        status_code=202,
        openapi_extra=SUBMIT_FORM,
        response_model=schemas.SubmitAnswer,
        responses=problem_responses(401, 409, 413, 422, 429, 503),
    )
    async def submit(request: Request) -> Response:
        return _accepted(await parent.submit(await _one_job(request, parent, None)))


async def _result(
    request: Request, parent: Parent, job: StoredJob | DoneJob, *, even_if_failed: bool = False, stdout: bool = False
) -> Response:
    require_result(job, even_if_failed=even_if_failed)
    assert job.result is not None
    headers = {"ETag": f'"{job.result.digest}"', JOB: job.job_id}
    if job.reused_from is not None:
        headers["Raygrid-Reused-From"] = job.reused_from
    if stdout:
        headers["ETag"] = f'"{job.result.digest}-stdout"'
        printed = await parent.results.stdout(job)
        return StreamingResponse(printed, headers=headers, media_type="application/octet-stream")
    if request.method == "GET" and f'"{job.result.digest}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = f'attachment; filename="{job.job_id}.zip"'
    if parent.results.is_large(job):
        headers["Content-Length"] = str(job.result.size)
        return StreamingResponse(await parent.results.stream(job), headers=headers, media_type="application/zip")
    return Response(await parent.results.read_one(job), headers=headers, media_type="application/zip")


# --- jobs -----------------------------------------------------------------------------------------------------------


def _job_routes(router: APIRouter, parent: Parent) -> None:
    @router.get(
        "/status/{jobId}",
        tags=["jobs"],
        summary="The state of a job",
        response_model=schemas.JobStatus,
        responses=problem_responses(401, 404, 422),
    )
    async def status(response: Response, job_id: Annotated[str, Path(alias="jobId")]) -> schemas.JobStatus:
        job = await parent.job(job_id)
        response.headers[JOB] = job.job_id
        batches = await parent.store.batches_of([job_id])
        return schemas.job_status(job, await parent.position(job), batches.get(job_id, ()))

    @router.get(
        "/result/{jobId}",
        tags=["jobs"],
        summary="The result of a job",
        response_class=Response,
        response_model=None,
        responses={
            **ZIP,
            304: {"description": "The result is the one that If-None-Match names"},
            **problem_responses(401, 404, 409, 410, 422, 500),
        },
    )
    async def result(
        request: Request,
        job_id: Annotated[str, Path(alias="jobId")],
        even_if: Annotated[
            str | None, Query(pattern="^failed$", description="`failed` gives a failed job's ZIP, too")
        ] = None,
        wait: Wait = None,
    ) -> Response:
        job = await parent.wait(job_id, min(wait or 0.0, parent.settings.http.max_wait_s))
        return await _result(request, parent, job, even_if_failed=even_if == "failed")

    @router.delete(
        "/jobs/{jobId}",
        tags=["jobs"],
        summary="Cancel a job",
        status_code=202,
        response_model=schemas.JobCancelled,
        responses=problem_responses(401, 404, 422),
    )
    async def cancel(response: Response, job_id: Annotated[str, Path(alias="jobId")]) -> schemas.JobCancelled:
        job = await parent.job(job_id)
        response.headers[JOB] = job.job_id
        await parent.cancel([job_id])
        return schemas.JobCancelled(job_id=job.job_id, state=job.state)

    @router.get(
        "/jobs",
        tags=["jobs"],
        summary="List jobs",
        response_model=schemas.JobPage,
        responses=problem_responses(401, 422),
    )
    async def jobs(
        state: JobState | None = None,
        batch: str | None = None,
        cursor: Annotated[str | None, Query(description="`next_cursor` of the page before")] = None,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    ) -> schemas.JobPage:
        batch_id = checked_id(batch, "batchId") if batch is not None else None
        after = checked_id(cursor, "cursor") if cursor is not None else None
        page = await parent.store.jobs(state=state, batch_id=batch_id, after=after, limit=limit)
        batches = await parent.store.batches_of([job.job_id for job in page])
        return schemas.JobPage(
            jobs=[schemas.job_status(job, batches=batches.get(job.job_id, ())) for job in page],
            next_cursor=page[-1].job_id if len(page) == limit else None,
        )

    @router.get(
        "/events",
        tags=["jobs"],
        summary="State changes of a job or a batch as server-sent events",
        response_class=Response,
        response_model=None,
        responses={
            200: {
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
                "description": "Events `state`, at last `end`; resumable by Last-Event-ID",
            },
            **problem_responses(401, 404, 422),
        },
    )
    async def events(
        job: str | None = None,
        batch: str | None = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response:
        if (job is None) == (batch is None):
            raise InvalidRequestError("say either ?job= or ?batch=")
        after = int(last_event_id) if last_event_id and last_event_id.isdecimal() and len(last_event_id) < 19 else 0
        wait_s = parent.settings.http.max_wait_s
        if job is not None:
            await parent.job(job)  # an unknown one is refused before the stream begins
            body = streams.job_events(parent, job, after, wait_s)
        else:
            assert batch is not None
            await parent.batch(batch)
            body = streams.batch_events(parent, batch, after, wait_s)
        # nginx, unless told so, gathers an answer before it passes it on.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(body, media_type="text/event-stream", headers=headers)


# --- the grid -------------------------------------------------------------------------------------------------------


def _grid_routes(router: APIRouter, parent: Parent) -> None:
    @router.get("/capacity", tags=["grid"], summary="Load of the grid", responses=problem_responses(401))
    async def capacity() -> schemas.GridCapacity:
        views = await all_groups(parent)
        loads = [view.load for view in views]
        return schemas.GridCapacity(
            slots=sum(load.slots for load in loads),
            running=sum(load.running for load in loads),
            free=sum(load.free for load in loads),
            queued=sum(load.queued for load in loads),
            groups=[schemas.group_answer(view) for view in views],
        )

    @router.get("/pricers", tags=["grid"], summary="All pricers", responses=problem_responses(401))
    async def pricers() -> schemas.PricerList:
        settings = parent.settings
        return schemas.PricerList(
            pricers=[
                schemas.PricerAnswer(
                    name=name,
                    version=pricer.version,
                    takes_args=pricer.takes_args,
                    result=pricer.result,
                    reuse=pricer.reuse,
                    definition=parent.definitions.digest(name),
                    default=name == settings.chosen_default_pricer,
                )
                for name, pricer in sorted(settings.pricers.items())
            ]
        )


def _health_routes(app: FastAPI, parent: Parent) -> None:
    @app.get("/health/live", tags=["health"], summary="Whether this parent lives")
    async def live() -> schemas.Health:
        return schemas.Health(status="live")

    @app.get(
        "/health/ready",
        tags=["health"],
        summary="Whether this parent can take jobs and have them run",
        responses=problem_responses(503),
    )
    async def ready() -> schemas.Health:
        parent.blob_check.require_answer()
        await parent.store_check.require()  # before the groups: without it none has a leader for long
        if (why := why_not_ready(parent)) is not None:
            raise UnavailableError(why)
        await parent.store.get([])
        return schemas.Health(status="ready")
