"""How problem documents become errors, and what no message may contain."""

from __future__ import annotations

import logging
import pickle
import traceback

import httpx
import pytest

from raygrid import errors
from raygrid.client import AsyncClient, Client
from tests.support.client_fakes import URL, Answers, problem

KEY = "0123456789-secret-key-abcdef"


@pytest.mark.parametrize(
    ("word", "status", "kind"),
    [
        ("invalid-request", 400, errors.InvalidRequestError),
        ("invalid-request", 422, errors.InvalidRequestError),
        ("unauthorized", 401, errors.NotAuthorizedError),
        ("unknown-pricer", 422, errors.UnknownPricerError),
        ("unknown-data", 422, errors.UnknownDataError),
        ("unknown-site", 422, errors.UnknownSiteError),
        ("too-large", 413, errors.TooLargeError),
        ("conflict", 409, errors.ConflictError),
        ("job-not-found", 404, errors.JobNotFoundError),
        ("not-finished", 404, errors.NotFinishedError),
        ("result-expired", 410, errors.ResultExpiredError),
        ("job-cancelled", 409, errors.JobCancelledError),
        ("busy", 429, errors.BusyError),
        ("unavailable", 503, errors.UnavailableError),
        ("internal", 500, errors.RaygridError),
        ("a-word-of-the-future", 418, errors.RaygridError),
    ],
)
def test_every_problem_type_has_its_error(word: str, status: int, kind: type[errors.RaygridError]) -> None:
    """The stable word of the URN decides, not the status."""
    with pytest.raises(errors.RaygridError) as caught:
        Answers(problem(word, status)).client(retry_s=0).job("j").status()

    assert type(caught.value) is kind
    assert word == "unauthorized" or str(caught.value) == f"said {word}"


def test_a_failed_job_has_reason_exit_code_and_the_end_of_stderr() -> None:
    """JobFailedError carries the members of the problem."""
    failed = problem("job-failed", 422, jobId="j", reason="exit_code", exit_code=3, stderr_tail="no curve")

    with pytest.raises(errors.JobFailedError, match="said job-failed") as caught:
        Answers(failed).client().job("j").result()

    error = caught.value
    assert (error.job_id, error.reason, error.exit_code, error.stderr_tail) == (
        "j",
        "exit_code",
        3,
        "no curve",
    )


def test_the_text_of_a_failed_job_ends_with_the_last_lines_of_stderr() -> None:
    """A notebook shows only the text of an exception; many lines are cut, and so is a long one."""

    def text_of(tail: str | None) -> str:
        failed = problem("job-failed", 422, jobId="j", reason="exit_code", exit_code=3, stderr_tail=tail)
        with pytest.raises(errors.JobFailedError) as caught:
            Answers(failed).client().job("j").result()
        assert (caught.value.message, caught.value.stderr_tail) == ("said job-failed", tail)
        passed_on = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
        assert (str(passed_on), passed_on.message) == (str(caught.value), "said job-failed")
        return str(caught.value)

    assert text_of("no curve\n") == "said job-failed; its stderr ends with:\n    no curve"
    assert text_of(" \n") == text_of(None) == "said job-failed"
    _, *lines = text_of("".join(f"line {n}\n" for n in range(50))).splitlines()
    assert lines == ["    …", *(f"    line {n}" for n in range(40, 50))]
    flood = text_of("".join(f"{n}" * 900 + "\n" for n in range(9)))
    assert [line[4] for line in flood.splitlines()[1:]] == ["…", "6", "7", "8"]
    assert len(flood) < 1_100


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.NotAuthorizedError),
        (403, errors.NotAuthorizedError),
        (413, errors.TooLargeError),
        (422, errors.InvalidRequestError),
        (404, errors.RaygridError),
        (302, errors.RaygridError),
    ],
)
def test_answers_of_proxies_become_errors_too(status: int, kind: type[errors.RaygridError]) -> None:
    """Without a problem document the status decides, and the message names the URL."""
    with pytest.raises(errors.RaygridError, match=URL) as caught:
        Answers(httpx.Response(status, text="<html>")).client(retry_s=0).job("j").status()

    assert type(caught.value) is kind


def test_a_page_that_is_not_from_a_grid_is_an_error() -> None:
    """A 200 from some other server is not taken for a status."""
    with pytest.raises(errors.RaygridError, match="check the URL"):
        Answers(httpx.Response(200, text="<html>hello")).client().job("j").status()


