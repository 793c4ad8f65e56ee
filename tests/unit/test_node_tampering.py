"""Pricers that change what the node keeps beside their files: captures, directories, shared data.

Whatever they put there, the attempt gets its end, the slot goes on, and nothing outside of the job is read, published,
changed or removed. In a sandbox they reach none of that, so these pricers run without one.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import pytest

from raygrid.blobs import data_key
from raygrid.core.group.events import AttemptOrder
from raygrid.models import AttemptId, AttemptReport, Outcome, SharedData
from raygrid.node.agent import NodeAgent
from raygrid.node.attempt import captures
from raygrid.node.attempt.directory import JobDirectory
from raygrid.node.attempt.runner import Runner
from raygrid.node.attempt.safe_paths import BadOutputError, read_file, remove_tree
from raygrid.node.attempt.workspace import Workspace
from raygrid.node.limits import disk, watchdog
from raygrid.node.limits.allocated import Allocated, allocated
from tests.support.lone_agent import SHELL, lone_agent, order, reports_of, unprotected, wait_until

pytestmark = pytest.mark.processes


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[NodeAgent]:
    made = lone_agent(tmp_path, slots=1, pricers=unprotected(SHELL))
    made.open()
    yield made
    made.close()


async def run(agent: NodeAgent, script: str, job_id: str = "job", **more: Any) -> AttemptReport:
    """Run a script to its end, and then another job in the same slot, which must go well."""
    agent.start(1, [order(job_id, script, **more), order(f"after-{job_id}", "echo fine")])
    seen = {report.attempt.job_id: report for report in (await reports_of(agent, 2)).values()}
    assert seen[f"after-{job_id}"].exit_code == 0, seen[f"after-{job_id}"].message
    return seen[job_id]


# --- slots ----------------------------------------------------------------------------------------------------------


async def test_a_defect_of_the_node_costs_an_attempt_and_not_the_slot(
    agent: NodeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected error in an attempt is reported as infrastructure, and the slot takes the next one."""
    runs = Runner.run

    def breaks(self: Runner, given: AttemptOrder, *more: Any) -> object:
        if given.attempt.job_id == "job":
            raise RuntimeError("a defect")
        return runs(self, given, *more)

    monkeypatch.setattr(Runner, "run", breaks)
    report = await run(agent, "true")
    assert report.outcome is Outcome.INFRASTRUCTURE
    assert "node-1" in (report.message or "")
    assert "RuntimeError: a defect" in (report.message or "")


