"""The routes of batches: submit many jobs at once, follow their progress, and read their results as they end."""

from __future__ import annotations

import json
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from uuid_utils import uuid7

from raygrid.core.access import Caller
from raygrid.errors import InvalidRequestError, TooLargeError
from raygrid.models import NewJob
from raygrid.parent.http import problems, schemas, streams
from raygrid.parent.http.auth import Canceller, Reader, Submitter, Viewer
from raygrid.parent.http.forms import ReceivedForm
from raygrid.parent.http.naming import BATCH
from raygrid.parent.http.openapi import BATCH_FORM, BYTES, SUBMIT_PROBLEMS, problem_responses
from raygrid.parent.http.requests import BatchId, NextCursor, OwnerFilter, Wait, read_form, shown_owner
from raygrid.parent.service import Parent
from raygrid.parent.submission import SubmissionOptions, checked_id, make_job, options_of_form, options_of_json

MOST_JOBS_FIELD = 4 * 1024**2
MOST_BATCH_ARGS_BYTES = 16 * 1024**2


def overrides_of(form: ReceivedForm) -> dict[str, dict[str, Any]]:
    """Take the option `jobs` out of a form: the options of single jobs, by jobId.

    Raises:
        InvalidRequestError: it is no JSON object of objects, or names a job without a file.
        TooLargeError: it is too long.
    """
    texts = form.options.pop("jobs", [])
    if not texts:
        return {}
    if sum(map(len, texts)) > MOST_JOBS_FIELD:  # reading it would stop this parent for a noticeable time
        raise TooLargeError(
            f"the option 'jobs' is longer than {MOST_JOBS_FIELD} characters; split the batch, or give options that all "
            "jobs share as options of the form"
        )
    try:
        parsed = json.loads(texts[0]) if len(texts) == 1 else None
    except (ValueError, RecursionError):  # a number of thousands of digits is a plain ValueError
        parsed = None
    if isinstance(parsed, dict) and len(parsed) > len(form.files):
        unknown = next(name for name in parsed if name not in {file.part for file in form.files})
        raise InvalidRequestError(
            f"the option 'jobs' names the job {unknown[:140]!r}, but there is no file with that name"
        )
    if not isinstance(parsed, dict) or not all(isinstance(each, dict) for each in parsed.values()):
        raise InvalidRequestError("the option 'jobs' must be one JSON object: jobId to an object of options")
    unknown = parsed.keys() - {file.part for file in form.files}
    if unknown:
        raise InvalidRequestError(
            f"the option 'jobs' names the job {sorted(unknown)[0][:140]!r}, but there is no file with that name"
        )
    return parsed


async def _batch_jobs(parent: Parent, caller: Caller, form: ReceivedForm) -> list[NewJob]:
    overrides = overrides_of(form)
    defaults = options_of_form(form.options)
    per_job: dict[str, SubmissionOptions] = {}
    args_bytes = 0
    for file in form.files:
        job_id = checked_id(file.part)
        if job_id in per_job:
            raise InvalidRequestError(f"two files of the batch have the jobId {job_id!r}")
        per_job[job_id] = options_of_json(overrides.get(job_id, {}), defaults)
        args_bytes += sum(len(arg) for arg in per_job[job_id].args)
        if args_bytes > MOST_BATCH_ARGS_BYTES:
            raise TooLargeError(
                f"the args of the jobs of a batch are longer than {MOST_BATCH_ARGS_BYTES:,} characters together; send "
                "fewer jobs at once, or put what is long into an input"
            )
    names = sorted({name for options in per_job.values() for name in options.data})
    data = {name: stored.data for name, stored in (await parent.data(caller, names)).items()}
    pinned = parent.definitions.digest
    return [make_job(parent.settings, pinned, caller, file.part, file, per_job[file.part], data) for file in form.files]


