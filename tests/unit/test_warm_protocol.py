"""The protocol of warm pricers: what the agent sends and reads, against what its description promises."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from raygrid.models import AttemptId, BlobSlice, JobSpec, SharedData
from raygrid.node.attempt.captures import Capture, CapturePool, Captures
from raygrid.node.attempt.directory import DirectoryHandle, JobDirectory, OpenDirectory
from raygrid.node.attempt.jobs_directory import JobsDirectory
from raygrid.node.attempt.stages import PreparedAttempt
from raygrid.node.attempt.temporary_files import TemporaryDirectories, TemporaryDirectory
from raygrid.node.sandbox.no_sandbox import NoSandbox
from raygrid.node.warm.protocol import MOST_LINE, AnswerReader, BadAnswerError, WarmAnswer, parse, request
from raygrid.settings.pricer import Pricer

ROOT = Path(__file__).parents[2]
DESCRIPTION = (ROOT / "docs" / "guides" / "warm-pricers.md").read_text(encoding="utf-8")
WARM = Pricer(command=("pricer",), mode="warm")
BOX = NoSandbox(JobsDirectory(Path("/"), Path("/j"), Path("/t")))


def directory_at(where: str, stdout: str, stderr: str, temporary: str = "/tmp") -> JobDirectory:
    captures = [Capture("", "", -1, path, -1) for path in (stdout, stderr)]
    files = TemporaryDirectory(temporary, "", -1, ())
    return JobDirectory(
        DirectoryHandle(where, "", -1, -1, (0, 0)),
        Captures(*captures),
        CapturePool(where),
        files,
        TemporaryDirectories(Path(where)),
        OpenDirectory(where, -1),
    )


def block(name: str) -> str:
    """A code block of the description."""
    [found] = re.findall(rf"<!-- test: {name} -->\n```\w+\n(.*?)```", DESCRIPTION, re.DOTALL)
    return str(found)


def test_the_line_in_the_description_is_the_line_that_is_sent() -> None:
    """Byte for byte: pricers may rely on keys, their order and spacing."""
    shown = block("request")
    job = json.loads(shown)
    spec = JobSpec(
        job["job_id"],
        "pricer",
        "1",
        BlobSlice("", 0, 0, ""),
        "book.csv",
        args=tuple(job["args"]),
        data=tuple(SharedData(each["name"], each["sha256"], 1) for each in job["data"]),
    )
    directory = directory_at(job["output_dir"], job["stdout"], job["stderr"], job["tmp_dir"])
    made = request(7, PreparedAttempt(AttemptId(job["job_id"], 1), spec, WARM, job["slot"], directory, BOX))
    assert made.decode() == shown


def test_the_answer_in_the_description_is_understood() -> None:
    """The shown answer ends the shown job."""
    assert AnswerReader(7).feed(block("answer").encode()) == WarmAnswer(0)


def test_every_key_is_described() -> None:
    """Tables of the description name each key of job and answer."""
    for key in [*json.loads(block("request")), "exit_code", "message", "signal"]:
        assert re.search(rf"^\|[^|]*`{key}`", DESCRIPTION, re.MULTILINE), key


def test_the_limit_of_an_answer_is_described_and_held() -> None:
    """The longest answer is accepted; one byte more is refused, in one piece or many, and so is one without an end."""
    assert f"at most {MOST_LINE:,} bytes" in DESCRIPTION
    longest = b'{"number": 1, "exit_code": 7, "x": "' + b"x" * (MOST_LINE - 38) + b'"}'
    assert len(longest) == MOST_LINE
    assert AnswerReader(1).feed(longest + b"\n") == WarmAnswer(7)
    for piece in (b" ", b" \n", b"without an end"):
        reader = AnswerReader(1)
        assert reader.feed(longest) is None
        with pytest.raises(BadAnswerError, match=f"more than {MOST_LINE} bytes"):
            reader.feed(piece)
    with pytest.raises(BadAnswerError, match=f"more than {MOST_LINE} bytes"):
        AnswerReader(1).feed(b" " + longest + b"\n")


def test_the_program_in_the_description_runs(tmp_path: Path) -> None:
    """The lines of Python run, cold, with shared data under data/."""
    (tmp_path / "price.py").write_text(block("file price.py"), encoding="utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "curves").write_text("eur")
    (tmp_path / "book.csv").write_text("put")
    done = subprocess.run(
        [sys.executable, "price.py", "book.csv", "--scale"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "RAYGRID_JOB_ID": "book-1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "book-1 ('--scale',) {'curves': 'eur'}\n"
    assert (tmp_path / "prices.csv").read_text() == "PUT"


def test_a_line_is_one_line_whatever_is_in_it() -> None:
    """Line breaks, quotes and bytes that are no text arrive unchanged, and the line has no break."""
    spec = JobSpec("j", "p", "1", BlobSlice("", 0, 0, ""), args=("a\nb\r", '"x": "y"', "ü\u2028", "\udcff"))
    line = request(1, PreparedAttempt(AttemptId("j", 1), spec, WARM, 0, directory_at("/j", "/o", "/e"), BOX))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert tuple(json.loads(line.decode("utf-8", "surrogateescape"))["args"]) == spec.args
    assert line.count(b'"x": "y"') == 0


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_an_answer_may_come_in_pieces_of_any_size(size: int) -> None:
    """However the bytes are cut, the same answer is found, and only that of this job."""
    stream = b'noise\n{"number": 1, "exit_code": 9}\n\n[]\n{}\n"\xff\xfe\n'
    stream += b' {"exit_code": 3, "number": 2, "message": "x"}\nmore'
    reader, found = AnswerReader(2), None
    for start in range(0, len(stream), size):
        found = found or reader.feed(stream[start : start + size])
    assert found == WarmAnswer(3, None, "x")


def test_a_line_without_end_is_not_kept() -> None:
    """Memory stays bounded however much comes without a line break, and the line after it is read."""
    reader = AnswerReader(1)
    for _ in range(100):
        assert reader.feed(b"x" * MOST_LINE) is None
        assert len(reader._line) <= MOST_LINE
    assert reader.dropped == 100 * MOST_LINE
    assert reader.feed(b'{"number": 1, "exit_code": 1}\n{"number": 1, "exit_code": 2}\n') == WarmAnswer(2)


@pytest.mark.parametrize("line", [b"", b"null", b"7", b'"1"', b'{"number": 1}x', b'{"number": 1.0, "exit_code": 0}'])
def test_a_line_that_is_no_answer_is_ignored(line: bytes) -> None:
    """Anything but a JSON object with the job's own number is dropped, deep nesting included."""
    assert parse(line, 1) is None
    assert parse(b'{"a":' * 100_000, 1) is None


