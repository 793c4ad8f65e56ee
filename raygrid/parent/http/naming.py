"""The headers that name the job or batch of an answer, so that clients can compare them with their request."""

from __future__ import annotations

from starlette.requests import Request

from raygrid.parent.submission import JOB_ID

JOB, BATCH = "Raygrid-Job-Id", "Raygrid-Batch-Id"


def id_headers(request: Request) -> dict[str, str]:
    """The headers for a request whose path names a job or a batch."""
    path = request.path_params
    named = ((JOB, path.get("jobId")), (BATCH, path.get("batchId")))
    # A text that is not an id names no job, and may not be allowed in a header.
    return {header: value for header, value in named if isinstance(value, str) and JOB_ID.fullmatch(value)}
