"""`raygrid bench`: what it submits, what it prints, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from raygrid.cli import app, grid
from raygrid.client import BatchJobs, Job
from tests.support.client_fakes import (
    Answers,
    FakeTime,
    RunCommand,
    batch_accepted,
    end,
    form_of,
    part,
    problem,
    stream,
    zip_with,
)

CAPACITY = httpx.Response(200, json={"slots": 2, "running": 0, "free": 2, "queued": 0})
AT = "2026-03-01T12:00:{:06.3f}+00:00"


@pytest.fixture
def book(tmp_path: Path) -> str:
    """The input."""
    path = tmp_path / "book.csv"
    path.write_text("t1")
    return str(path)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> RunCommand:
    """Run the command line against scripted answers."""
    monkeypatch.setenv("RAYGRID_URL", "http://grid.test")

    def run(answers: Answers, *words: str) -> Result:
        monkeypatch.setattr(grid, "Client", lambda url, key: answers.client(FakeTime(), key, retry_s=0))
        return CliRunner().invoke(app, words)

    return run


def manifest(job_id: str) -> str:
    """The manifest of a pricer that ran for half a second, from second 1."""
    times = {"started_at": AT.format(1), "ended_at": AT.format(1.5), "wall_s": 0.5}
    return json.dumps({"jobId": job_id, "cpu_user_s": 0.3, "cpu_system_s": 0.1, **times})


def status(job_id: str) -> dict[str, str]:
    """Submitted at second 0.8, recorded at second 1.6."""
    return {"jobId": job_id, "state": "done", "submitted_at": AT.format(0.8), "ended_at": AT.format(1.6)}


class Script:
    """A grid that runs every job of a batch in the same way."""

    def __init__(self, **failed: str) -> None:
        self.failed = failed
        self.answers = Answers(
            CAPACITY, batch_accepted, self.results, self.status, batch_accepted, self.results, self.jobs
        )

    def ids(self, request_number: int) -> list[str]:
        return [name for name, filename, _ in form_of(self.answers.requests[request_number]) if filename is not None]

    def results(self, request: httpx.Request) -> httpx.Response:
        ids = self.ids(-2)
        last = "failed" if self.failed and len(ids) > 1 else "done"
        parts = [
            part(
                job_id,
                at + 1,
                zip_with({"manifest.json": manifest(job_id)}),
                last if at + 1 == len(ids) else "done",
                **(self.failed if at + 1 == len(ids) else {}),
            )
            for at, job_id in enumerate(ids)
        ]
        return stream(*parts, end())

    def only_failure(self, request: httpx.Request) -> httpx.Response:
        return stream(part(self.ids(1)[0], 1, b"", "failed", **self.failed), end())

    def status(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=status(self.ids(1)[0]))

    def jobs(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"jobs": [status(job_id) for job_id in self.ids(4)], "next": None})


def test_one_job_alone_and_then_copies_in_one_batch(run: RunCommand, book: str) -> None:
    """Every job has a fresh id and the same bytes."""
    script = Script()
    ended = run(script.answers, "bench", book, "--jobs", "3", "--pricer", "bs", "--arg", "v", "--data", "m")

    assert ended.exit_code == 0, ended.stderr
    assert len(script.ids(1)) == 1
    assert len(set(script.ids(4)) - set(script.ids(1))) == 3
    sent = form_of(script.answers.requests[4])
    assert {content for _, filename, content in sent if filename is not None} == {b"t1"}
    assert {("pricer", b"bs"), ("args", b"v"), ("data", b"m")} <= {(name, content) for name, _, content in sent}


def test_the_verdict_is_sentences_on_stdout(run: RunCommand, book: str) -> None:
    """The pricer's time comes from the manifests, the rest from the states."""
    ended = run(Script().answers, "bench", book, "--jobs", "3")

    assert "3 jobs in " in ended.stdout
    assert "The pricer itself takes 500 ms (median; 500 ms to 500 ms), 400 ms of it on a CPU." in ended.stdout
    assert "200 ms waiting for a slot, 500 ms running, 100 ms until its result was stored" in ended.stdout


def test_json_is_one_object_with_every_job_and_the_sentences(run: RunCommand, book: str) -> None:
    """It is for programs."""
    ended = run(Script().answers, "bench", book, "--jobs", "3", "--json")

    text = json.loads(ended.stdout)
    assert [times["ran_s"] for times in text["times"]] == [0.5] * 3
    assert text["jobs"] == 3
    assert text["found"]


def test_without_jobs_there_are_as_many_as_take_half_a_minute(run: RunCommand, book: str) -> None:
    """By the first job's half second: 30 s on two slots are 120 jobs."""
    script = Script()
    run(script.answers, "bench", book)

    assert len(script.ids(4)) == 120


def test_a_failed_job_is_reported_and_the_exit_code_is_one(run: RunCommand, book: str) -> None:
    """Jobs that ran are counted nevertheless."""
    ended = run(Script(reason="exit_code", message="exited with 3").answers, "bench", book, "--jobs", "3")

    assert ended.exit_code == 1
    assert "1 of them failed" in ended.stdout
    assert "exited with 3" in ended.stderr


def test_if_the_first_job_fails_no_others_are_submitted(run: RunCommand, book: str) -> None:
    """The error has the reason; a cancel is sent for what was submitted."""
    script = Script(message="no curve")
    cancelled = httpx.Response(202, json={"batchId": "b", "cancelling": 0})
    answers = script.answers
    answers.answers[2:] = [script.only_failure, cancelled]
    ended = run(answers, "bench", book, "--jobs", "3")

    assert ended.exit_code == 1
    assert "no curve" in ended.stderr
    assert answers.requests[-1].method == "DELETE"


def test_ctrl_c_cancels_what_is_left(run: RunCommand, book: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both batches are cancelled, as their results are of no use."""
    script = Script()
    script.answers.answers[5:] = [problem("job-not-found", 404), httpx.Response(202, json={"cancelling": 3})]
    original = BatchJobs.as_completed

    def interrupted(batch: BatchJobs, timeout: float | None = None) -> Iterator[Job]:
        if len(batch) > 1:
            raise KeyboardInterrupt
        return original(batch, timeout)

    monkeypatch.setattr(BatchJobs, "as_completed", interrupted)
    ended = run(script.answers, "bench", book, "--jobs", "3")

    assert ended.exit_code == 130
    assert "cancelled" in ended.stderr
    batches = [
        content.decode()
        for at in (1, 4)
        for name, _, content in form_of(script.answers.requests[at])
        if name == "batchId"
    ]
    deleted = [request.url.path for request in script.answers.requests if request.method == "DELETE"]
    assert deleted == [f"/batches/{batch_id}" for batch_id in batches]
