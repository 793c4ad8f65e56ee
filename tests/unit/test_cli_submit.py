"""`raygrid submit`: what it sends, what it prints, where results go, and its exit code."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import httpx
import pytest
from typer.testing import CliRunner, Result

from raygrid.cli import app, grid
from raygrid.client import BatchJobs
from tests.support.client_fakes import (
    ANY_BYTES,
    Answers,
    FakeTime,
    RunCommand,
    batch_accepted,
    end,
    form_of,
    part,
    problem,
    stream,
    zip_of,
    zip_with,
)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three inputs."""
    paths = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv")]
    for path in paths:
        path.write_text(path.name)
    return [str(path) for path in paths]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> RunCommand:
    """Run the command line against scripted answers."""
    monkeypatch.setenv("RAYGRID_URL", "http://grid.test")

    def run(answers: Answers, *words: str) -> Result:
        monkeypatch.setattr(grid, "Client", lambda url, key: answers.client(FakeTime(), key))
        return CliRunner().invoke(app, words)

    return run


def answered(*states: str) -> Answers:
    """A grid that takes a batch and ends its jobs in these states, the last input first."""

    def results(request: httpx.Request) -> httpx.Response:
        jobs = [name for name, filename, _ in form_of(answers.requests[0]) if filename is not None]
        parts = []
        for at, (job_id, state) in enumerate(reversed(list(zip(jobs, states, strict=True)))):
            body = b"" if state == "cancelled" else zip_of(stdout__txt=f"out of {job_id}\n", stderr__txt="no curve")
            failed = {"reason": "exit_code", "message": "exited with 3"} if state == "failed" else {}
            parts.append(part(job_id, at + 1, body, state, **failed))
        return stream(*parts, end())

    answers = Answers(batch_accepted, results)
    return answers


def test_all_done_is_exit_code_zero_and_a_summary(run: RunCommand, files: list[str]) -> None:
    """The table counts the states."""
    ended = run(answered("done", "done", "done"), "submit", *files)

    assert ended.exit_code == 0
    assert ended.stdout == ""
    assert "batch" in ended.stderr
    assert "done" in ended.stderr
    assert "3" in ended.stderr


@pytest.mark.parametrize("printed", ANY_BYTES, ids=("shift_jis", "binary", "line ends", "nothing"))
def test_submit_writes_the_bytes_of_the_pricers_stdout(run: RunCommand, files: list[str], printed: bytes) -> None:
    """Shift_JIS, data, CRLF and a missing last newline come out as the pricer wrote them."""

    def results(_request: httpx.Request) -> httpx.Response:
        [(job_id, _, _)] = [each for each in form_of(answers.requests[0]) if each[1] is not None]
        return stream(part(job_id, 1, zip_with({"stdout.txt": printed})), end())

    answers = Answers(batch_accepted, results)

    assert run(answers, "submit", files[0]).stdout_bytes == printed


def test_jobs_that_took_over_a_result_are_counted(run: RunCommand, files: list[str]) -> None:
    """The summary counts results that existed before, if there are some."""

    def results(request: httpx.Request) -> httpx.Response:
        jobs = [name for name, filename, _ in form_of(answers.requests[0]) if filename is not None]
        whose = [{"reused_from": "monday-1"}, {}, {"reused_from": "monday-3"}]
        parts = [part(job_id, at + 1, zip_of(stdout__txt="1"), **whose[at]) for at, job_id in enumerate(jobs)]
        return stream(*parts, end())

    answers = Answers(batch_accepted, results)
    assert "2 did not run" in run(answers, "submit", *files).stderr
    assert "did not run" not in run(answered("done", "done", "done"), "submit", *files).stderr


