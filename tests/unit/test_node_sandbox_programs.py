"""The files that belong to a pricer's program, which `strict` lets it read without a setting."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raygrid.node.sandbox.plan import PRIVATE
from raygrid.node.sandbox.programs import ProgramSearch


def make(path: Path, text: str = "", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def found(place: Path, *command: str, path: str = "/usr/bin", inherited: str = "", **env: str) -> set[str]:
    """The files and directories below a place, relative to it, for a grid whose user has its home there."""
    search = ProgramSearch({"PATH": path, "LD_LIBRARY_PATH": inherited}, str(place / "home/desk"), PRIVATE)
    files = search.files_of(command, env)
    return {os.path.relpath(each, place) for each in files if each.startswith(f"{place}/")}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path.resolve()


def test_a_program_comes_with_its_directory(place: Path) -> None:
    """Libraries and modules lie beside it; files that the command only names come alone."""
    program = make(place / "home/desk/pricer/price", mode=0o755)
    curves = make(place / "home/desk/data/curves.csv")
    script = make(place / "home/desk/code/price.py")
    assert found(place, str(program), str(curves)) == {
        "home/desk/pricer/price",
        "home/desk/pricer",
        "home/desk/data/curves.csv",
    }
    assert found(place, "python3", str(script)) == {"home/desk/code/price.py", "home/desk/code"}


def test_a_home_directory_is_never_part_of_a_program(place: Path) -> None:
    """A program in it, or a directory `bin` in it, opens no other file of the user."""
    make(place / "home/desk/.profile")
    program = make(place / "home/desk/price", mode=0o755)
    in_bin = make(place / "home/desk/bin/price", mode=0o755)
    assert found(place, str(program)) == {"home/desk/price"}
    assert found(place, str(in_bin)) == {"home/desk/bin/price", "home/desk/bin"}
    for too_much in (place / "home/desk", place / "home", place):
        assert found(place, "ls", str(too_much)) == set()
        assert found(place, "ls", DATA=str(too_much)) == set()


def test_shared_directories_are_never_part_of_a_program() -> None:
    """Not even if the command names them."""
    search = ProgramSearch({}, "/home/desk", PRIVATE)
    named = ["/", "/srv", "/tmp", "/home/other"]
    assert {*named, "/usr"}.isdisjoint(search.files_of(["/usr/bin/ls", *named], {}))


def test_what_is_installed_beside_a_program_comes_with_it(place: Path) -> None:
    """A directory `bin` with its libraries, but not other files, such as keys in ~/.local/share."""
    tool = make(place / "home/desk/.local/bin/tool", mode=0o755)
    make(place / "home/desk/.local/lib/tool.so")
    make(place / "home/desk/.local/share/keys")
    assert found(place, str(tool)) == {
        "home/desk/.local/bin/tool",
        "home/desk/.local/bin",
        "home/desk/.local/lib",
    }


def test_a_virtual_environment_comes_with_its_python(place: Path) -> None:
    """Its link leads to an installation elsewhere, and its settings name that."""
    python = make(place / "pyenv/3.11/bin/python3.11", mode=0o755)
    make(place / "pyenv/3.11/lib/python3.11/os.py")
    make(place / "venv/pyvenv.cfg", f"home = {python.parent}\n")
    (place / "venv/bin").mkdir()
    link = place / "venv/bin/python"
    link.symlink_to(python)
    expected = {"venv", "venv/bin", "venv/bin/python", "pyenv/3.11/bin/python3.11", "pyenv/3.11/bin", "pyenv/3.11/lib"}
    assert found(place, str(link), "{input}") == expected
    assert found(place, "python", "{input}", path=f"/usr/bin:{link.parent}") == expected
    assert found(place, "python", "{input}", PATH=str(link.parent)) == expected
    assert found(place, "sh", "{input}", VIRTUAL_ENV=str(place / "venv")) == {
        "venv",
        "pyenv/3.11/bin",
        "pyenv/3.11/lib",
    }


@pytest.mark.parametrize("line", ["#!{python}", "#!/usr/bin/env python7", "#!/usr/bin/env -S python7 -u"])
def test_a_script_comes_with_its_interpreter(place: Path, line: str) -> None:
    """The first line names it, or has `env` look for it."""
    python = make(place / "opt/bin/python7", mode=0o755)
    script = make(place / "desk/price.sh", line.format(python=python) + "\n", mode=0o755)
    assert found(place, str(script), path=str(python.parent)) >= {"desk/price.sh", "opt/bin/python7", "opt/bin"}


def test_paths_in_options_lists_and_variables_are_read(place: Path) -> None:
    """Class paths, libraries and configuration; not what the home and temporary directories are."""
    for name in ("app.jar", "lib/a.jar", "native/q.so", "conf/x.ini", "libs/q.so", "scratch/x", "mine/x"):
        make(place / name)
    command = ["java", f"-Djava.library.path={place}/native", "-cp", f"{place}/app.jar:{place}/lib/*", "Pricer"]
    assert found(place, *command) >= {"native", "app.jar", "lib"}
    variables = {"CONF": f"{place}/conf/x.ini", "TMPDIR": f"{place}/scratch", "HOME": f"{place}/mine"}
    assert found(place, "sh", inherited=f"/usr/lib:{place}/libs", **variables) == {"libs", "conf/x.ini"}


def test_words_that_are_known_only_with_a_job_name_no_program(place: Path) -> None:
    """A client chooses the name of its input."""
    make(place / "x/price", mode=0o755)
    assert found(place, "sh", f"{place}/x/{{input}}") == set()
