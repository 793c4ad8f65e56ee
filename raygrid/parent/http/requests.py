"""Parameters and forms that several routes read from a request."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, Request

from raygrid.core.access import NOBODY, Caller
from raygrid.parent.http.forms import FormReader, ReceivedForm, limited, require_plain_body, require_size
from raygrid.parent.http.openapi import ID_SCHEMA
from raygrid.parent.quotas import FORM_BYTES
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
JobId = Annotated[str, Path(alias="jobId", json_schema_extra=ID_SCHEMA)]
BatchId = Annotated[str, Path(alias="batchId", json_schema_extra=ID_SCHEMA)]
DataName = Annotated[str, Path(json_schema_extra=ID_SCHEMA)]
BatchFilter = Annotated[str | None, Query(description="Only jobs of this batch", json_schema_extra=ID_SCHEMA)]
OwnerFilter = Annotated[
    str | None, Query(description="Only those of this owner; `operate` and `admin` see those of every owner by default")
]
EventsOf = Annotated[
    str | None,
    Query(description="Events of this one; give exactly one of `job` and `batch`", json_schema_extra=ID_SCHEMA),
]
NextCursor = Annotated[
    str | None,
    Query(description="`next_cursor` of the previous page; others are refused with 422", json_schema_extra=ID_SCHEMA),
]


def shown_owner(caller: Caller, wanted: str | None) -> str | None:
    """The owner whose jobs and batches a listing shows; None for every owner.

    Others than the caller's own are shown to those only who see them; a filter for another owner finds nothing.
    """
    if caller.sees_all:
        return wanted
    return caller.owner if wanted in (None, caller.owner) else NOBODY


async def read_form(request: Request, parent: Parent, caller: Caller, max_files: int) -> ReceivedForm:
    """Read the form of a submit.

    Raises:
        RaygridError: the form is invalid, this parent takes no jobs, or the caller may not have so many.
    """
    parent.blob_check.require()  # before a long upload
    settings = parent.settings
    limit = settings.http.max_body
    require_plain_body(request.headers.get("content-encoding", ""))
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isdigit() else 0
    require_size(size, limit)
    reader = FormReader(parent.blobs, inline=settings.storage.inline, max_files=max_files)
    body = limited(request.stream(), limit)
    admission = await parent.quotas.admit_upload(caller, size)  # else a refused form would leave its files behind
    try:
        admitted = body if admission is None else admission.limited(body, more=FORM_BYTES)
        form = await reader.read(request.headers.get("content-type"), admitted)
    finally:
        if admission is not None:
            admission.dropped()  # the jobs of the form count next
    parent.traffic.received(form.files)
    return form