def test_an_answer_of_another_version_names_the_unknown_values() -> None:
    """A state that does not exist is refused with the name of the field."""
    with pytest.raises(errors.RaygridError, match=r"not a JobStatus \(state\)"):
        Answers(httpx.Response(200, json={"jobId": "j", "state": "melting"})).client().job("j").status()


def test_a_401_has_advice_with_and_without_a_key() -> None:
    """Without a key the advice is to set one, with a key to check it."""
    with pytest.raises(errors.NotAuthorizedError, match="requires an API key; set RAYGRID_API_KEY"):
        Answers(problem("unauthorized", 401)).client().pricers()
    with pytest.raises(errors.NotAuthorizedError, match="refuses the request") as caught:
        Answers(problem("unauthorized", 401)).client(api_key=KEY).pricers()
    assert KEY not in str(caught.value)


def test_the_key_is_sent_as_a_bearer_token() -> None:
    """The key travels in the Authorization header, without white space around it."""
    grid = Answers(httpx.Response(200, json={"pricers": []}))
    grid.client(api_key=f" {KEY}\n").pricers()

    assert grid.requests[0].headers["Authorization"] == f"Bearer {KEY}"


def test_the_key_is_in_no_repr_no_log_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is printed of a client and of its failures, it does not contain the key."""
    caplog.set_level(logging.DEBUG)
    grid = Answers(httpx.ConnectError("refused"), problem("unauthorized", 401))
    client = grid.client(api_key=KEY)
    with pytest.raises(errors.NotAuthorizedError) as caught:
        client.submit(b"x")

    shown = [repr(client), repr(client._endpoint), repr(vars(client)), caplog.text]
    shown += traceback.format_exception(caught.value)
    shown += [repr(AsyncClient(URL, KEY, plain_http=True)), repr(client.job("j"))]
    assert [text for text in shown if KEY in text] == []
    assert "http://grid.test" in repr(client)


@pytest.mark.parametrize("bad", ["two words-0123456789", "schlüssel-0123456789", "line\nbreak-0123456789"])
def test_a_malformed_key_is_refused_without_being_shown(bad: str) -> None:
    """The HTTP library would quote an illegal header in its error; it never gets it."""
    with pytest.raises(errors.SettingsError) as caught:
        Client(URL, bad)

    assert bad not in str(caught.value)


@pytest.mark.parametrize("bad", ["ftp://grid", "http://", "http://user:geheim@grid:8000", "http://grid:port"])
def test_a_malformed_url_is_refused(bad: str) -> None:
    """The error comes when the client is made, and shows no password."""
    with pytest.raises(errors.SettingsError) as caught:
        Client(bad)

    assert "geheim" not in str(caught.value)


def test_a_bare_host_and_port_is_enough() -> None:
    """http:// is added, a trailing slash dropped."""
    assert Client("localhost:8000/").url == "http://localhost:8000"


@pytest.mark.parametrize(
    "answer", [problem("not-found", 404, detail="Not Found"), httpx.Response(404, text="nothing here")]
)
@pytest.mark.parametrize("ask", ["nodes", "map"])
def test_a_url_with_a_path_that_no_grid_has_is_named(answer: httpx.Response, ask: str) -> None:
    """The message has the URL without the path, which is probably the right one."""
    client = Client(f"{URL}/x/", transport=httpx.MockTransport(Answers(answer)))
    with pytest.raises(errors.RaygridError) as caught:
        client.nodes() if ask == "nodes" else client.map([b"1"])
    assert str(caught.value) == f"there is no raygrid grid at {URL}/x; leave out the path: {URL}"


@pytest.mark.parametrize("base", [URL, f"{URL}/grid"])
def test_an_unknown_job_is_no_wrong_url(base: str) -> None:
    """A proxy may serve a grid below a path."""
    client = Client(base, transport=httpx.MockTransport(Answers(problem("job-not-found", 404))))
    with pytest.raises(errors.JobNotFoundError, match="said job-not-found"):
        client.job("j").status()


def test_a_path_that_an_older_grid_lacks_is_no_wrong_url() -> None:
    """Without a path in the URL, the grid's own message is shown."""
    with pytest.raises(errors.RaygridError, match=r"^Not Found$"):
        Answers(problem("not-found", 404, detail="Not Found")).client().keys()
