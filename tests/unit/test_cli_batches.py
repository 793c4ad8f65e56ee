"""Commands for batches: status, jobs and results; and waiting until a grid is ready."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import httpx
import pytest
from typer.testing import CliRunner, Result

from raygrid.cli import app, grid, ready
from raygrid.cli.ended import NameBy, folder_names
from raygrid.client import Client
from raygrid.system import filenames
from tests.support.client_fakes import Answer, Answers, FakeTime, RunCommand, end, part, problem, stream, zip_of


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunCommand:
    """Run the command line against scripted answers."""
    monkeypatch.setenv("RAYGRID_URL", "http://grid.test")
    monkeypatch.setenv("RAYGRID_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(answers: Answers, *words: str) -> Result:
        monkeypatch.setattr(grid, "Client", lambda url, key: answers.client(FakeTime(), key))
        return CliRunner().invoke(app, words)

    return run


def counts(finished: bool = False, **states: int) -> httpx.Response:
    """A batch as the grid answers."""
    body = {"batchId": "b", "total": sum(states.values()), "finished": finished, "counts": states}
    return httpx.Response(200, json=body)


def listing(**states: str) -> httpx.Response:
    """A page of jobs; each one's input is named after it."""
    jobs = [{"jobId": job_id, "state": state, "input_name": f"of {job_id}.csv"} for job_id, state in states.items()]
    return httpx.Response(200, json={"jobs": jobs})


def test_the_status_of_a_batch_is_a_line_or_json(run: RunCommand) -> None:
    """It shows how many jobs are in which state, and whether the batch has ended."""
    assert run(Answers(counts(done=2, running=1), listing()), "status", "--batch", "b").stdout == (
        "batch b goes on: 3 jobs, 2 done, 1 running\n"
    )
    assert "has ended: 2 jobs, 2 done" in run(Answers(counts(True, done=2), listing()), "status", "--batch", "b").stdout
    body = {"batchId": "b", "total": 3, "finished": True, "counts": {"done": 3}, "reused": 2}
    text = run(Answers(httpx.Response(200, json=body), listing()), "status", "--batch", "b").stdout
    assert text == "batch b has ended: 3 jobs, 3 done; 2 did not run but took over a stored result\n"
    found = json.loads(run(Answers(counts(done=2)), "status", "--batch", "b", "--json").stdout)
    assert (found["total"], found["counts"]) == (2, {"done": 2})
    assert run(Answers(), "status", "j", "--batch", "b").exit_code == 2


def test_the_status_of_a_batch_shows_jobs_with_their_inputs_and_failures_first(run: RunCommand) -> None:
    """Jobs are shown with their file names; of a large batch some are shown, and how to see the others."""
    jobs = [{"jobId": f"j{n:02}", "state": "done", "input_name": f"{n}.csv"} for n in range(30)]
    jobs[29] |= {"state": "failed", "reason": "exit_code"}
    page = httpx.Response(200, json={"jobs": jobs})
    ended = run(Answers(counts(done=29, failed=1), page), "status", "--batch", "b")

    _, names, *lines = ended.stdout.splitlines()
    assert names.split() == ["job_id", "state", "reason", "input_name"]
    assert lines[0].split() == ["j29", "failed", "exit_code", "29.csv"]
    assert lines[1].split() == ["j00", "done", "0.csv"]
    assert len(lines) == 20
    assert "see the others with: raygrid jobs --batch b --limit 30" in ended.stderr


def test_jobs_are_listed_by_state_and_batch_up_to_a_limit(run: RunCommand) -> None:
    """The filters reach the grid; a note states that there are more jobs."""
    answers = Answers(counts(failed=3), listing(x="failed", y="failed", z="failed"))
    ended = run(answers, "jobs", "--state", "failed", "--batch", "b", "--limit", "2")

    assert (answers.requests[1].url.params["state"], answers.requests[1].url.params["batch"]) == ("failed", "b")
    assert "x" in ended.stdout
    assert "y" in ended.stdout
    assert "z" not in ended.stdout
    assert "the newest 2 of 3" in ended.stderr
    assert run(Answers(listing(x="done", y="done")), "jobs", "--limit", "2").stderr == ""
    all_of_them = run(Answers(listing(x="done", y="done")), "jobs", "--limit", "2", "--json")
    assert [job["job_id"] for job in json.loads(all_of_them.stdout)] == ["x", "y"]
    assert all_of_them.stderr == ""
    assert run(Answers(), "jobs", "--state", "sleeping").exit_code == 2


