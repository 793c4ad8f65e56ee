"""Answers that belong to another call, and bodies that differ from their recorded digest."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from raygrid.client import AsyncClient, BatchJobs, Client, Result
from raygrid.errors import DamagedResultError, JobFailedError, MismatchedResponseError
from tests.support.client_fakes import URL, Answers, FakeTime, accepted, end, part, problem, stream, zip_of

ZIP = zip_of(stdout__txt="42\n")
DIGEST = hashlib.sha256(ZIP).hexdigest()
OTHERS = zip_of(stdout__txt="43\n")


def result(job_id: str | None = "a", data: bytes = ZIP, digest: str = DIGEST, weak: str = "") -> httpx.Response:
    """A result as a parent sends it; without the name of its job if that is None."""
    headers = {"ETag": f'{weak}"{digest}"', "Content-Type": "application/zip"}
    if job_id is not None:
        headers["Raygrid-Job-Id"] = job_id
    return httpx.Response(200, content=data, headers=headers)


def asked(*answers: httpx.Response) -> tuple[Client, list[httpx.Request]]:
    """A client that gets these answers as they are, and the requests that it makes."""
    requests: list[httpx.Request] = []
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return left.pop(0)

    return Client(URL, transport=httpx.MockTransport(answer), retry=FakeTime().policy()), requests


def test_the_result_of_another_job_is_asked_for_again_and_never_given() -> None:
    """A response that names another job is dropped; the second one is the job's own."""
    client, requests = asked(result("b", OTHERS, hashlib.sha256(OTHERS).hexdigest()), result())

    assert client.job("a").result().stdout == "42\n"
    assert len(requests) == 2


@pytest.mark.parametrize(
    ("named", "text"), [("b", "sent the answer for job b"), (None, "sent a result without the header Raygrid-Job-Id")]
)
def test_a_result_that_is_not_the_jobs_own_again_is_an_error_of_its_own_class(named: str | None, text: str) -> None:
    """Two mismatches end the call; the error names the job that was asked for and what came."""
    client, requests = asked(result(named), result(named))

    with pytest.raises(MismatchedResponseError, match=f"asked about job a, but {URL} {text}") as caught:
        client.job("a").result()

    assert len(requests) == 2
    assert caught.value.__suppress_context__


def test_an_async_client_compares_answers_as_well() -> None:
    """The client for event loops: the same check, the same error."""
    client = AsyncClient(URL, transport=httpx.MockTransport(lambda _: result("b")), retry=FakeTime().policy())

    async def fetch() -> None:
        await client.job("a").result()

    with pytest.raises(MismatchedResponseError, match="answer for job b"):
        asyncio.run(fetch())


def test_the_failure_of_another_job_is_not_taken_for_this_jobs() -> None:
    """Problem documents name their job, too: after a mismatch the client asks again."""
    failed = problem("job-failed", 422, jobId="b")
    failed.headers["Raygrid-Job-Id"] = "b"
    client, _ = asked(failed, result())

    assert client.job("a").result().stdout == "42\n"


def test_an_answer_about_another_job_is_no_answer_to_submit_status_or_cancel() -> None:
    """Submit, status and cancel compare the name where it is given, and go on without it (an older grid)."""

    def other(call: Callable[[Client], object]) -> None:
        wrong = accepted("b")
        wrong.headers["Raygrid-Job-Id"] = "b"
        client, requests = asked(wrong, wrong)
        with pytest.raises(MismatchedResponseError):
            call(client)
        assert len(requests) == 2

    other(lambda client: client.submit(b"x", job_id="a"))
    other(lambda client: client.job("a").status())
    other(lambda client: client.job("a").cancel())
    asked(accepted("a"))[0].submit(b"x", job_id="a")


def test_the_stream_of_another_batch_is_read_again_and_then_refused() -> None:
    """A results stream that names another batch ends no job of this one."""

    def wrong() -> httpx.Response:
        answer = stream(part("a", 1, OTHERS), end())
        answer.headers["Raygrid-Batch-Id"] = "other"
        return answer

    right = stream(part("a", 1, ZIP), end())
    right.headers["Raygrid-Batch-Id"] = "mine"
    batch = batch_of(wrong(), right)
    assert [each.stdout for each in batch.results()] == ["42\n"]

    with pytest.raises(MismatchedResponseError, match=r"asked about batch mine, but .* batch other"):
        list(batch_of(wrong(), wrong()).results())


def batch_of(*streams: httpx.Response) -> BatchJobs:
    """The batch `mine` with the one job `a`, whose results come in these streams."""
    client, _ = asked(httpx.Response(202, json={"batchId": "mine"}), *streams)
    return client.map({"a": b"x"}, batch_id="mine")


# --- digests --------------------------------------------------------------------------------------------------------


