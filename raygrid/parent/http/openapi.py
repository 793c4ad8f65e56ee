"""The parts of the OpenAPI description that FastAPI cannot derive, because bodies are read as streams."""

from __future__ import annotations

from typing import Any

from raygrid.parent.http.problems import MEDIA_TYPE
from raygrid.parent.http.schemas import Problem

_MEANING = {
    401: "The API key is missing or wrong",
    404: "The job, batch, group or node does not exist, or the job has no result yet (see `type`)",
    409: "The jobId is taken by another job, the job was cancelled, or the handover failed (see `type`)",
    410: "The result was removed when its retention ended, or is gone from the blob store",
    413: "The body, the number of files or an option exceeds its limit",
    422: "The request is invalid, or the job failed (see `type`)",
    429: "Every queue is full; try again after Retry-After seconds",
    500: "The stored result is damaged; submit under a new jobId to run the job again (see `type`)",
    503: "A part of the grid cannot be reached; try again after Retry-After seconds",
}

_TEXT = {"type": "string"}
BYTES = {**_TEXT, "format": "binary"}
_HEADERS = {
    "ETag": "sha256 of the ZIP",
    "Raygrid-Job-Id": "The job of this result; compare it with the job of the request",
    "Raygrid-Reused-From": "The earlier job whose stored result this job took over, if any",
}


def _result(description: str, *media_types: str) -> dict[int | str, dict[str, Any]]:
    """An answer with a result. Its route needs `response_class=Response`; FastAPI would add JSON otherwise."""
    return {
        200: {
            "description": description,
            "content": {media_type: {"schema": BYTES} for media_type in media_types},
            "headers": {name: {"description": text, "schema": _TEXT} for name, text in _HEADERS.items()},
        }
    }


ZIP = _result("The result as a ZIP", "application/zip")
ZIP_OR_STDOUT = _result(
    "The result as a ZIP, or the pricer's standard output if its settings have `result: stdout`",
    "application/zip",
    "application/octet-stream",
)

_OPTIONS: dict[str, Any] = {
    "pricer": {**_TEXT, "description": "Name of a pricer; not needed if the grid has a default"},
    "args": {"type": "array", "items": _TEXT, "description": "Arguments for the pricer, one per field"},
    "priority": {"type": "integer", "default": 0, "description": "Jobs with a higher priority run first"},
    "affinity": {
        **_TEXT,
        "description": "Key such as an instrument, customer or date; jobs with the same key run in the same group",
    },
    "site": {**_TEXT, "description": "Site where the job runs; if it is full, the nearest one with free slots"},
    "timeout_s": {"type": "number", "description": "Wall-time limit of one attempt, seconds"},
    "data": {"type": "array", "items": _TEXT, "description": "Names of shared inputs, one per field"},
}
_EXPLODED = {"args": {"explode": True}, "data": {"explode": True}}


def _form(properties: dict[str, Any], required: list[str], **more: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required, **more}
    return {
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": schema, "encoding": _EXPLODED}},
        }
    }


SUBMIT_FORM = _form(
    {
        "file": {
            **BYTES,
            "description": "The input. Its name is the last component of `filename*` or `filename`: UTF-8, at most 255 "
            "bytes, no control characters",
        },
        "jobId": {**_TEXT, "description": "Id of the job, for `POST /submit` only; generated if missing"},
        **_OPTIONS,
    },
    ["file"],
)
BATCH_FORM = _form(
    {
        "batchId": {**_TEXT, "description": "Generated if missing; the jobs are added to a batch that exists"},
        "jobs": {
            **_TEXT,
            "contentMediaType": "application/json",
            "description": "A JSON object of jobId to options, which override the options of the form for that job",
        },
        **_OPTIONS,
    },
    [],
    additionalProperties={**BYTES, "description": "The input of a job; the name of the part is the jobId"},
)
DATA_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": BYTES}}}
}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem documents with which a route may answer."""
    return {
        status: {
            "description": _MEANING[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}},
        }
        for status in statuses
    }