async def test_a_directory_that_cannot_be_removed_costs_neither_answer_nor_slot(
    agent: NodeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the disk during the clean-up does not change how the job ended."""
    removes = Workspace.remove

    def refuses(self: Workspace, directory: object) -> None:
        removes(self, directory)  # type: ignore[arg-type]  # passed on
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Workspace, "remove", refuses)
    report = await run(agent, "echo x")
    assert (report.outcome, report.exit_code) == (Outcome.EXITED, 0)
    assert report.attempt == AttemptId("job", 1)


# --- captures -------------------------------------------------------------------------------------------------------


def contents(report: AttemptReport, agent: NodeAgent) -> dict[str, bytes]:
    """The files of a result."""
    assert report.result is not None, report.message
    with zipfile.ZipFile(BytesIO(agent._blobs.read_now(report.result))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("which", ["stdout", "stderr"])
@pytest.mark.parametrize(
    "put",
    ["true", 'mkfifo "$capture"', 'ln -s "$secret" "$capture"', 'mkdir "$capture"', 'echo z > "$capture"'],
    ids=["nothing", "fifo", "link", "directory", "file"],
)
async def test_the_held_captures_count_whatever_has_their_name(
    agent: NodeAgent, tmp_path: Path, which: str, put: str
) -> None:
    """The node holds the files that it gave to the pricer; it follows no link."""
    secret = tmp_path / "secret"
    secret.write_text("of somebody else")
    number = 1 if which == "stdout" else 2
    tamper = f'secret={secret}; capture="$(readlink /proc/$$/fd/{number})"; rm "$capture"; {put}'
    report = await run(agent, f"echo before >&{number}; {tamper}; echo after >&{number}")
    assert (report.outcome, report.exit_code) == (Outcome.EXITED, 0)
    assert contents(report, agent)[f"{which}.txt"] == b"before\nafter\n"
    assert secret.read_text() == "of somebody else"
    assert list(agent._workspace.jobs.iterdir()) == []


async def test_a_pricer_that_failed_keeps_its_own_reason(agent: NodeAgent) -> None:
    """Its exit code and its last output are reported, whatever became of the name of its stderr."""
    report = await run(agent, 'echo why >&2; err="$(readlink /proc/$$/fd/2)"; rm "$err"; mkfifo "$err"; exit 3')
    assert (report.outcome, report.exit_code, report.stderr_tail) == (Outcome.EXITED, 3, "why\n")


async def test_direct_writes_to_stdout_are_read(agent: NodeAgent) -> None:
    """Output that bypasses the page cache, as of `dd oflag=direct`, is read all the same."""
    direct = "import os, fcntl; fcntl.fcntl(1, fcntl.F_SETFL, os.O_DIRECT)"
    report = await run(agent, f"echo price; {sys.executable} -c '{direct}'")
    assert (report.outcome, report.exit_code) == (Outcome.EXITED, 0)
    assert contents(report, agent)["stdout.txt"] == b"price\n"


async def test_the_outputs_of_two_jobs_are_never_mixed(agent: NodeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captures are used again while they are empty: whatever an earlier job did with its own, the next begins anew."""
    monkeypatch.setattr(captures, "MIN_FREE", 0)
    moves_on = f"{sys.executable} -c 'import os; os.lseek(1, 100, os.SEEK_SET)'"
    for number, job in enumerate((order("one", moves_on), order("two", "echo two"), order("three", "echo three"))):
        agent.start(1, [job])
        await reports_of(agent, number + 1)  # by then its captures are given back
    seen = {report.attempt.job_id: report for report in (await reports_of(agent, 3)).values()}
    printed = {job_id: contents(report, agent)["stdout.txt"] for job_id, report in seen.items()}
    assert printed == {"one": b"", "two": b"two\n", "three": b"three\n"}


async def test_a_large_result_is_not_written_through_a_pricers_link(agent: NodeAgent, tmp_path: Path) -> None:
    """Whatever names a pricer takes beside its directory, the ZIP gets a name that it cannot know."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    report = await run(agent, f'ln -s {precious} "$PWD@result"; head -c 5000000 /dev/zero > large')
    assert report.exit_code == 0, report
    assert len(contents(report, agent)["large"]) == 5_000_000
    assert precious.read_text() == "mine"


# --- directories ----------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A directory outside the grid."""
    (tmp_path / "elsewhere" / "deeper").mkdir(parents=True)
    for name in ("prices.csv", "deeper/more.csv", "job.sh"):
        (tmp_path / "elsewhere" / name).write_text("of somebody else")
    return tmp_path / "elsewhere"


def is_untouched(elsewhere: Path) -> bool:
    found = {str(path.relative_to(elsewhere)) for path in elsewhere.rglob("*") if path.is_file()}
    return found == {"prices.csv", "deeper/more.csv", "job.sh"} and all(
        (elsewhere / name).read_text() == "of somebody else" for name in found
    )


@pytest.mark.parametrize(
    "swap",
    [
        'mv "$here" "$here.away"; ln -s {elsewhere} "$here"',
        'rm -r "$here"; ln -s {elsewhere} "$here"',
        'mv "$here" {elsewhere}.away; ln -s {elsewhere} "$here"',
    ],
    ids=["moved", "removed", "moved-out"],
)
async def test_a_link_in_the_place_of_the_job_directory_is_bad_output(
    agent: NodeAgent, elsewhere: Path, swap: str
) -> None:
    """Nothing is published or removed where the link leads."""
    report = await run(agent, f'here="$PWD"; {swap.format(elsewhere=elsewhere)}')
    assert (report.outcome, is_untouched(elsewhere)) == (Outcome.BAD_OUTPUT, True)
    assert "the pricer replaced its job directory by a symbolic link" in (report.message or "")
    assert sorted(contents(report, agent)) == ["manifest.json", "stderr.txt", "stdout.txt"]
    assert not (agent._workspace.jobs / "job.1").is_symlink()


async def test_a_failed_pricers_link_is_not_followed_either(agent: NodeAgent, elsewhere: Path) -> None:
    """The directory is cleared up after any end."""
    report = await run(agent, f'here="$PWD"; rm -r "$here"; ln -s {elsewhere} "$here"; exit 3')
    assert (report.exit_code, is_untouched(elsewhere)) == (3, True)


@pytest.mark.parametrize("above", ['"$(dirname "$PWD")"', '"$(dirname "$(dirname "$PWD")")"'])
async def test_a_link_in_the_place_of_the_nodes_directories_is_replaced(
    agent: NodeAgent, elsewhere: Path, above: str
) -> None:
    """The culprit is unknown, so the attempt runs again; the node makes its directories anew."""
    report = await run(agent, f'above={above}; mv "$above" "$above.away"; ln -s {elsewhere} "$above"')
    assert (report.outcome, is_untouched(elsewhere)) == (Outcome.INFRASTRUCTURE, True)
    assert "jobs directory was replaced" in (report.message or "")
    assert not agent._workspace.jobs.is_symlink()
    assert not agent._workspace.jobs.parent.is_symlink()


def used(places: Workspace) -> JobDirectory:
    """A directory with an output below another directory."""
    directory = places.create(AttemptId("job", 1))
    (directory.path / "sub").mkdir()
    (directory.path / "sub" / "prices.csv").write_text("mine")
    return directory


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Workspace]:
    made = Workspace(tmp_path / "root", "life")
    made.open()
    yield made
    made.close()