def test_a_result_with_other_bytes_than_its_digest_is_fetched_again_and_never_given() -> None:
    """After one flipped bit the ZIP is fetched again, whole."""
    flipped = ZIP[:-1] + bytes([ZIP[-1] ^ 1])
    client, requests = asked(result(data=flipped), result())

    assert client.job("a").result().data == ZIP
    assert len(requests) == 2


def test_a_result_that_stays_damaged_is_an_error_that_names_job_and_remedy() -> None:
    """The error names the job and where its result comes from, and that a new job id runs it again."""
    client, requests = asked(result(data=OTHERS), result(data=OTHERS))

    with pytest.raises(DamagedResultError, match=rf"result of job a from {URL} .*under a new job id"):
        client.job("a").result()
    assert len(requests) == 2


def test_a_proxy_that_weakens_or_removes_the_tag_does_not_stop_results() -> None:
    """Weak tags are compared all the same; without a digest there is nothing to compare."""
    assert asked(result(weak="W/"))[0].job("a").result().data == ZIP
    bare = httpx.Response(200, content=ZIP, headers={"Raygrid-Job-Id": "a"})
    assert asked(bare)[0].job("a").result().data == ZIP
    with pytest.raises(DamagedResultError):
        asked(result(data=OTHERS, weak="W/"), result(data=OTHERS, weak="W/"))[0].job("a").result()


def test_a_download_appears_only_when_it_matches_its_digest(tmp_path: Path) -> None:
    """A damaged body leaves no file, not even an unfinished one; a file that was there stays."""
    path = tmp_path / "a.zip"
    path.write_bytes(b"before")
    with pytest.raises(DamagedResultError):
        asked(result(data=OTHERS), result(data=OTHERS))[0].job("a").download(path)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("a.zip", b"before")]

    asked(result(data=OTHERS), result())[0].job("a").download(path)
    assert path.read_bytes() == ZIP


def test_another_entry_is_asked_after_a_damaged_or_mixed_up_answer() -> None:
    """The second try goes to the next entry of the grid."""
    for wrong in (result(data=OTHERS), result("b")):
        hosts: list[str] = []

        def answer(request: httpx.Request, wrong: httpx.Response = wrong, hosts: list[str] = hosts) -> httpx.Response:
            hosts.append(request.url.host)
            return wrong if request.url.host == "one.test" else result()

        client = Client(
            ["http://one.test", "http://two.test"],
            transport=httpx.MockTransport(answer),
            retry=FakeTime().policy(),
        )
        assert client.job("a").result().data == ZIP
        assert hosts == ["one.test", "two.test"]


def test_a_failed_jobs_files_are_compared_as_well() -> None:
    """`even_if_failed` gives what a failed job left: with a digest like any other result."""
    grid = Answers(problem("job-failed", 422, jobId="a"), result(data=OTHERS), result(data=OTHERS))
    job = grid.client().job("a")

    with pytest.raises(JobFailedError):
        job.result()
    with pytest.raises(DamagedResultError):
        job.result(even_if_failed=True)


def tagged(job_id: str, cursor: int, data: bytes, digest: str = DIGEST) -> bytes:
    """A part of a results stream with the digest that its ZIP should have."""
    plain = part(job_id, cursor, data)
    return plain.replace(b"Content-Type:", f'ETag: "{digest}"\r\nContent-Type:'.encode(), 1)


def test_a_part_of_a_stream_that_came_damaged_is_read_again() -> None:
    """The jobs before it are there already; the second stream begins behind them."""
    streams = [stream(tagged("a", 1, ZIP), tagged("b", 2, OTHERS)), stream(tagged("b", 2, ZIP), end())]
    client, requests = asked(httpx.Response(202, json={}), *streams)

    batch = client.map({"a": b"x", "b": b"x"}, batch_id="mine")

    assert [result.data for result in batch.results()] == [ZIP, ZIP]
    assert [request.url.params.get("cursor") for request in requests[1:]] == ["0", "1"]


def test_a_part_that_stays_damaged_is_that_jobs_error_and_the_others_come() -> None:
    """The job's error has its own class; asking for the job alone later asks the grid again."""
    bad = tagged("a", 1, OTHERS)
    streams = [stream(bad), stream(bad, tagged("b", 2, ZIP), end())]
    client, _ = asked(httpx.Response(202, json={}), *streams, result())

    batch = client.map({"a": b"x", "b": b"x"}, batch_id="mine")
    error, other = batch.results(return_errors=True)

    assert isinstance(error, DamagedResultError)
    assert "result of job a" in str(error)
    assert isinstance(other, Result)
    assert other.data == ZIP
    assert batch[0].result().data == ZIP
    assert batch[0].result().data == ZIP  # and is kept
