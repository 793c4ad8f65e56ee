"""The routes that submit one job, with or without waiting for its result."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse
from uuid_utils import uuid7

from raygrid.core.access import Caller
from raygrid.errors import InvalidRequestError
from raygrid.models import NewJob
from raygrid.parent.http import schemas
from raygrid.parent.http.auth import Submitter
from raygrid.parent.http.job_routes import result_response
from raygrid.parent.http.naming import JOB
from raygrid.parent.http.openapi import (
    ENDED_PROBLEMS,
    SUBMIT_FORM,
    SUBMIT_FORM_WITH_ID_IN_PATH,
    SUBMIT_PROBLEMS,
    ZIP_OR_STDOUT,
    problem_responses,
)
from raygrid.parent.http.preferences import preferences
from raygrid.parent.http.preferences import wait_s as preferred_wait_s
from raygrid.parent.http.requests import JobId, Wait, read_form
from raygrid.parent.service import Parent, Submitted
from raygrid.parent.submission import checked_id, make_job, options_of_form


async def _one_job(request: Request, parent: Parent, caller: Caller, job_id: str | None) -> NewJob:
    """Read the form of a single submit."""
    form = await read_form(request, parent, caller, max_files=1)
    if not form.files:
        raise InvalidRequestError("the form has no file; send one as: -F file=@trade.csv")
    if form.files[0].part != "file":
        raise InvalidRequestError(f"the file must be the part 'file', not {form.files[0].part[:80]!r}")
    given = form.options.pop("jobId", None) if job_id is None else None
    if given is not None and len(given) != 1:
        raise InvalidRequestError("the option 'jobId' is given more than once")
    options = options_of_form(form.options)
    data = {name: stored.data for name, stored in (await parent.data(caller, options.data)).items()}
    chosen = job_id or (checked_id(given[0]) if given else str(uuid7()))
    return make_job(parent.settings, parent.definitions.digest, caller, chosen, form.files[0], options, data)


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


def submit_routes(parent: Parent) -> APIRouter:
    """The routes that submit one job."""
    router = APIRouter(tags=["submit"])
    http = parent.settings.http

    @router.post(
        "/submit/{jobId}",
        summary="Submit a job and wait for its result",
        openapi_extra=SUBMIT_FORM_WITH_ID_IN_PATH,
        response_class=Response,
        response_model=None,
        responses={
            **ZIP_OR_STDOUT,
            202: {
                "model": schemas.SubmitAnswer,
                "description": "The job is accepted and has not ended within the wait, or the request did not wait",
            },
            **problem_responses(*SUBMIT_PROBLEMS, *ENDED_PROBLEMS),
        },
    )
    async def submit_and_wait(
        request: Request,
        job_id: JobId,
        caller: Submitter,
        wait: Wait = None,
        prefer: Annotated[
            str, Header(description="`respond-async`: do not wait; `wait=SECONDS`: wait at most so long (RFC 7240)")
        ] = "",
    ) -> Response:
        job = await _one_job(request, parent, caller, checked_id(job_id))
        submitted = await parent.submit(job, caller)
        preferred = preferences(request.headers.getlist("prefer")) if prefer else {}
        if "respond-async" in preferred:
            return _accepted(submitted)
        wait_s = next(each for each in (wait, preferred_wait_s(preferred), http.sync_wait_s) if each is not None)
        ended = await parent.wait(job_id, min(wait_s, http.max_wait_s), is_new=submitted.runs)
        parent.keys.require(caller)
        if not ended.state.is_terminal:
            return _accepted(replace(submitted, state=ended.state))
        as_stdout = parent.settings.pricers.get(job.spec.pricer)
        return await result_response(
            request, parent, ended, stdout=as_stdout is not None and as_stdout.result == "stdout"
        )

    @router.post(
        "/submit",
        summary="Submit a job without waiting for its result",
        status_code=202,
        openapi_extra=SUBMIT_FORM,
        response_model=schemas.SubmitAnswer,
        responses=problem_responses(*SUBMIT_PROBLEMS),
    )
    async def submit(request: Request, caller: Submitter) -> Response:
        return _accepted(await parent.submit(await _one_job(request, parent, caller, None), caller))

    return router
