"""Hard links that a pricer leaves: a result never contains a file that also has a name outside of the job directory."""

from __future__ import annotations

import hashlib
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from raygrid.blobs import data_key
from raygrid.models import AttemptId, AttemptReport, Outcome, SharedData
from raygrid.node.agent import NodeAgent
from raygrid.node.attempt import outputs
from raygrid.node.attempt.directory import JobDirectory
from raygrid.node.attempt.safe_paths import BadOutputError, descend
from raygrid.node.attempt.workspace import Workspace
from tests.support.lone_agent import SHELL, lone_agent, order, reports_of, unprotected

SECRET = b"of the grid"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the grid, which the pricer's user owns."""
    (tmp_path / "secret").write_bytes(SECRET)
    return tmp_path / "secret"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[JobDirectory]:
    """A job directory with the input `in.csv`."""
    places = Workspace(tmp_path / "root", "life")
    places.open()
    made = places.create(AttemptId("job", 1))
    made.write_input("in.csv", b"input")
    yield made
    places.close()


def read(directory: JobDirectory) -> dict[str, bytes]:
    """The files of the result, as they are read for the ZIP."""
    content = {}
    for file in directory.outputs():
        with file.open() as opened:
            content[file.name] = opened.read(file.size)
    return content


def test_a_link_to_a_file_elsewhere_is_bad_output(directory: JobDirectory, secret: Path) -> None:
    """The message names the link and the remedy."""
    os.link(secret, directory.path_of("x.csv"))
    with pytest.raises(BadOutputError, match=r"'x\.csv', a hard link to a file outside .* copy that file"):
        directory.outputs()


def test_a_link_in_place_of_the_input_is_bad_output(directory: JobDirectory, secret: Path) -> None:
    """The name of the input does not excuse it."""
    os.unlink(directory.path_of("in.csv"))
    os.link(secret, directory.path_of("in.csv"))
    with pytest.raises(BadOutputError, match=r"'in\.csv', a hard link"):
        directory.outputs()


def test_files_with_several_names_in_the_job_directory_are_all_in_the_result(directory: JobDirectory) -> None:
    """Also a second name of the input; the input itself, unchanged, is still not."""
    (directory.path / "sub").mkdir()
    Path(directory.path_of("a")).write_bytes(b"price")
    os.link(directory.path_of("a"), directory.path_of("sub/b"))
    os.link(directory.path_of("in.csv"), directory.path_of("copy.csv"))
    assert read(directory) == {"a": b"price", "sub/b": b"price", "copy.csv": b"input"}


def test_an_input_that_is_linked_elsewhere_is_not_blamed(directory: JobDirectory, tmp_path: Path) -> None:
    """It is no part of the result."""
    os.link(directory.path_of("in.csv"), tmp_path / "kept.csv")
    Path(directory.path_of("prices.csv")).write_bytes(b"price")
    assert read(directory) == {"prices.csv": b"price"}


def link_takes_the_name(path: str, secret: Path) -> None:
    os.unlink(path)
    os.link(secret, path)


def moved_file_takes_the_name(path: str, secret: Path) -> None:
    os.rename(secret, path)


@pytest.mark.parametrize("put", [link_takes_the_name, moved_file_takes_the_name])
def test_a_file_that_takes_the_name_after_the_check_is_not_read(
    directory: JobDirectory, secret: Path, put: Callable[[str, Path], None]
) -> None:
    """A daemon cannot have another file read than the one that was checked, even with only one name."""
    Path(directory.path_of("x.csv")).write_bytes(b"price")
    [found] = directory.outputs()
    put(directory.path_of(found.path), secret)
    with pytest.raises(BadOutputError, match=r"'x\.csv' was replaced, or got another hard link"):
        found.open()


def test_a_name_that_is_added_after_the_check_is_noticed(directory: JobDirectory, tmp_path: Path) -> None:
    """A link that is made between check and read leads out of the job directory, too."""
    Path(directory.path_of("x.csv")).write_bytes(b"price")
    [found] = directory.outputs()
    os.link(directory.path_of("x.csv"), tmp_path / "outside")
    with pytest.raises(BadOutputError, match="got another hard link"):
        found.open()


def test_a_link_that_is_moved_during_the_search_is_not_counted_twice(
    directory: JobDirectory, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that renames its only link while the node searches does not give the file a second name inside."""
    for name in ("a", "b"):
        (directory.path / name).mkdir()
    searched: list[str] = []

    def moves_the_link(top: int, name: str) -> int:
        if name and searched:
            time.sleep(0.02)  # more than a tick of the clock of file systems
            os.rename(directory.path / searched[-1] / "x", directory.path / name / "x")
        elif name:
            os.link(secret, directory.path / name / "x")
        searched.extend([name] if name else [])
        return descend(top, name)

    monkeypatch.setattr(outputs, "descend", moves_the_link)
    with pytest.raises(BadOutputError, match="a hard link to a file outside"):
        directory.outputs()
    assert sorted(searched) == ["a", "b"]


# --- whole attempts -------------------------------------------------------------------------------------------------


def contents(report: AttemptReport, agent: NodeAgent) -> dict[str, bytes]:
    """The files of a result."""
    assert report.result is not None, report.message
    with zipfile.ZipFile(BytesIO(agent._blobs.read_now(report.result))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.processes
async def test_an_attempt_that_leaves_a_link_ends_as_bad_output(tmp_path: Path, secret: Path) -> None:
    """Its result has what it printed, and nothing of the linked file; a failed pricer keeps its own reason."""
    agent = lone_agent(tmp_path, slots=1, pricers=unprotected(SHELL))  # a sandbox refuses the link
    agent.open()
    try:
        script = f"echo printed; ln {secret} x"
        agent.start(1, [order("links", script), order("fails", f"{script}; exit 3")])
        seen = {report.attempt.job_id: report for report in (await reports_of(agent, 2)).values()}
        assert seen["links"].outcome is Outcome.BAD_OUTPUT
        assert "'x', a hard link" in (seen["links"].message or "")
        assert (seen["fails"].outcome, seen["fails"].exit_code) == (Outcome.EXITED, 3)
        for report in seen.values():
            found = contents(report, agent)
            assert sorted(found) == ["manifest.json", "stderr.txt", "stdout.txt"]
            assert found["stdout.txt"] == b"printed\n"
            assert SECRET not in b"".join(found.values())
    finally:
        agent.close()


@pytest.mark.processes
async def test_shared_data_may_be_read_but_not_linked_into_the_result(tmp_path: Path) -> None:
    """The links below `data/` are the node's own; a job that links one of them elsewhere gets the remedy."""
    agent = lone_agent(tmp_path, slots=1)
    agent.open()
    digest = hashlib.sha256(b"curve").hexdigest()
    agent._blobs.put_now(data_key(digest), b"curve")
    curve = [SharedData("curve", digest, 5)]
    try:
        agent.start(
            1, [order("reads", "cp data/curve copy", data=curve), order("links", "ln data/curve x", data=curve)]
        )
        seen = {report.attempt.job_id: report for report in (await reports_of(agent, 2)).values()}
        assert contents(seen["reads"], agent)["copy"] == b"curve"
        assert seen["links"].outcome is Outcome.BAD_OUTPUT
        assert "copy that file instead of linking it" in (seen["links"].message or "")
    finally:
        agent.close()
