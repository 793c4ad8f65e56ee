"""What each operation of a client sends to the grid, and how it reads the answer.

All decisions are here, for the blocking and the async client: the methods make flows (see `calls.py`), and a connection
carries them out.
"""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from raygrid.client.calls import Call, Flow, Pause
from raygrid.client.endpoint import Endpoint
from raygrid.client.fit import TRIES, UnfitAnswerError
from raygrid.client.form import MultipartForm
from raygrid.client.json_body import JsonBody
from raygrid.client.keys import ApiKeyInfo, NewKey
from raygrid.client.options import JobOptions, checked_id
from raygrid.client.refusal import error_of_refusal
from raygrid.client.result import Result
from raygrid.client.retry import Backoff, is_worth_retrying, retry_after_s
from raygrid.client.status import BatchStatus, DataInfo, GroupStatus, JobStatus, NodeStatus, read
from raygrid.client.upload import InputUpload
from raygrid.errors import NotFinishedError, RaygridError, WaitTimeoutError
from raygrid.models import JobState

MAX_WAIT_S = 30.0
"""Longest wait of one request; a longer wait takes several requests, so that a dead connection is noticed."""

CONTACT_S = 3.0
"""Time in which a grid must answer `contact`: enough for a lost packet, short for a user who mistyped a port."""

PAGE = 1_000
"""Jobs in one page of a listing, a parent's limit."""

T = TypeVar("T")
Member = TypeVar("Member")


