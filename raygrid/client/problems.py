"""Turns the grid's problem documents (RFC 9457) into the errors of `raygrid.errors`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import httpx

from raygrid.client.endpoint import Endpoint
from raygrid.client.failure import job_failed
from raygrid.client.retry import is_problem, retry_after_s
from raygrid.errors import PROBLEM_PREFIX, PROBLEMS, BusyError, NotAuthorizedError, RaygridError, UnavailableError

# For answers of proxies and frameworks, which are not problem documents.
_TYPES_OF_STATUS = {
    400: "invalid-request",
    401: "unauthorized",
    403: "unauthorized",
    413: "too-large",
    422: "invalid-request",
    429: "busy",
    500: "unavailable",
    502: "unavailable",
    503: "unavailable",
    504: "unavailable",
}


def error_of_answer(response: httpx.Response, endpoint: Endpoint) -> RaygridError:
    """Turn an answer that is not a success into the error to raise; the body must have been read."""
    if is_problem(response):
        try:
            members = response.json()
        except ValueError:
            members = None
        if isinstance(members, dict):
            return error_of_problem(members, endpoint, retry_after_s(response))
    status = response.status_code
    message = f"the grid at {endpoint.url} answered {status} {_phrase(status)}"
    if status in _TYPES_OF_STATUS:
        members = {"type": PROBLEM_PREFIX + _TYPES_OF_STATUS[status], "detail": message}
        return error_of_problem(members, endpoint, retry_after_s(response))
    return RaygridError(f"{message}, which no grid does; check that the URL is the grid's")


def error_of_problem(members: Mapping[str, Any], endpoint: Endpoint, retry_after: float = 0.0) -> RaygridError:
    """Turn the members of a problem document into the error to raise.

    Args:
        members: the document.
        endpoint: the grid that sent it.
        retry_after: seconds of `Retry-After`; 0 without one.
    """
    kind = str(members.get("type", "")).removeprefix(PROBLEM_PREFIX)
    message = str(members.get("detail") or members.get("title") or "the grid gave no reason")
    if kind == "unauthorized":
        return _not_authorized(endpoint, members.get("detail"))
    if kind == "job-failed":
        return job_failed(
            message,
            job_id=str(members.get("jobId", "")),
            reason=members.get("reason"),
            exit_code=members.get("exit_code"),
            stderr_tail=members.get("stderr_tail"),
            has_result="result_url" in members,
        )
    if kind in ("busy", "unavailable"):
        busy = BusyError if kind == "busy" else UnavailableError
        return busy(message, retry_after_s=retry_after or 1.0)
    return PROBLEMS[kind][0](message) if kind in PROBLEMS else RaygridError(message)


def _not_authorized(endpoint: Endpoint, detail: object) -> NotAuthorizedError:
    if endpoint.api_key is None:
        return NotAuthorizedError(
            f"the grid at {endpoint.url} requires an API key; set RAYGRID_API_KEY, or pass api_key to raygrid.connect()"
        )
    why = detail or "it does not know the API key that was sent"
    return NotAuthorizedError(
        f"the grid at {endpoint.url} refuses the request: {why}; check RAYGRID_API_KEY or api_key, or ask the grid's "
        "administrator for a key"
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
