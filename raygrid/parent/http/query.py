"""Refuses query parameters that a route does not have.

A filter with a typing error would be ignored and everything be listed, and `POST /submit/j?pricer=risk` would run the
default pricer: answers that look right. Forms and settings refuse what they do not know as well.
"""

from __future__ import annotations

from fastapi import Request
from fastapi.routing import APIRoute

from raygrid.errors import InvalidRequestError
from raygrid.parent.submission import OPTIONS


# A coroutine, for the reason that `auth` gives.
async def require_known_query(request: Request) -> None:
    """A dependency that lets a request pass if its route has all its query parameters, each at most once.

    Raises:
        InvalidRequestError: names the parameter, and those that the route has.
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