def test_the_newest_job_comes_first(run: RunCommand) -> None:
    """Jobs are listed from newest to oldest, whatever their ids are."""
    jobs = [
        {"jobId": job_id, "state": "done", "submitted_at": f"2030-01-02T03:04:0{second}Z"}
        for job_id, second in (("a", 1), ("b", 3), ("c", 2))
    ]
    listed = run(Answers(httpx.Response(200, json={"jobs": jobs})), "jobs", "--limit", "2")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["job_id", "b", "c"]


def test_the_jobs_of_an_unknown_batch_are_an_error(run: RunCommand) -> None:
    """A mistyped batch is distinguished from one without jobs in the state that was asked for."""
    ended = run(Answers(problem("job-not-found", 404)), "jobs", "--batch", "b")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (1, "", "said job-not-found\n")
    none = run(Answers(counts(done=1), listing()), "jobs", "--batch", "b", "--state", "failed")
    assert (none.exit_code, none.stdout, none.stderr) == (0, "", "no such jobs\n")


JOB = {
    "jobId": "0198f4a2-7b6e-7cc1-9d0a-1f2e3d4c5b6a",
    "state": "failed",
    "pricer": "p" * 20,
    "reason": "exit_code",
    "submitted_at": "2030-01-02T03:04:05.678Z",
    "message": "no curve\n" * 9,
}


