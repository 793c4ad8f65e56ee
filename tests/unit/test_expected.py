"""Files that a pricer must leave: names that settings refuse, and what counts as missing."""

from __future__ import annotations

import pytest

from raygrid.errors import SettingsError
from raygrid.settings.expected_files import missing_files, missing_message
from raygrid.settings.model import load_settings

FILES = [("prices.csv", 10), ("out/a.csv", 1), ("out/deep/b.csv", 1), ("empty.csv", 0), ("odd[1].csv", 5)]


@pytest.mark.parametrize(
    ("expect", "lacking"),
    [
        ([], []),
        (["prices.csv"], []),
        (["prices.csv", "risk.csv"], ["risk.csv"]),
        (["Prices.csv"], ["Prices.csv"]),
        (["*.csv", "out/*.csv"], []),
        (["*/b.csv", "out/*/b.csv"], ["*/b.csv"]),
        (["empty.csv"], ["empty.csv"]),
        (["e*.csv"], ["e*.csv"]),
        (["odd[1].csv"], []),
        (["odd[[]?].csv"], []),
        (["[a-m]*.csv"], ["[a-m]*.csv"]),
    ],
)
def test_missing_are_names_and_patterns_without_a_file_that_has_content(expect: list[str], lacking: list[str]) -> None:
    """A pattern stays within one directory, case counts, a name is also taken literally, empty files do not count."""
    assert missing_files(expect, FILES) == lacking


def test_the_sentence_names_the_files_and_what_to_check() -> None:
    """An empty file is called empty, a long list is cut, and the lost wineserver is mentioned."""
    text = missing_message(["empty.csv", "risk.csv"], FILES)
    assert "did not leave empty.csv (empty), risk.csv, which" in text
    assert "stderr" in text
    assert "wineserver" in text
    assert "f9 and 2 more" in missing_message([f"f{n}" for n in range(12)], [])


@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("", "an empty name"),
        ("/tmp/prices.csv", "is an absolute path"),
        ("../prices.csv", "is not a plain path"),
        ("out/../prices.csv", "is not a plain path"),
        ("./prices.csv", "is not a plain path"),
        ("out//prices.csv", "is not a plain path"),
        ("out/", "is not a plain path"),
        ("..", "is not a plain path"),
        ("a\0b", "such as a NUL"),
        ("a\nb", "a control character"),
        ("\ud800", "a control character"),
        ("out\\prices.csv", "write '/'"),
        ("stdout.txt", "always written by the grid"),
        ("manifest.json", "always written by the grid"),
        ("data/curves", "shared inputs"),
        ("x" * 256, "more than 255 bytes"),
    ],
)
def test_a_name_that_no_result_can_have_is_refused(name: str, fragment: str) -> None:
    """The settings say at once what is wrong with it, and for which pricer."""
    with pytest.raises(SettingsError, match=r"pricers\.p\.expect") as refused:
        load_settings(pricers={"p": {"command": "./p {input}", "expect": [name]}})
    assert fragment in str(refused.value)


def test_expected_files_are_a_list_of_names() -> None:
    """Spaces, kanji, patterns and directories are allowed; a lone text is not a list; too many are refused."""
    names = ["my prices.csv", "価格.csv", "out/*.csv", "...", "data.csv"]
    settings = load_settings(pricers={"p": {"command": "./p {input}", "expect": names, "mode": "cold"}})
    assert settings.pricers["p"].expect == tuple(names)
    for wrong, fragment in (("prices.csv", "must be a list"), ([f"f{n}" for n in range(101)], "more than 100 names")):
        with pytest.raises(SettingsError, match=fragment):
            load_settings(pricers={"p": {"command": "./p {input}", "expect": wrong}})
