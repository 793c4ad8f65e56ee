"""Submits the jobs of a map: gives them ids, distributes them over requests, and posts again what did not fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import httpx

from raygrid.client.calls import Call, Flow, Pause
from raygrid.client.flows import Flows
from raygrid.client.form import MultipartForm
from raygrid.client.options import JobOptions, checked_id, new_id
from raygrid.client.problems import error_of_problem
from raygrid.client.refusal import error_of_refusal
from raygrid.client.retry import Backoff
from raygrid.client.upload import Input, InputUpload
from raygrid.errors import BusyError, InvalidRequestError, RaygridError

MAX_JOBS = 2_000
MAX_BYTES = 32 * 1024**2
# The first requests are short, so that the grid begins to run jobs while later requests are sent.
FIRST_JOBS = 128
GROWTH = 4

JobInput = tuple[str, InputUpload]


def job_inputs(files: Iterable[Input] | Mapping[str, Input], job_ids: Iterable[str] | None = None) -> list[JobInput]:
    """Give every input its job id: the mapping's key, the one in `job_ids`, or a new UUIDv7.

    Raises:
        InvalidRequestError: an id is not valid or occurs twice, or the numbers of ids and inputs differ.
    """
    if isinstance(files, (str, bytes)) or hasattr(files, "read"):
        raise TypeError("map takes a list of inputs, not one; put it between [ and ]")
    if isinstance(files, Mapping):
        if job_ids is not None:
            raise InvalidRequestError("give job ids as the keys of the mapping or in job_ids, not both")
        pairs = [(checked_id(job_id), InputUpload.of(what)) for job_id, what in files.items()]
    elif job_ids is None:
        return [(new_id(), InputUpload.of(what)) for what in files]
    else:
        uploads, ids = [InputUpload.of(what) for what in files], [checked_id(job_id) for job_id in job_ids]
        if len(uploads) != len(ids):
            raise InvalidRequestError(f"there are {len(uploads)} inputs and {len(ids)} job ids; give one id per input")
        pairs = list(zip(ids, uploads, strict=True))
    seen: set[str] = set()
    for job_id, _ in pairs:
        if job_id in seen:
            raise InvalidRequestError(f"job id {job_id} occurs twice; ids must differ")
        seen.add(job_id)
    return pairs


def split_requests(
    jobs: Sequence[JobInput], max_jobs: int = MAX_JOBS, max_bytes: int = MAX_BYTES
) -> Iterator[list[JobInput]]:
    """Split jobs into requests within the limits, the first ones short; an input above `max_bytes` goes alone."""
    chunk: list[JobInput] = []
    size, most = 0, min(FIRST_JOBS, max_jobs)
    for entry in jobs:
        length = entry[1].length
        if chunk and (len(chunk) >= most or size + length > max_bytes):
            yield chunk
            chunk, size, most = [], 0, min(most * GROWTH, max_jobs)
        chunk.append(entry)
        size += length
    if chunk:
        yield chunk


def post(flows: Flows, batch_id: str, jobs: Sequence[JobInput], options: JobOptions) -> Flow[dict[str, RaygridError]]:
    """Post jobs to a batch in few requests; gives the refused jobs and the reasons."""
    refused: dict[str, RaygridError] = {}
    posted = 0
    for chunk in split_requests(jobs):
        try:
            refused |= yield from _post_chunk(flows, batch_id, chunk, options)
        except RaygridError as error:
            if posted:
                error.add_note(
                    f"{posted} of {len(jobs)} jobs were posted to batch {batch_id}, in the order of the inputs. To "
                    "continue, map the other inputs with this batch_id. If you gave job ids, you may map all inputs "
                    "again with the same ids: jobs that exist are not run twice."
                )
            raise
        posted += len(chunk)
    return refused


def _post_chunk(
    flows: Flows, batch_id: str, chunk: Sequence[JobInput], options: JobOptions
) -> Flow[dict[str, RaygridError]]:
    """Post one request; jobs that did not fit into the queue are posted again until the retries are used up."""
    endpoint = flows.endpoint
    backoff = Backoff(endpoint.retry)
    refused: dict[str, RaygridError] = {}
    pending = dict(chunk)
    while pending:
        form = MultipartForm([("batchId", batch_id), *options.fields()], list(pending.items()))
        response = yield from flows.answer(Call("POST", "/batches", body=form, batch_id=batch_id))
        refused_now = _refused(response, flows)
        if not response.is_success and not refused_now:
            raise error_of_refusal(response, endpoint)
        busy = {job_id: error for job_id, error in refused_now.items() if isinstance(error, BusyError)}
        if len(busy) < len(pending):
            backoff.reset()
        refused |= {job_id: error for job_id, error in refused_now.items() if job_id not in busy}
        pending = {job_id: upload for job_id, upload in pending.items() if job_id in busy}
        if pending:
            pause = backoff.pause_s(endpoint.budget_s(), max(error.retry_after_s for error in busy.values()))
            if pause is None:
                return refused | busy
            yield Pause(pause)
    return refused


def _refused(response: httpx.Response, flows: Flows) -> dict[str, RaygridError]:
    """Read the refused jobs of an answer: a 202, or a 409 if every job was refused."""
    try:
        body = response.json()
    except ValueError:
        return {}
    refused = body.get("refused") if isinstance(body, dict) else None
    return {
        str(entry["jobId"]): error_of_problem(entry.get("problem") or {}, flows.endpoint) for entry in refused or []
    }