def test_a_job_takes_one_line_of_a_terminal_of_80_columns(run: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    """The columns that identify a job are whole; the rest is cut off at the edge."""
    monkeypatch.setenv("COLUMNS", "80")
    _, *lines = run(Answers(httpx.Response(200, json={"jobs": [JOB] * 2})), "jobs").stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert len(line) <= 80
        assert line.split()[:3] == [JOB["jobId"], "failed", "2030-01-02T03:04:05Z"]
        assert "exit_code" in line


def test_a_list_in_a_pipe_has_each_job_whole_on_one_line(run: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is cut off, so that `grep` finds what it looks for."""
    monkeypatch.delenv("COLUMNS")
    job = {**JOB, "jobId": "j" * 100}
    _, line = run(Answers(httpx.Response(200, json={"jobs": [job]})), "jobs").stdout.splitlines()
    assert "j" * 100 in line
    assert "2030-01-02T03:04:05Z" in line
    assert line.endswith(("no curve " * 9).strip())


def partly_ended(*names: str | None) -> Answers:
    """A batch with a done, a failed and a running job, whose inputs have these names."""
    states = zip("xyz", ("done", "failed", "running"), names, strict=True)
    jobs = [{"jobId": job_id, "state": state, "input_name": name} for job_id, state, name in states]
    page = {"jobs": jobs}
    return Answers(
        counts(done=1, failed=1, running=1),
        counts(done=1, failed=1, running=1),
        httpx.Response(200, json=page),
        httpx.Response(200, json=page),
        stream(
            part("x", 1, zip_of(stdout__txt="42\n")),
            part("y", 2, zip_of(stderr__txt="no curve"), "failed", reason="exit_code", message="exited with 3"),
        ),
    )


def test_the_results_of_a_batch_come_into_directories_named_after_the_inputs(run: RunCommand, tmp_path: Path) -> None:
    """Names are those of `submit --out`, also for failed jobs; for unfinished jobs the next command is printed."""
    out = tmp_path / "out"
    ended = run(partly_ended("a.csv", "b.csv", "c.csv"), "result", "--batch", "b", "-o", str(out))

    assert ended.exit_code == 1
    assert (out / "a" / "stdout.txt").read_text() == "42\n"
    assert (out / "b" / "stderr.txt").read_text() == "no curve"
    assert sorted(path.name for path in out.iterdir()) == ["a", "b"]
    assert ended.stdout == f"x\tdone\ta.csv\t{out}/a\ny\tfailed\tb.csv\t{out}/b\n"
    assert "b.csv: job y failed (exit_code): exited with 3\n    no curve" in ended.stderr
    assert f"results are below {out}, named after the inputs\n" in ended.stderr
    assert "1 jobs have not ended yet; fetch their results later with\n" in ended.stderr
    assert f"\n  raygrid result --batch b -o {out} --w" in ended.stderr


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a.csv", "b.csv", "c.csv"), ("--name-by", "job")),
        (("a.csv", "b.csv", "a.txt"), ()),  # c has not ended, but will need its directory
        (("a.csv", "b.csv", "B.csv"), ()),
        (("a.csv", "b.csv", None), ()),
        (("a.csv", "b.csv", ".."), ()),
    ],
)
def test_directories_are_named_after_the_jobs_if_asked_for_or_if_input_names_clash(
    run: RunCommand, tmp_path: Path, names: tuple[str | None, ...], words: tuple[str, ...]
) -> None:
    """No result overwrites another, not even that of a job which ends later; each job's line has its directory."""
    out = tmp_path / "out"
    ended = run(partly_ended(*names), "result", "--batch", "b", "-o", str(out), *words)

    assert sorted(path.name for path in out.iterdir()) == ["x", "y"]
    assert ended.stdout == f"x\tdone\ta.csv\t{out}/x\ny\tfailed\tb.csv\t{out}/y\n"
    assert f"results are below {out}, named after the job ids\n" in ended.stderr
    assert " ".join(("-o", str(out), *words, "--wait 60")) in ended.stderr


def test_a_batch_that_is_done_is_exit_code_zero(run: RunCommand, tmp_path: Path) -> None:
    """--wait waits for its end first; --out is the same as -o."""
    answers = Answers(
        counts(running=1),
        counts(True, done=1),
        counts(True, done=1),
        listing(x="done"),
        listing(x="done"),
        stream(part("x", 1, zip_of(stdout__txt="42\n")), end()),
    )
    ended = run(answers, "result", "--batch", "b", "--out", str(tmp_path), "--wait", "30")

    assert ended.exit_code == 0
    assert (tmp_path / "of x" / "stdout.txt").read_text() == "42\n"


@pytest.mark.parametrize("words", [(), ("j", "--batch", "b", "-o", "d"), ("--batch", "b")])
def test_result_needs_a_job_or_a_batch_with_a_directory(run: RunCommand, words: str) -> None:
    """Anything else is exit code 2, and no request is sent."""
    assert run(Answers(), "result", *words).exit_code == 2


def test_an_unknown_batch_is_an_error(run: RunCommand) -> None:
    """The grid's own message is printed."""
    ended = run(Answers(problem("job-not-found", 404)), "status", "--batch", "b")

    assert (ended.exit_code, ended.stderr) == (1, "said job-not-found\n")


def test_an_answer_that_is_not_http_is_an_error(run: RunCommand) -> None:
    """The error contains no bytes of the answer."""
    strange = httpx.RemoteProtocolError("illegal status line: bytearray(b'SSH-2.0-OpenSSH_9')")
    ended = run(Answers(*[strange] * 100), "pricers")

    assert "the server there does not speak HTTP" in ended.stderr
    assert "SSH" not in ended.stderr


# --- wait-ready -------------------------------------------------------------------------------------------------------


def nodes(*states: str) -> httpx.Response:
    """The nodes as the grid answers."""
    found = [
        {"node": f"n-{n}", "group": "rack-a", "slots": 1, "running": 0, "state": state}
        for n, state in enumerate(states)
    ]
    return httpx.Response(200, json={"nodes": found})


READY = httpx.Response(200, json={"status": "ready"})


class WaitReady(Protocol):
    """Runs `raygrid wait-ready` against scripted answers."""

    def __call__(self, answers: Answers, *words: str) -> tuple[Result, FakeTime]: ...


@pytest.fixture
def wait_ready(run: RunCommand, monkeypatch: pytest.MonkeyPatch) -> WaitReady:
    """Run `raygrid wait-ready` on a clock that only sleeping moves."""
    time = FakeTime()
    monkeypatch.setattr("raygrid.cli.ready.time.monotonic", time.clock)
    monkeypatch.setattr("raygrid.cli.ready.time.sleep", time.sleep)

    def wait_ready(answers: Answers, *words: str) -> tuple[Result, FakeTime]:
        monkeypatch.setattr(
            ready, "Client", lambda url, key, **o: Client(url, key, transport=httpx.MockTransport(answers), **o)
        )
        return run(answers, "wait-ready", *words), time

    return wait_ready


def test_wait_ready_waits_until_all_nodes_are_well(wait_ready: WaitReady) -> None:
    """A refused connection, a grid without nodes, too few healthy nodes: none of these ends the wait."""
    refused = httpx.ConnectError("refused")
    answers = Answers(refused, refused, problem("unavailable", 503), READY, nodes("ok", "unhealthy"), READY)
    answers.answers += [nodes("ok", "ok")]
    ended, time = wait_ready(answers, "--nodes", "2", "--timeout", "1m")

    assert ended.exit_code == 0
    assert ended.stdout == "ready after 2.0 s, with at least 2 node(s)\n"
    assert len(time.sleeps) == 4


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ([httpx.ConnectError("refused")] * 9, "no grid answers at http://grid.test"),
        ([problem("unavailable", 503)] * 9, "said unavailable"),
        ([READY, nodes("ok", "lost")] * 9, "1 of 2 nodes are ok (n-1 is lost)"),
    ],
)
def test_what_is_missing_at_the_end_is_printed(wait_ready: WaitReady, answers: list[Answer], text: str) -> None:
    """Exit code 1 and the last thing that was missing."""
    ended, time = wait_ready(Answers(*answers), "--nodes", "2", "--timeout", "2s")

    assert ended.exit_code == 1
    assert "not ready within 2 s" in ended.stderr
    assert text in ended.stderr
    assert sum(time.sleeps) == pytest.approx(2.0)


