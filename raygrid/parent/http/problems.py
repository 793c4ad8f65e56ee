"""Errors as RFC 9457 problem documents, by the table `PROBLEMS` of `raygrid/errors.py`."""

from __future__ import annotations

import logging
import math
import re
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from raygrid import errors
from raygrid.models import JobState
from raygrid.parent.http.naming import id_headers
from raygrid.parent.http.schemas import Problem
from raygrid.parent.http.scope import HIDDEN

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
NOT_FINISHED_RETRY_S = 1


def problem_document(error: errors.RaygridError) -> Problem:
    """The problem document for an error."""
    found = ((word, status) for word, (kind, status) in errors.PROBLEMS.items() if isinstance(error, kind))
    word, status = next(found, ("internal", 500))
    problem = Problem(type=errors.PROBLEM_PREFIX + word, title=word.replace("-", " "), status=status, detail=str(error))
    if isinstance(error, errors.NotFinishedError) and error.state is not None:
        problem.state = JobState(error.state)
    if isinstance(error, errors.JobFailedError):
        problem.job_id, problem.reason = error.job_id, error.reason
        problem.exit_code, problem.stderr_tail = error.exit_code, error.stderr_tail
        problem.result_url = f"/result/{error.job_id}?even_if=failed" if error.has_result else None
    return problem


def response_of(error: errors.RaygridError, request: Request | None = None) -> JSONResponse:
    """The HTTP answer for an error; its headers name the job or batch of the request."""
    problem = problem_document(error)
    headers = {} if request is None else id_headers(request)
    if isinstance(error, errors.BusyError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    elif isinstance(error, errors.NotFinishedError):
        headers["Retry-After"] = str(NOT_FINISHED_RETRY_S)
    elif isinstance(error, errors.NotAuthorizedError) and not isinstance(error, errors.ForbiddenError):
        headers["WWW-Authenticate"] = "Bearer"
    return _json(problem, headers)


def of_status(status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The HTTP answer for an error outside raygrid's hierarchy; type and title come from the status."""
    title = status.phrase.lower()
    problem = Problem(type=errors.PROBLEM_PREFIX + title.replace(" ", "-"), title=title, status=status, detail=detail)
    return _json(problem, headers)


def _json(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    body = problem.model_dump(mode="json", by_alias=True, exclude_none=True)
    return JSONResponse(body, problem.status, headers, media_type=MEDIA_TYPE)


def _methods(app: FastAPI, path: str) -> list[str]:
    """The methods of a path, by the description."""
    found: set[str] = set()
    for template, methods in app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\\?\{\w+\\?\}", "[^/]+", re.escape(template)), path):
            found.update(method.upper() for method in methods)
    return sorted(found | {"HEAD"} if "GET" in found else found)


def install(app: FastAPI) -> None:
    """Answer every error of an application with a problem document."""

    @app.exception_handler(errors.RaygridError)
    async def raygrid_error(request: Request, error: errors.RaygridError) -> JSONResponse:
        if error.hides:
            request.scope[HIDDEN] = True
        if not any(isinstance(error, kind) for kind, _ in errors.PROBLEMS.values()):
            logger.exception("a request failed unexpectedly; answering 500", exc_info=error)
        return response_of(error, request)

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return response_of(errors.InvalidRequestError(f"{where}: {first['msg']}"), request)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == HTTPStatus.BAD_REQUEST:  # FastAPI cannot decode the body; other bad bodies are 422, too
            return response_of(errors.InvalidRequestError("the request body is not JSON in UTF-8"), request)
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_methods(app, request.url.path))  # of all routes with that path
        return of_status(HTTPStatus(error.status_code), str(error.detail), headers)

    @app.exception_handler(ClientDisconnect)
    async def client_gone(request: Request, _error: ClientDisconnect) -> JSONResponse:
        # Not an error of the grid: an incomplete request makes no job. The client does not read this answer.
        logger.info("client closed the connection while sending %s %s; ignoring it", request.method, request.url.path)
        return response_of(errors.InvalidRequestError("the request body is incomplete; send it again"))

    @app.exception_handler(Exception)
    async def unexpected(_request: Request, error: Exception) -> JSONResponse:
        logger.exception("a request failed unexpectedly; answering 500", exc_info=error)
        detail = "the grid has an internal error; it is safe to send the request again with the same jobId"
        problem = Problem(type=errors.PROBLEM_PREFIX + "internal", title="internal", status=500, detail=detail)
        # The server closes the connection after such an error. A client that is not told sends its next request on it.
        return _json(problem, {"Connection": "close"})
