"""Parameters and forms that several routes read from a request."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, Request

from raygrid.parent.http.forms import FormReader, ReceivedForm, limited, require_plain_body, require_size
from raygrid.parent.service import Parent

Wait = Annotated[
    float | None,
    Query(
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="Maximum wait, seconds; the setting `http.max_wait_s` limits it",
    ),
]
JobId = Annotated[str, Path(alias="jobId")]
BatchId = Annotated[str, Path(alias="batchId")]
NextCursor = Annotated[str | None, Query(description="`next_cursor` of the previous page")]


async def read_form(request: Request, parent: Parent, max_files: int) -> ReceivedForm:
    """Read the form of a submit.

    Raises:
        RaygridError: the form is invalid, or this parent takes no jobs.
    """
    parent.blob_check.require()  # before a long upload
    settings = parent.settings
    limit = settings.http.max_body
    require_plain_body(request.headers.get("content-encoding", ""))
    announced = request.headers.get("content-length", "")
    if announced.isdigit():
        require_size(int(announced), limit)
    reader = FormReader(parent.blobs, inline=settings.storage.inline, max_files=max_files)
    form = await reader.read(request.headers.get("content-type"), limited(request.stream(), limit))
    parent.traffic.received(form.files)
    return form
