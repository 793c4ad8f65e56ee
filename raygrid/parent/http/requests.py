"""What several routes take from a request: the form that is sent with it, and how long to wait."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request

from raygrid.errors import TooLargeError
from raygrid.parent.http.forms import FormReader, ReceivedForm, limited, require_plain_body
from raygrid.parent.service import Parent

Wait = Annotated[
    float | None,
    Query(
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds to wait at most; the server has a maximum of its own",
    ),
]


async def read_form(request: Request, parent: Parent, max_files: int) -> ReceivedForm:
    """Read the form of a submit.

    Raises:
        RaygridError: it cannot be taken; says why.
    """
    parent.blob_check.require()  # before the body is read, rather than after a long upload
    settings = parent.settings
    limit = settings.http.max_body
    require_plain_body(request.headers.get("content-encoding", ""))
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise TooLargeError(f"the request body is larger than the limit of {limit} bytes (http.max_body)")
    reader = FormReader(parent.blobs, inline=settings.storage.inline, max_files=max_files)
    form = await reader.read(request.headers.get("content-type"), limited(request.stream(), limit))
    parent.traffic.received(form.files)
    return form
