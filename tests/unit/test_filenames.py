"""Names of files: which are possible, and that a client's form carries each of them unchanged."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raygrid.client.form import MultipartForm
from raygrid.client.upload import InputUpload
from raygrid.errors import InvalidRequestError
from raygrid.parent.http.part_headers import part_head
from raygrid.system.filenames import last_component, problem_of_input, problem_of_name, problem_on_windows


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("trade.csv", None),
        ("取引\u3000\u00a0\u202f\u200b\u200d\ufeff\u2028\u2029\u202e.csv", None),
        ("👩\u200d👩\u200d👧", None),
        ('a"b\\c%22', None),
        ("\n", "has a control character, '\\n'"),
        ("a\x7f", "has a control character, '\\x7f'"),
        ("a\x80", "has a control character, '\\x80'"),
        ("a\x9f", "has a control character, '\\x9f'"),
        ("a\udcff", "is not UTF-8"),
    ],
)
def test_only_control_characters_and_what_is_not_utf8_are_refused(name: str, problem: str | None) -> None:
    """Every other character may be in a name."""
    assert problem_of_name(name) == problem
    assert problem_of_input(name) == problem


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("out/greeks.csv", None),
        ("取引 1.csv", None),
        ("console/com.csv", None),
        ("a.b/.c", None),
        ("..%5C..%5Cx.exe", None),
        ("..\\..\\x.exe", "has the character '\\\\'"),
        ("C:x", "has the character ':'"),
        ("C:%5Cout/y", "has the character ':'"),
        ("price.csv:hidden", "has the character ':'"),
        ("a?", "has the character '?'"),
        ("out./x", "ends with '.'"),
        ("x.csv ", "ends with ' '"),
        ("../x", "ends with '.'"),
        ("out/nul", "is a device"),
        ("NUL.tar.gz", "is a device"),
        ("com¹ .txt", "is a device"),
        ("CONIN$", "is a device"),
    ],
)
def test_paths_that_windows_would_lead_elsewhere_are_known(path: str, problem: str | None) -> None:
    """Other drives, streams of files, devices, and names that Windows changes."""
    found = problem_on_windows(path)
    assert (found is None) == (problem is None)
    assert (problem or "") in (found or "")


def test_the_longest_name_is_that_of_file_systems() -> None:
    """255 bytes are possible for an input, and not one more; a path among outputs may be longer."""
    assert problem_of_input("é" * 127 + "a") is None
    assert problem_of_input("é" * 128) == "has 256 bytes; at most 255 are possible"
    assert problem_of_name("é/" * 1_000) is None


def test_directories_are_left_out() -> None:
    """The last component counts, whichever separator is used."""
    paths = ["C:\\Users\\me\\book.csv", "../book.csv", "a/b\\book.csv", "book.csv", "\\\\server\\book.csv"]
    assert {last_component(path) for path in paths} == {"book.csv"}


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60))
def test_a_form_carries_every_name(name: str) -> None:
    """The name that a client gives is the name that a parent reads, quotes, backslashes and percents included."""
    form = MultipartForm([], [("file", InputUpload.of(b"x", name))])
    line = b"".join(form.chunks()).split(b"\r\n")[1]
    assert part_head({b"content-disposition": line.partition(b": ")[2]}).filename == name


@pytest.mark.parametrize("name", ["a\nb.csv", "a\u0085.csv", "n" * 256, "\udcff.csv"])
def test_a_client_refuses_a_name_before_anything_is_sent(tmp_path: Path, name: str) -> None:
    """The error names the file, whether it is a path, a file object or a name that was chosen."""
    for what, chosen in ((b"x", name), (io.BytesIO(b"x"), name)):
        with pytest.raises(InvalidRequestError, match="an input cannot be named"):
            InputUpload.of(what, chosen)
    if len(name) > 255:
        return
    path = tmp_path / name
    path.write_bytes(b"x")
    with pytest.raises(InvalidRequestError, match="an input cannot be named"):
        InputUpload.of(path)
    with path.open("rb") as file, pytest.raises(InvalidRequestError, match="an input cannot be named"):
        InputUpload.of(file)
    assert InputUpload.of(path, "other.csv").filename == "other.csv"


@pytest.mark.parametrize("locale", ["C", "en_US.ISO-8859-1", "C.UTF-8"])
def test_a_name_does_not_depend_on_the_locale(tmp_path: Path, locale: str) -> None:
    """A file whose name is UTF-8 has that name for the grid, whatever locale a client runs in."""
    path = tmp_path / "取引.csv"
    path.write_bytes(b"x")
    code = (
        "import os, sys; from raygrid.client.upload import InputUpload; "
        "print(ascii(InputUpload.of(sys.argv[1]).filename))"
    )
    variables = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = subprocess.run([sys.executable, "-c", code, path], env=variables, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ascii("取引.csv")