@pytest.mark.parametrize(
    "printed_text", ['"exit_code": "0"', '"exit_code": 256', '"exit_code": true', '"signal": 0', '"x": 1']
)
def test_a_meaningless_answer_of_this_job_is_refused(printed_text: str) -> None:
    """The pricer's author gets an error instead of a job that hangs."""
    with pytest.raises(BadAnswerError):
        parse(f'{{"number": 1, {printed_text}}}'.encode(), 1)


def test_answers_are_read_as_wait_statuses() -> None:
    """An exit code and a signal read as those of a process of the job's own."""
    import os

    assert os.waitstatus_to_exitcode(WarmAnswer(7).wait_status) == 7
    assert os.waitstatus_to_exitcode(WarmAnswer(0, 11).wait_status) == -11


def test_a_pricer_loads_nothing_of_the_grid() -> None:
    """`import raygrid.pricer` loads the standard library only, because every cold start pays for it."""
    code = (
        "import sys; before = set(sys.modules); import raygrid.pricer;"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)));"
        "print(*sorted(name for name in sys.modules if name.startswith('raygrid')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "raygrid\nraygrid raygrid.pricer\n"


@pytest.mark.parametrize(
    ("main", "code"),
    [("None", 0), ("5", 5), ("sys.exit(6)", 6), ("1 / 0", 1), ("os.kill(os.getpid(), 11)", -11)],
)
def test_a_cold_run_ends_as_the_program_does(tmp_path: Path, main: str, code: int) -> None:
    """Without a node around it, a program under `serve` has the exit code that it would have had without."""
    program = tmp_path / "p.py"
    program.write_text(f"import os, sys\nfrom raygrid.pricer import serve\nserve(lambda job: {main})\n")
    command = [sys.executable, str(program), "input"]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=60, check=False)
    assert done.returncode == code
    usage = subprocess.run(command[:2], env={"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=60, check=False)
    assert (usage.returncode, b"usage: " in usage.stderr) == (2, True)