def test_a_link_that_takes_the_place_of_a_directory_between_look_and_read_is_not_followed(
    places: Workspace, elsewhere: Path
) -> None:
    """A process that a pricer left behind cannot have another file published under the name of an output."""
    directory = used(places)
    [found] = directory.outputs()
    with read_file(found.path, found.dir_fd) as file:
        assert file.read() == b"mine"
    (directory.path / "sub").rename(directory.path / "away")
    (directory.path / "sub").symlink_to(elsewhere)
    with pytest.raises(BadOutputError, match=r"sub/prices\.csv"):
        read_file(found.path, found.dir_fd)


def test_the_target_of_a_link_is_never_removed(places: Workspace, elsewhere: Path) -> None:
    """Not by a link inside of a directory, nor in its place, nor in that of the directory around it."""
    directory = used(places)
    (directory.path / "sub" / "link").symlink_to(elsewhere)
    places.remove(directory)
    assert list(places.jobs.iterdir()) == []
    (places.jobs / "link").symlink_to(elsewhere)
    remove_tree(places.jobs / "link")
    assert list(places.jobs.iterdir()) == []
    places.jobs.rmdir()
    places.jobs.symlink_to(elsewhere)
    with pytest.raises(NotADirectoryError):
        remove_tree(places.jobs / "deeper")
    assert is_untouched(elsewhere)


def test_the_output_limit_counts_all_files_and_follows_no_link(tmp_path: Path, elsewhere: Path) -> None:
    """Links, pipes and locked directories neither stop its sum nor add to it."""
    capture = tmp_path / "capture"
    capture.symlink_to(elsewhere / "prices.csv")
    assert allocated([str(capture)]).written == 0
    capture.unlink()
    os.mkfifo(capture)
    assert allocated([str(capture)]).written == 0
    capture.unlink()
    capture.mkdir()
    (capture / "link").symlink_to(elsewhere)
    (capture / "file").write_bytes(b"x" * 7)
    assert allocated([str(capture)]).written == 7


async def test_after_a_failed_look_the_watchdog_looks_again(agent: NodeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits hold though a pricer made one look fail."""
    looks: list[str] = []

    def stumbles(where: str) -> Callable[..., NoReturn]:
        def look(*_: object, **__: object) -> NoReturn:
            looks.append(where)
            raise RuntimeError("a defect")

        return look

    monkeypatch.setattr(watchdog, "process_table", stumbles("at processes"))
    monkeypatch.setattr(disk, "allocated", stumbles("at the disk"))
    report = await run(agent, "sleep 100", timeout_s=2.5)
    assert (report.outcome, set(looks)) == (Outcome.TIMEOUT, {"at processes", "at the disk"})


async def test_after_a_failed_look_at_the_disk_it_is_looked_at_again(
    agent: NodeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output limit holds though a pricer made one look fail."""
    looks: list[None] = []

    def stumbles(paths: Iterable[str]) -> Allocated:
        looks.append(None)
        if len(looks) == 1:
            raise RuntimeError("a defect")
        return allocated(paths)

    monkeypatch.setattr(disk, "allocated", stumbles)
    agent._definitions.follow({"shell": SHELL["shell"].model_copy(update={"output": 1024**2})})
    report = await run(agent, "head -c 2000000 /dev/zero > out; sleep 100", timeout_s=30)
    assert (report.outcome, len(looks) > 1) == (Outcome.OUTPUT_LIMIT, True)


async def test_an_attempt_that_waited_for_its_turn_is_held_to_its_output_limit(agent: NodeAgent) -> None:
    """Files that it had before it began count for nothing once it runs."""
    agent._definitions.follow({"shell": SHELL["shell"].model_copy(update={"output": 1024**2})})
    with agent._suspect_turns.turn(lambda: False):
        agent.start(1, [replace(order("job", "cat /dev/zero > out", timeout_s=30), apart=True)])
        wait_until(lambda: AttemptId("job", 1) in agent._disk._usages)
    report = (await reports_of(agent, 1))[AttemptId("job", 1)]
    assert report.outcome is Outcome.OUTPUT_LIMIT


# --- shared data ----------------------------------------------------------------------------------------------------


async def test_a_job_with_changed_data_has_no_result_for_others(tmp_path: Path) -> None:
    """A result made with other content than its shared data is not recorded under that content; the next job's is."""
    reused = SHELL["shell"].model_copy(update={"reuse": "content"})
    agent = lone_agent(tmp_path, slots=1, pricers={"shell": reused})
    agent.open()
    digest = hashlib.sha256(b"right").hexdigest()
    agent._blobs.put_now(data_key(digest), b"right")
    curve = SharedData("curve", digest, 5)
    bad = "sleep 0.05; touch -r data/curve kept; chmod 644 data/curve; printf wrong > data/curve; "
    bad += "touch -r kept data/curve"
    try:
        agent.start(1, [order("bad", bad, data=[curve]), order("good", "cat data/curve", data=[curve])])
        reports = {each.attempt.job_id: each for each in (await reports_of(agent, 2)).values()}
        assert contents(reports["good"], agent)["stdout.txt"] == b"right"
    finally:
        agent.close()
    assert [each.exit_code for each in reports.values()] == [0, 0]
    assert reports["bad"].content is None
    assert reports["good"].content is not None
