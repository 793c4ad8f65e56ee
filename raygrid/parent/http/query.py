"""Refuses query parameters that a route does not have.

Otherwise a filter with a typing error would list everything, and `POST /submit/j?pricer=risk` would run the default
pricer: wrong answers that look right. Forms and settings also refuse unknown names.
"""

from __future__ import annotations

from fastapi import Request
from fastapi.routing import APIRoute

from raygrid.errors import InvalidRequestError
from raygrid.parent.submission import OPTIONS


# A coroutine for the reason given in `auth.py`.
async def require_known_query(request: Request) -> None:
    """A dependency that accepts a request if its route has all its query parameters, each at most once.

    Raises:
        InvalidRequestError: names the parameter, and the parameters of the route.
    """
    if not request.scope["query_string"]:
        return
    route: APIRoute = request.scope["route"]
    known = {field.alias for field in route.dependant.query_params}
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name in known and name not in seen:
            seen.add(name)
            continue
        if name in known:
            raise InvalidRequestError(f"the query parameter {name!r} is given twice; give it once")
        has = f"known are {', '.join(sorted(known))}" if known else "there are none"
        field = f"; options of a submit are fields of its form: -F {name}=VALUE" if name in OPTIONS else ""
        raise InvalidRequestError(f"{request.url.path} has no query parameter {name[:80]!r}: {has}{field}")