def test_options_reach_the_grid(run: RunCommand, files: list[str]) -> None:
    """Every option of a submit has its form field."""
    answers = answered("done")
    options = "--pricer bs --arg -v --arg 2 --priority 3 --affinity e --site ldn --timeout 9 --data m"
    ended = run(answers, "submit", files[0], "--job-id", "t-1", "--batch-id", "b-1", *options.split())

    assert ended.exit_code == 0
    sent = [(name, content.decode()) for name, _, content in form_of(answers.requests[0])]
    assert sorted(sent) == [
        ("affinity", "e"),
        ("args", "-v"),
        ("args", "2"),
        ("batchId", "b-1"),
        ("data", "m"),
        ("pricer", "bs"),
        ("priority", "3"),
        ("site", "ldn"),
        ("t-1", "a.csv"),
        ("timeout_s", "9.0"),
    ]


def test_a_failure_is_exit_code_one_with_file_job_reason_and_stderr(run: RunCommand, files: list[str]) -> None:
    """The line names file and job; the end of stderr is below it."""
    answers = answered("done", "failed", "cancelled")
    ended = run(answers, "submit", *files)

    job_id = form_of(answers.requests[0])[2][0]
    assert ended.exit_code == 1
    assert f"{files[1]}: job {job_id} failed (exit_code): exited with 3\n    no curve" in ended.stderr
    assert f"{files[2]}: job" in ended.stderr
    assert f"{files[0]}: job" not in ended.stderr


def test_a_failure_is_printed_once(run: RunCommand, files: list[str]) -> None:
    """A message that begins with the job and its failure does not get the same prefix again."""
    results = stream(part("j", 1, b"", "failed", reason="exit_code", message="job j failed: exited with 3"), end())
    ended = run(Answers(batch_accepted, results), "submit", files[0], "--job-id", "j")

    assert f"{files[0]}: job j failed (exit_code): exited with 3\n" in ended.stderr


def test_the_only_file_prints_its_stdout(run: RunCommand, files: list[str]) -> None:
    """`raygrid submit one.csv > price.txt` works: stdout has the pricer's stdout and nothing else."""
    ended = run(answered("done"), "submit", files[0], "--job-id", "one")

    assert ended.stdout == "out of one\n"


def test_results_are_unpacked_below_out_in_directories_named_after_the_inputs(
    run: RunCommand, files: list[str], tmp_path: Path
) -> None:
    """A failed job's files are there as well; a cancelled one has none."""
    out = tmp_path / "out"
    ended = run(answered("done", "failed", "cancelled"), "submit", *files, "--out", str(out))

    assert sorted(path.name for path in out.iterdir()) == ["a", "b"]
    assert (out / "a" / "stdout.txt").read_text().startswith("out of ")
    assert ended.stdout == ""


def test_equal_stems_are_distinguished_by_job_id(run: RunCommand, tmp_path: Path) -> None:
    """Two inputs of one name do not overwrite each other's results."""
    paths = [tmp_path / "x" / "t.csv", tmp_path / "y" / "t.csv"]
    for path in paths:
        path.parent.mkdir()
        path.write_text("t")
    answers = answered("done", "done")
    run(answers, "submit", *map(str, paths), "--out", str(tmp_path / "out"))

    ids = {name for name, filename, _ in form_of(answers.requests[0]) if filename}
    assert {path.name for path in (tmp_path / "out").iterdir()} == ids


def test_directories_may_be_named_after_the_jobs(run: RunCommand, files: list[str], tmp_path: Path) -> None:
    """A script that knows the ids does not depend on whether names clash."""
    out = tmp_path / "out"
    ended = run(answered("done"), "submit", files[0], "--job-id", "t-1", "--out", str(out), "--name-by", "job")

    assert [path.name for path in out.iterdir()] == ["t-1"]
    assert f"results are below {out}, named after the job ids\n" in ended.stderr


def test_ids_from_names_are_the_stems(run: RunCommand, files: list[str]) -> None:
    """With it a second run attaches to the first one's jobs."""
    answers = answered("done", "done", "done")
    run(answers, "submit", *files, "--ids-from-names")

    assert [name for name, filename, _ in form_of(answers.requests[0]) if filename] == ["a", "b", "c"]


