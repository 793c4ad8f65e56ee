"""The headers in which every answer names the job or batch that it is about, so that a client can compare them."""

from __future__ import annotations

from starlette.requests import Request

from raygrid.parent.submission import JOB_ID

JOB, BATCH = "Raygrid-Job-Id", "Raygrid-Batch-Id"


def about(request: Request) -> dict[str, str]:
    """The headers for a request whose path names a job or a batch."""
    path = request.path_params
    named = ((JOB, path.get("jobId")), (BATCH, path.get("batchId")))
    # What is no id cannot be a job, and might not even fit into a header.
    return {header: value for header, value in named if isinstance(value, str) and JOB_ID.fullmatch(value)}
