"""The parts of the OpenAPI description that FastAPI cannot derive, because bodies are read as streams."""

from __future__ import annotations

from typing import Any

from raygrid.errors import PROBLEMS
from raygrid.parent.http.problems import MEDIA_TYPE
from raygrid.parent.http.schemas import Problem
from raygrid.parent.submission import (
    ID_PATTERN,
    MOST_ARGS,
    MOST_DATA,
    MOST_ID,
    MOST_KEY,
    MOST_TIMEOUT_S,
    PRIORITIES,
)

SUBMIT_PROBLEMS = (
    "conflict",
    "too-large",
    "invalid-request",
    "unknown-pricer",
    "unknown-data",
    "unknown-site",
    "busy",
    "unavailable",
)
ENDED_PROBLEMS = ("job-cancelled", "result-expired", "job-failed", "damaged-result")

_TEXT = {"type": "string"}
# Only for the description: `checked_id` refuses other texts with a better message.
ID_SCHEMA: dict[str, Any] = {"pattern": ID_PATTERN, "minLength": 1, "maxLength": MOST_ID}
_ID = {**_TEXT, **ID_SCHEMA}
_KEY = {**_TEXT, "maxLength": MOST_KEY}
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
    "pricer": {**_KEY, "description": "Name of a pricer; not needed if the grid has a default"},
    "args": {
        "type": "array",
        "items": _TEXT,
        "maxItems": MOST_ARGS,
        "description": "Arguments for the pricer, one per field",
    },
    "priority": {
        "type": "integer",
        "minimum": PRIORITIES[0],
        "maximum": PRIORITIES[-1],
        "default": 0,
        "description": "Jobs with a higher priority run first",
    },
    "affinity": {
        **_KEY,
        "description": "Key such as an instrument, customer or date; jobs with the same key run in the same group",
    },
    "site": {**_KEY, "description": "Site where the job runs; if it is full, the nearest one with free slots"},
    "timeout_s": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": MOST_TIMEOUT_S,
        "description": "Wall-time limit of one attempt, seconds",
    },
    "data": {
        "type": "array",
        "items": _ID,
        "maxItems": MOST_DATA,
        "description": "Names of shared inputs, one per field",
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


_FILE = {
    **BYTES,
    "minLength": 1,
    "description": "The input, as a part with a filename. Its name is the last component of `filename*` or `filename`: "
    "UTF-8, at most 255 bytes, no control characters",
}
# `POST /submit/{jobId}` has the id in its path.
SUBMIT_FORM_WITH_ID_IN_PATH = _form({"file": _FILE, **_OPTIONS}, ["file"], additionalProperties=False)
SUBMIT_FORM = _form(
    {
        "file": _FILE,
        "jobId": {**_ID, "description": "Id of the job; generated if missing"},
        **_OPTIONS,
    },
    ["file"],
    additionalProperties=False,
)
BATCH_FORM = _form(
    {
        "batchId": {**_ID, "description": "Generated if missing; the jobs are added to a batch that exists"},
        "jobs": {
            **_TEXT,
            "contentMediaType": "application/json",
            "description": "A JSON object of jobId to options, which override the options of the form for that job",
        },
        **_OPTIONS,
    },
    [],
    additionalProperties={
        **BYTES,
        "minLength": 1,
        "description": "The input of a job, as a part with a filename; the name of the part is the jobId",
    },
)
DATA_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {**BYTES, "minLength": 1}}}}
}


def problem_responses(*types: str) -> dict[int | str, dict[str, Any]]:
    """The problem documents with which a route may answer, by their types in `PROBLEMS`."""
    meanings: dict[int, list[str]] = {}
    for each in types:
        error, status = PROBLEMS[each]
        meaning, _, _ = (error.__doc__ or "").partition("\n")
        meanings.setdefault(status, []).append(f"`{each}`: {meaning}")
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    return {
        status: {"description": " ".join(meanings[status]), "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted(meanings)
    }