@pytest.mark.parametrize("words", [["--job-id", "x"], ["--job-id", "x", "--ids-from-names"]])
def test_one_id_for_many_files_is_a_usage_error(run: RunCommand, files: list[str], words: str) -> None:
    """Exit code 2, and nothing is sent."""
    ended = run(Answers(), "submit", *files, *words)

    assert ended.exit_code == 2
    assert "--job-id" in ended.stderr


def test_names_that_make_no_ids_are_a_usage_error(run: RunCommand, tmp_path: Path) -> None:
    """A space in a file's name cannot be part of a job id."""
    path = tmp_path / "two words.csv"
    path.touch()

    assert run(Answers(), "submit", str(path), "--ids-from-names").exit_code == 2


def test_no_wait_prints_the_ids_and_returns(run: RunCommand, files: list[str]) -> None:
    """The ids go to stdout, one per line with its file; the results are not asked for."""
    answers = Answers(batch_accepted)
    ended = run(answers, "submit", *files, "--no-wait", "--batch-id", "b-1", "--ids-from-names")

    assert ended.exit_code == 0
    assert ended.stdout == "".join(f"{job_id}\t{path}\n" for job_id, path in zip("abc", files, strict=True))
    assert "batch b-1: 3 jobs submitted" in ended.stderr
    assert "raygrid status --batch b-1\n  raygrid result --batch b-1 -o DIR" in ended.stderr


def test_a_refused_job_counts_as_failed(run: RunCommand, files: list[str]) -> None:
    """The grid took the others; the exit code shows that one was refused."""

    def refuse(request: httpx.Request) -> httpx.Response:
        problem_of_a = {"type": "urn:raygrid:problem:conflict", "detail": "another input"}
        return httpx.Response(202, json={"batchId": "b", "refused": [{"jobId": "a", "problem": problem_of_a}]})

    answers = Answers(refuse, stream(part("b", 1), part("c", 2), end()))
    ended = run(answers, "submit", *files, "--ids-from-names")

    assert ended.exit_code == 1
    assert f"{files[0]}: job a refused: another input" in ended.stderr


def test_ctrl_c_prints_that_jobs_go_on_and_how_to_stop_them(
    run: RunCommand, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The jobs outlive the command; the message has the command that cancels them."""

    def interrupted(batch: BatchJobs, timeout: float | None = None) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(BatchJobs, "as_completed", interrupted)
    ended = run(Answers(batch_accepted), "submit", *files, "--batch-id", "b-1")

    assert ended.exit_code == 130
    assert "the jobs of batch b-1 go on" in ended.stderr
    assert "raygrid cancel --batch b-1" in ended.stderr


def test_an_error_of_the_grid_is_one_line_without_a_traceback(run: RunCommand, files: list[str]) -> None:
    """Only the grid's message is printed."""
    ended = run(Answers(problem("unknown-pricer", 422)), "submit", files[0])

    assert ended.exit_code == 1
    assert ended.stderr == "said unknown-pricer\n"


def test_an_empty_file_is_named_and_nothing_is_sent(run: RunCommand, files: list[str], tmp_path: Path) -> None:
    """The file is named, and no job of the batch is submitted."""
    (tmp_path / "empty.csv").touch()
    answers = Answers()
    ended = run(answers, "submit", *files, str(tmp_path / "empty.csv"))

    assert ended.exit_code == 1
    assert (
        ended.stderr == f"{tmp_path / 'empty.csv'} is empty, and an input must not be empty; fill it or leave it out\n"
    )
    assert answers.requests == []


def test_ctrl_c_at_any_time_is_one_line(run: RunCommand, files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """While files are still being sent, too."""

    def interrupted(request: httpx.Request) -> NoReturn:
        raise KeyboardInterrupt

    ended = run(Answers(interrupted), "submit", *files)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (130, "", "interrupted\n")
