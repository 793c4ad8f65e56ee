"""The routes of jobs: status, result, cancellation, the list, and events."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from raygrid.core.access import Caller
from raygrid.errors import InvalidRequestError
from raygrid.models import DoneJob, JobState, StoredJob
from raygrid.parent.http import schemas, streams
from raygrid.parent.http.auth import Canceller, Reader, Viewer
from raygrid.parent.http.held import HeldResponse, one_piece
from raygrid.parent.http.naming import JOB
from raygrid.parent.http.openapi import ENDED_PROBLEMS, ZIP, problem_responses
from raygrid.parent.http.requests import BatchFilter, EventsOf, JobId, NextCursor, OwnerFilter, Wait, shown_owner
from raygrid.parent.http.scope import CALLER
from raygrid.parent.outflow import FREE
from raygrid.parent.results import require_result
from raygrid.parent.service import Parent
from raygrid.parent.submission import checked_id


def job_routes(parent: Parent) -> APIRouter:
    """The routes of jobs."""
    router = APIRouter(tags=["jobs"])

    @router.get(
        "/status/{jobId}", summary="Status of a job", responses=problem_responses("job-not-found", "invalid-request")
    )
    async def status(response: Response, job_id: JobId, caller: Viewer) -> schemas.JobStatus:
        job = await parent.job(job_id, caller)
        response.headers[JOB] = job.job_id
        batches = await parent.store.batches_of([job_id])
        return schemas.job_status(job, await parent.position(job), batches.get(job_id, ()))

    @router.get(
        "/result/{jobId}",
        summary="Result of a job as a ZIP",
        response_class=Response,
        response_model=None,
        responses={
            **ZIP,
            304: {"description": "The result has the ETag of If-None-Match"},
            **problem_responses("job-not-found", "not-finished", "invalid-request", *ENDED_PROBLEMS),
        },
    )
    async def result(
        request: Request,
        job_id: JobId,
        caller: Reader,
        even_if: Annotated[
            str | None, Query(pattern="^failed$", description="`failed`: answer with the ZIP of a failed job, too")
        ] = None,
        wait: Wait = None,
    ) -> Response:
        job = await parent.wait(job_id, min(wait or 0.0, parent.settings.http.max_wait_s), caller)
        parent.keys.require(caller)
        return await result_response(request, parent, job, even_if_failed=even_if == "failed")

    @router.delete(
        "/jobs/{jobId}",
        summary="Cancel a job",
        status_code=202,
        responses=problem_responses("job-not-found", "conflict", "invalid-request"),
    )
    async def cancel(response: Response, job_id: JobId, caller: Canceller) -> schemas.JobCancelled:
        job = await parent.job_to_change(job_id, caller)
        response.headers[JOB] = job.job_id
        await parent.cancel([job_id], caller)
        return schemas.JobCancelled(job_id=job.job_id, state=job.state)

    @router.get("/jobs", summary="List jobs", responses=problem_responses("invalid-request"))
    async def jobs(
        caller: Viewer,
        state: JobState | None = None,
        batch: BatchFilter = None,
        owner: OwnerFilter = None,
        cursor: NextCursor = None,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    ) -> schemas.JobPage:
        batch_id = checked_id(batch, "batchId") if batch is not None else None
        after = checked_id(cursor, "cursor") if cursor is not None else None
        page = await parent.store.jobs(
            state=state, batch_id=batch_id, after=after, limit=limit, owner=shown_owner(caller, owner)
        )
        batches = await parent.store.batches_of([job.job_id for job in page])
        return schemas.JobPage(
            jobs=[schemas.job_status(job, batches=batches.get(job.job_id, ())) for job in page],
            next_cursor=page[-1].job_id if len(page) == limit else None,
        )

    @router.get(
        "/events",
        summary="State changes of a job or a batch as server-sent events",
        description="Give exactly one of `job` and `batch`.",
        response_class=Response,
        response_model=None,
        responses={
            200: {
                "content": {"text/event-stream": {}},  # no schema: readers take it for that of each event
                "description": "Events `state`, and `end` as the last one; a client resumes with Last-Event-ID",
            },
            **problem_responses("job-not-found", "invalid-request"),
        },
    )
    async def events(
        caller: Viewer,
        job: EventsOf = None,
        batch: EventsOf = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response:
        if (job is None) == (batch is None):
            raise InvalidRequestError("give exactly one of ?job= and ?batch=")
        after = int(last_event_id) if last_event_id and last_event_id.isdecimal() and len(last_event_id) < 19 else 0
        wait_s = parent.settings.http.max_wait_s
        if job is not None:
            await parent.job(job, caller)  # refuses an unknown job before the stream begins
            body = streams.job_events(parent, caller, job, after, wait_s)
        else:
            assert batch is not None
            await parent.batch(batch, caller)
            body = streams.batch_events(parent, caller, batch, after, wait_s)
        # X-Accel-Buffering keeps nginx from buffering the answer.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(body, media_type="text/event-stream", headers=headers)

    return router


async def result_response(
    request: Request, parent: Parent, job: StoredJob | DoneJob, *, even_if_failed: bool = False, stdout: bool = False
) -> Response:
    """The answer with the result of a job: its ZIP, or with `stdout` its standard output.

    Raises:
        RaygridError: the job has no result; see `require_result`.
    """
    require_result(job, even_if_failed=even_if_failed)
    assert job.result is not None
    headers = {"ETag": f'"{job.result.digest}"', JOB: job.job_id}
    if job.reused_from is not None:
        headers["Raygrid-Reused-From"] = job.reused_from
    if not stdout and request.method == "GET" and f'"{job.result.digest}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    caller: Caller = request.scope[CALLER]
    async with AsyncExitStack() as held:
        await held.enter_async_context(parent.outflow.turn(caller.key, job.result.size))
        if stdout:
            headers["ETag"] = f'"{job.result.digest}-stdout"'
            printed = await parent.results.stdout(job)
            return HeldResponse(printed, held.pop_all(), headers, "application/octet-stream")
        headers["Content-Disposition"] = f'attachment; filename="{job.job_id}.zip"'
        if parent.results.is_large(job):
            headers["Content-Length"] = str(job.result.size)
            return HeldResponse(await parent.results.stream(job), held.pop_all(), headers, "application/zip")
        whole = await parent.results.read_one(job)
        if len(whole) <= FREE:
            return Response(whole, headers=headers, media_type="application/zip")
        headers["Content-Length"] = str(len(whole))
        return HeldResponse(one_piece(whole), held.pop_all(), headers, "application/zip")
