"""The parts of the OpenAPI description that FastAPI cannot see, because bodies are read as streams."""

from __future__ import annotations

from typing import Any

from raygrid.parent.http.problems import MEDIA_TYPE
from raygrid.parent.http.schemas import Problem

_MEANING = {
    401: "No API key, or a wrong one",
    404: "There is no such job, batch or node, or its result is not there yet (see `type`)",
    409: "The jobId is taken by another job, or the job was cancelled (see `type`)",
    410: "The result was removed when its retention ended",
    413: "The body or the batch is over its limit",
    422: "The request is wrong, or the job failed (see `type`)",
    429: "Every queue is full; try again after Retry-After seconds",
    500: "The stored result is damaged; submit under a new jobId to run the job again (see `type`)",
    503: "A part of the grid is away; try again after Retry-After seconds",
}

BYTES = {"type": "string", "format": "binary"}
_HEADERS = {
    "ETag": {"description": "sha256 of the ZIP", "schema": {"type": "string"}},
    "Raygrid-Job-Id": {
        "description": "The job whose result this is; a client compares it with the job that it asked for",
        "schema": {"type": "string"},
    },
    "Raygrid-Reused-From": {
        "description": "The earlier job that ran, where this one took over its stored result",
        "schema": {"type": "string"},
    },
}
# Routes with these answers are made with `response_class=Response`: FastAPI would add JSON to them otherwise.
ZIP: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The result as a ZIP",
        "content": {"application/zip": {"schema": BYTES}},
        "headers": _HEADERS,
    }
}
ZIP_OR_STDOUT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The result as a ZIP, or what the pricer printed, where it is configured so",
        "content": {"application/zip": {"schema": BYTES}, "application/octet-stream": {"schema": BYTES}},
        "headers": _HEADERS,
    }
}

_OPTIONS: dict[str, Any] = {
    "pricer": {
        "type": "string",
        "description": "A configured pricer; not needed where the grid has a default",
    },
    "args": {"type": "array", "items": {"type": "string"}, "description": "Further arguments, one a field"},
    "priority": {"type": "integer", "default": 0, "description": "Higher runs first"},
    "affinity": {
        "type": "string",
        "description": "Jobs of one key meet in one group (instrument, customer, date…)",
    },
    "site": {"type": "string", "description": "Run at this site while it has room, else at the nearest that has"},
    "timeout_s": {"type": "number", "description": "Wall-time limit of one attempt, seconds"},
    "data": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Names of shared inputs, one a field",
    },
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
        "jobId": {"type": "string", "description": "Only without a jobId in the path"},
        **_OPTIONS,
    },
    ["file"],
)
BATCH_FORM = _form(
    {
        "batchId": {
            "type": "string",
            "description": "Made where it is missing; one that exists gets more jobs",
        },
        "jobs": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "A JSON object, jobId to options, over the options of the form",
        },
        **_OPTIONS,
    },
    [],
    additionalProperties={**BYTES, "description": "A job's file; the part is named by the jobId"},
)
DATA_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": BYTES}}}
}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem documents that a route may answer with."""
    return {
        status: {
            "description": _MEANING[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}},
        }
        for status in statuses
    }
