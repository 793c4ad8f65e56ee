"""The error of an answer that is not a success, with a hint if the URL has a path below which there is no grid."""

from __future__ import annotations

from http import HTTPStatus

import httpx

from raygrid.client.endpoint import Endpoint
from raygrid.client.problems import error_of_answer
from raygrid.client.retry import is_problem
from raygrid.errors import PROBLEM_PREFIX, RaygridError

_NO_ROUTE = f"{PROBLEM_PREFIX}not-found"  # a grid's answer to a path that it does not have


def error_of_refusal(response: httpx.Response, endpoint: Endpoint) -> RaygridError:
    """Turn an answer that is not a success into the error to raise; the body must have been read."""
    url = httpx.URL(endpoint.entry)
    if response.status_code == HTTPStatus.NOT_FOUND and url.path.strip("/") and _is_of_no_route(response):
        without = url.copy_with(raw_path=b"/")
        return RaygridError(f"there is no raygrid grid at {url}; leave out the path: {str(without).rstrip('/')}")
    return error_of_answer(response, endpoint)


def _is_of_no_route(response: httpx.Response) -> bool:
    """Whether the answer is that of a server without such a path, and not of a grid without such a job."""
    if not is_problem(response):
        return True
    try:
        members = response.json()
    except ValueError:
        return True
    return isinstance(members, dict) and members.get("type") == _NO_ROUTE