def test_a_wrong_key_is_not_waited_for(wait_ready: WaitReady) -> None:
    """Waiting would not help."""
    ended, time = wait_ready(Answers(READY, problem("unauthorized", 401)))

    assert ended.exit_code == 1
    assert "requires an API key" in ended.stderr
    assert time.sleeps == []


def test_a_grid_on_this_machine_may_come_later(wait_ready: WaitReady, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a URL the file of a local grid is waited for."""
    monkeypatch.delenv("RAYGRID_URL")
    ended, _ = wait_ready(Answers(), "--timeout", "2")

    assert ended.exit_code == 1
    assert "no grid runs on this machine" in ended.stderr


@pytest.mark.parametrize("words", [("--timeout", "soon"), ("--timeout", "-1s"), ("--nodes", "0")])
def test_a_time_or_number_that_makes_no_sense_is_a_usage_error(wait_ready: WaitReady, words: str) -> None:
    """Exit code 2; no request is sent."""
    assert wait_ready(Answers(), *words)[0].exit_code == 2


def batches(*names: str | None, cursor: str | None = None) -> httpx.Response:
    """A page of batches."""
    listed = [
        {"batchId": name, "total": 2, "finished": False, "counts": {"queued": 1, "done": 1}, "submitted_at": AT}
        for name in names
    ]
    return httpx.Response(200, json={"batches": listed, "next_cursor": cursor})


AT = "2026-03-01T18:30:00Z"


def test_batches_are_listed_one_on_a_line(run: RunCommand) -> None:
    """Newest first as the grid gives them, with how many jobs are in which state; pages are joined."""
    answers = Answers(batches("b3", "b2", cursor="b2"), batches("b1"))
    lines = run(answers, "batches").stdout.splitlines()
    assert lines[0].split() == ["batch_id", "submitted_at", "jobs", "queued", "running", "done", "failed", "cancelled"]
    assert [line.split() for line in lines[1:]] == [
        [name, AT, "2", "1", "0", "1", "0", "0"] for name in ("b3", "b2", "b1")
    ]
    assert [request.url.query for request in answers.requests] == [b"", b"cursor=b2"]


def test_more_batches_than_are_shown_are_mentioned(run: RunCommand) -> None:
    """No more pages are fetched than are shown."""
    answers = Answers(batches("b3", "b2", cursor="b2"))
    ended = run(answers, "batches", "--limit", "1")
    assert "these are the newest 1; see more with --limit" in ended.stderr
    assert len(answers.requests) == 1
    assert json.loads(run(Answers(batches("b1")), "batches", "--json").stdout)[0]["batch_id"] == "b1"
    assert "no batches yet" in run(Answers(batches()), "batches").stderr


def test_no_directory_gets_a_name_that_windows_leads_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows the directories of all results are named after job ids if one input's name is that of a device."""
    inputs: dict[str, str | None] = {"j-1": "NUL.csv", "j-2": "b.csv"}
    assert folder_names(inputs, NameBy.INPUT) == (NameBy.INPUT, {"j-1": "NUL", "j-2": "b"})
    monkeypatch.setattr(filenames, "_ON_WINDOWS", True)
    assert folder_names(inputs, NameBy.INPUT) == (NameBy.JOB, {"j-1": "j-1", "j-2": "j-2"})
