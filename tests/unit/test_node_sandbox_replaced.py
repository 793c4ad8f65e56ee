"""A file of the grid that is replaced while sandboxes exist stays hidden from later attempts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raygrid.node.attempt.workspace import Workspace
from raygrid.node.sandbox import sandboxes as module
from raygrid.node.sandbox.mechanisms import probe
from raygrid.node.sandbox.no_sandbox import NoSandbox
from raygrid.node.sandbox.sandboxes import Sandboxes
from raygrid.settings.pricer import Pricer

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not probe().mounts, reason="this process may have no mount namespace; run as root"),
]

COLD = Pricer(command=("true",))
WARM = Pricer(command=("true",), mode="warm")


def replace(path: Path) -> None:
    """As editors do: write another file, and give it the name."""
    new = path.with_suffix(".new")
    new.write_text("the new key")
    new.replace(path)


@contextmanager
def opened(directory: Path, **paths: list[str]) -> Iterator[Sandboxes]:
    """The sandboxes of an agent that hides these paths, or makes them read-only."""
    workspace = Workspace(directory / "root", "life")
    workspace.open()
    sandboxes = Sandboxes(workspace, **paths)
    sandboxes.open()
    try:
        yield sandboxes
    finally:
        sandboxes.close()
        workspace.close()


@pytest.mark.parametrize("pricer", [COLD, WARM], ids=["cold", "warm"])
@pytest.mark.parametrize("change", [replace, lambda path: path.write_text("made now")], ids=["replaced", "made"])
def test_a_file_that_was_replaced_or_made_is_hidden_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pricer: Pricer, change: Callable[[Path], object]
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    secret = tmp_path / "grid.yaml"
    if change is replace:
        secret.write_text("the key")

    def seen(box: NoSandbox) -> str:
        def attempt() -> str:
            box.pricer_ended(left_nothing=True)
            return secret.read_text() if os.path.exists(secret) else ""

        return box.run(attempt)

    with opened(tmp_path, hidden=[str(secret)]) as sandboxes:
        first = sandboxes.take("p", pricer)
        assert seen(first) == ""
        sandboxes.give_back(first)
        assert sandboxes.take("p", pricer) is first
        idle = sandboxes.take("p", pricer)
        change(secret)
        sandboxes.give_back(first)
        sandboxes.give_back(idle)
        again = sandboxes.take("p", pricer)
        assert again is not first
        assert (pricer is COLD) == (not os.path.exists(idle.directory.path)), "an idle one has ended"
        assert seen(again) == ""
        sandboxes.give_back(again)


@pytest.mark.parametrize("change", [replace, lambda path: path.write_text("made now")], ids=["replaced", "made"])
def test_a_file_that_was_replaced_or_made_is_read_only_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    """A user edits the files that shells run at a login, or makes one."""
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    startup = tmp_path / ".bashrc"
    if change is replace:
        startup.write_text("before")

    def writes(box: NoSandbox) -> bool:
        def attempt() -> bool:
            box.pricer_ended(left_nothing=True)
            try:
                startup.open("a").close()
            except OSError:
                return False
            return True

        return box.run(attempt)

    with opened(tmp_path, read_only=[str(startup)]) as sandboxes:
        first = sandboxes.take("p", COLD)
        assert not startup.exists() or not writes(first)
        sandboxes.give_back(first)
        change(startup)
        again = sandboxes.take("p", COLD)
        assert again is not first
        assert not writes(again)
        sandboxes.give_back(again)


def test_the_settings_file_of_a_deployment_is_hidden_from_later_attempts(tmp_path: Path) -> None:
    """A deployment can name another file, with new keys; the earlier one stays hidden, too."""
    before, after = tmp_path / "before.yaml", tmp_path / "after.yaml"
    for file in (before, after):
        file.write_text("a key")

    def seen(box: NoSandbox) -> list[str]:
        def attempt() -> list[str]:
            box.pricer_ended(left_nothing=True)
            return [file.read_text() for file in (before, after)]

        return box.run(attempt)

    with opened(tmp_path, hidden=[str(before)]) as sandboxes:
        first = sandboxes.take("p", COLD)
        assert seen(first) == ["", "a key"]
        sandboxes.give_back(first)
        sandboxes.hide([str(before), str(after)])
        again = sandboxes.take("p", COLD)
        assert seen(again) == ["", ""]
        sandboxes.give_back(again)
        sandboxes.hide([str(after)])
        assert sandboxes.take("p", COLD) is again, "nothing new to hide"
        sandboxes.give_back(again)