def batch_routes(parent: Parent) -> APIRouter:
    """The routes of batches."""
    router = APIRouter(tags=["batches"])

    @router.post(
        "/batches",
        summary="Submit many jobs in one request",
        status_code=202,
        openapi_extra=BATCH_FORM,
        response_model=schemas.BatchAnswer,
        responses=problem_responses(*SUBMIT_PROBLEMS),
    )
    async def submit_batch(request: Request, caller: Submitter) -> Response:
        form = await read_form(request, parent, caller, max_files=parent.settings.http.max_batch_jobs)
        given = form.options.pop("batchId", [])
        if len(given) > 1:
            raise InvalidRequestError("the option 'batchId' is given more than once")
        batch_id = checked_id(given[0], "batchId") if given else str(uuid7())
        if not form.files:
            raise InvalidRequestError(
                "the batch has no files; send each as a part named like its jobId: -F trade-1=@1.csv"
            )
        accepted, refused = await parent.submit_batch(batch_id, await _batch_jobs(parent, caller, form), caller)
        answer = schemas.BatchAnswer(
            batch_id=batch_id,
            total=len(accepted),
            created=sum(each.created for each in accepted),
            attached=sum(not each.created for each in accepted),
            reused=sum(each.created and each.reused_from is not None for each in accepted),
            refused=[
                schemas.RefusedJob(job_id=job_id, problem=problems.problem_document(why)) for job_id, why in refused
            ],
            status_url=f"/batches/{batch_id}",
            results_url=f"/batches/{batch_id}/results",
            events_url=f"/events?batch={batch_id}",
        )
        if not accepted:
            raise refused[0][1]
        body = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
        return JSONResponse(body, 202, {"Location": answer.status_url, BATCH: batch_id})

    @router.get("/batches", summary="List batches, newest first", responses=problem_responses("invalid-request"))
    async def batches(
        caller: Viewer,
        owner: OwnerFilter = None,
        cursor: NextCursor = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> schemas.BatchPage:
        after = checked_id(cursor, "cursor") if cursor is not None else None
        page = await parent.store.batches(after=after, limit=limit, owner=shown_owner(caller, owner))
        return schemas.BatchPage(
            batches=[schemas.batch_status(each) for each in page.batches],
            next_cursor=page.batches[-1].batch_id if page.more else None,
        )

    @router.get(
        "/batches/{batchId}",
        summary="Progress of a batch",
        responses=problem_responses("job-not-found", "invalid-request"),
    )
    async def batch_status(response: Response, batch_id: BatchId, caller: Viewer) -> schemas.BatchStatus:
        summary = await parent.batch(batch_id, caller)
        response.headers[BATCH] = summary.batch_id
        return schemas.batch_status(summary)

    @router.get(
        "/batches/{batchId}/results",
        summary="Results of a batch, sent as its jobs end",
        response_class=Response,
        response_model=None,
        responses={
            200: {
                "content": {"multipart/mixed": {"schema": BYTES}},
                "description": "A part for each ended job, with its ZIP and Raygrid-* headers. If the result is gone, "
                "the part is empty and has the headers Raygrid-Problem and Raygrid-Problem-Detail. The last part is "
                "JSON and states whether the batch is complete",
            },
            **problem_responses("job-not-found", "invalid-request"),
        },
    )
    async def batch_results(
        batch_id: BatchId,
        caller: Reader,
        cursor: Annotated[int, Query(ge=0, le=2**62, description="Raygrid-Cursor of the last part received")] = 0,
        wait: Wait = None,
    ) -> Response:
        await parent.batch(batch_id, caller, results=True)
        http = parent.settings.http
        wait_s = min(http.sync_wait_s if wait is None else wait, http.max_wait_s)
        boundary = f"raygrid-{uuid4().hex}"
        body = streams.batch_results(parent, caller, batch_id, cursor, wait_s, boundary)
        media_type = f"multipart/mixed; boundary={boundary}"
        headers = {BATCH: batch_id, "X-Accel-Buffering": "no"}
        return StreamingResponse(body, headers=headers, media_type=media_type)

    @router.delete(
        "/batches/{batchId}",
        summary="Cancel the unfinished jobs of a batch",
        status_code=202,
        responses=problem_responses("job-not-found", "conflict", "invalid-request"),
    )
    async def cancel_batch(
        response: Response,
        batch_id: BatchId,
        caller: Canceller,
    ) -> schemas.BatchCancelled:
        response.headers[BATCH] = (await parent.batch_to_change(batch_id, caller)).batch_id
        count = await parent.cancel(await parent.store.unfinished_of_batch(batch_id), caller)
        return schemas.BatchCancelled(batch_id=batch_id, cancelling=count)

    return router