class Flows:
    """The operations on one grid."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def answer(self, call: Call, within_s: float = inf) -> Flow[httpx.Response]:
        """Send a call until an answer is final or the retries are used up.

        Args:
            call: the call.
            within_s: seconds after the first failure in which to try again, if less than the retry policy's.
        """
        backoff = Backoff(self.endpoint.retry)
        unfit = 0
        while True:
            try:
                response: httpx.Response = yield call
            except UnfitAnswerError as cause:
                unfit += 1
                pause = backoff.pause_s(min(within_s, self.endpoint.budget_s()))
                if unfit == TRIES or pause is None:
                    raise cause.error from None
            except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as cause:
                raise self.endpoint.no_answer(cause) from None
            except httpx.TransportError as cause:
                pause = backoff.pause_s(min(within_s, self.endpoint.budget_s(cause)))
                if pause is None:
                    # `from None`: the HTTP library's tracebacks are pages long, and the message contains their text.
                    raise self.endpoint.no_answer(cause) from None
            else:
                self.endpoint.answered = True
                if not is_worth_retrying(response):
                    return response
                pause = backoff.pause_s(
                    min(within_s, self.endpoint.budget_s()), self.endpoint.wanted_pause_s(response, backoff.failures)
                )
                if pause is None:
                    raise error_of_refusal(response, self.endpoint)
            yield Pause(pause)

    def success(self, call: Call, within_s: float = inf) -> Flow[httpx.Response]:
        """Send a call, and raise the error of an answer that is not a success."""
        response = yield from self.answer(call, within_s)
        if not response.is_success:
            raise error_of_refusal(response, self.endpoint)
        return response

    def members(self, call: Call, within_s: float = inf) -> Flow[dict[str, Any]]:
        """Send a call whose answer is a JSON object."""
        response = yield from self.success(call, within_s)
        try:
            body = response.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise RaygridError(f"the answer from {self.endpoint.url} is not a grid's; check the URL") from None
        return body

    def value(self, kind: type[T], call: Call) -> Flow[T]:
        """Send a call whose answer is one value of `status.py`."""
        return read(kind, (yield from self.members(call)))

    def values(self, kind: type[Member], member: str) -> Flow[list[Member]]:
        """Ask for a list of values of `status.py`; the path and the member of the answer have the same name."""
        body = yield from self.members(Call("GET", f"/{member}"))
        return [read(kind, item) for item in body.get(member, [])]

    def contact(self, within_s: float) -> Flow[None]:
        """Check that a grid answers and accepts the API key, with a cheap request."""
        yield from self.members(Call("GET", "/pricers", at_most_s=within_s), within_s)

    def submit(self, upload: InputUpload, job_id: str, options: JobOptions) -> Flow[None]:
        """Submit one job; submitting it again under the same id is safe."""
        form = MultipartForm([("jobId", checked_id(job_id)), *options.fields()], [("file", upload)])
        yield from self.success(Call("POST", "/submit", body=form, job_id=job_id))

    def result(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        even_if_failed: bool = False,
        save_to: Path | None = None,
    ) -> Flow[Result]:
        """Wait for a result, in requests that the grid answers when the job ends, and fetch it.

        Raises:
            WaitTimeoutError: `timeout_s` is over; with 0 the grid is asked once.
        """
        clock = self.endpoint.retry.clock
        deadline = None if timeout_s is None else clock() + timeout_s
        while True:
            asked_at = clock()
            wait_s = MAX_WAIT_S if deadline is None else max(0.0, min(MAX_WAIT_S, deadline - asked_at))
            params = (("wait", f"{wait_s:.3f}"), *((("even_if", "failed"),) if even_if_failed else ()))
            response = yield from self.answer(
                Call(
                    "GET",
                    f"/result/{checked_id(job_id)}",
                    params,
                    wait_s=wait_s,
                    save_to=save_to,
                    job_id=job_id,
                    is_result=True,
                )
            )
            if response.is_success:
                reused_from = response.headers.get("raygrid-reused-from")
                return Result(job_id, b"" if save_to else response.content, reused_from)
            error = error_of_refusal(response, self.endpoint)
            if not isinstance(error, NotFinishedError):
                raise error
            now = clock()
            if deadline is not None and now >= deadline - 0.001:
                raise WaitTimeoutError(f"job {job_id} has not ended within {timeout_s:g} s; it goes on, wait again")
            if now - asked_at < wait_s / 2:
                # The grid answered too early: do not ask again at once.
                pause = max(retry_after_s(response), 0.2)
                yield Pause(pause if deadline is None else min(pause, deadline - now))

    def status(self, job_id: str) -> Flow[JobStatus]:
        """Ask for a job's state."""
        return self.value(JobStatus, Call("GET", f"/status/{checked_id(job_id)}", job_id=job_id))

    def cancel(self, job_id: str) -> Flow[JobState]:
        """Ask for a job to be cancelled; gives the state that it was in."""
        call = Call("DELETE", f"/jobs/{checked_id(job_id)}", job_id=job_id)
        return (yield from self.value(JobStatus, call)).state

    def batch_status(self, batch_id: str) -> Flow[BatchStatus]:
        """Ask for a batch's counts."""
        path = f"/batches/{checked_id(batch_id, 'batch id')}"
        return self.value(BatchStatus, Call("GET", path, batch_id=batch_id))

    def cancel_batch(self, batch_id: str) -> Flow[int]:
        """Ask for all unfinished jobs of a batch to be cancelled; gives their number."""
        path = f"/batches/{checked_id(batch_id, 'batch id')}"
        body = yield from self.members(Call("DELETE", path, batch_id=batch_id))
        return int(body.get("cancelling", 0))

    def jobs_page(
        self, state: str | None, batch_id: str | None, cursor: str | None
    ) -> Flow[tuple[list[JobStatus], str | None]]:
        """Ask for one page of jobs; gives the page and the cursor of the next one, if there is one."""
        filters = (("state", state), ("batch", batch_id), ("cursor", cursor))
        params = tuple((name, value) for name, value in filters if value is not None)
        body = yield from self.members(Call("GET", "/jobs", (*params, ("limit", str(PAGE)))))
        return [read(JobStatus, job) for job in body.get("jobs", [])], body.get("next_cursor")

    def batches_page(self, cursor: str | None) -> Flow[tuple[list[BatchStatus], str | None]]:
        """Ask for one page of batches; gives the page and the cursor of the next one, if there is one."""
        body = yield from self.members(Call("GET", "/batches", () if cursor is None else (("cursor", cursor),)))
        return [read(BatchStatus, batch) for batch in body.get("batches", [])], body.get("next_cursor")

    def drain(self, node: str, deadline_s: float | None) -> Flow[NodeStatus]:
        """Ask for a node to get no new jobs."""
        params = () if deadline_s is None else (("deadline_s", f"{deadline_s:.3f}"),)
        return self.value(NodeStatus, Call("POST", f"/nodes/{quote(node, safe='')}/drain", params))

    def undrain(self, node: str) -> Flow[NodeStatus]:
        """Ask for a node to work again."""
        return self.value(NodeStatus, Call("DELETE", f"/nodes/{quote(node, safe='')}/drain"))

    def hand_over(self, group: str) -> Flow[GroupStatus]:
        """Ask for another candidate to lead a group.

        The request names the term that is over then, so that a repetition does not give the lead back.
        """
        listed = yield from self.values(GroupStatus, "groups")
        term = next((each.term for each in listed if each.group == group), None)
        params = () if term is None else (("term", str(term)),)
        return (yield from self.value(GroupStatus, Call("POST", f"/groups/{quote(group, safe='')}/handover", params)))

    def data_content(self, name: str, save_to: Path | None = None) -> Flow[bytes]:
        """Fetch shared data; gives its content, or nothing if it is saved to a file."""
        call = Call("GET", f"/data/{checked_id(name, 'data name')}", save_to=save_to)
        response = yield from self.success(call)
        return b"" if save_to else response.content

    def delete_data(self, name: str) -> Flow[None]:
        """Remove the name of shared data."""
        yield from self.success(Call("DELETE", f"/data/{checked_id(name, 'data name')}"))

    def add_key(self, key: NewKey) -> Flow[ApiKeyInfo]:
        """Make an API key."""
        return self.value(ApiKeyInfo, Call("POST", "/keys", body=JsonBody(key.members())))

    def rotate_key(self, key_id: str, overlap_s: float) -> Flow[ApiKeyInfo]:
        """Make a successor of an API key."""
        path = f"/keys/{quote(key_id, safe='')}/rotate"
        return self.value(ApiKeyInfo, Call("POST", path, body=JsonBody({"overlap_s": overlap_s})))

    def revoke_key(self, key_id: str) -> Flow[ApiKeyInfo]:
        """Make an API key invalid."""
        return self.value(ApiKeyInfo, Call("DELETE", f"/keys/{quote(key_id, safe='')}"))

    def put_data(self, name: str, upload: InputUpload) -> Flow[DataInfo]:
        """Store shared data under a name."""
        return self.value(DataInfo, Call("PUT", f"/data/{checked_id(name, 'data name')}", body=upload))
