"""The QuantLib example: its prices against published tables, its refusals, and the book it is fed with."""

from __future__ import annotations

import csv
import importlib.util
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "quantlib"
HEADER = "id,kind,type,strike,spot,q,r,t,vol,extra"
GOOD_ROW = "good,european,Call,100,100,0.02,0.05,1,0.2,"

pytestmark = [
    pytest.mark.computing,
    pytest.mark.skipif(
        importlib.util.find_spec("QuantLib") is None, reason="the example needs QuantLib, which is not installed"
    ),
]


def run_price(directory: Path, source: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run price.py on `source` in `directory`."""
    command = [sys.executable, str(EXAMPLE / "price.py"), str(source), *options]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)


def run_book(directory: Path, *options: str) -> list[Path]:
    """Run book.py into `directory`; the files it has written."""
    command = [sys.executable, str(EXAMPLE / "book.py"), str(directory), *options]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return sorted(directory.iterdir())


def instrument_file(directory: Path, *rows: str) -> Path:
    """Write a file of the given rows under the usual header."""
    path = directory / "input.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file by column name."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def prices(directory: Path, *rows: str) -> dict[str, dict[str, str]]:
    """Price the given rows; the output rows by id."""
    done = run_price(directory, instrument_file(directory, *rows))
    assert done.returncode == 0, done.stderr
    return {row["id"]: row for row in read(directory / "prices.csv")}


@pytest.fixture
def instruments() -> Iterator[ModuleType]:
    """The module of the example that reads instrument files, under a name of its own."""
    name = "example_quantlib_instruments"
    spec = importlib.util.spec_from_file_location(name, EXAMPLE / "instruments.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


def test_every_reference_price_is_met(tmp_path: Path, reference_data: Path) -> None:
    """Every published price is met within its tolerance."""
    reference = read(reference_data / "quantlib" / "reference.csv")
    done = run_price(tmp_path, reference_data / "quantlib" / "reference.csv")
    assert done.returncode == 0, done.stderr
    priced = read(tmp_path / "prices.csv")
    assert [row["id"] for row in priced] == [row["id"] for row in reference]
    off = [
        f"{known['id']}: {found['price']} instead of {known['expected']}"
        for known, found in zip(reference, priced, strict=True)
        if not abs(float(found["price"]) - float(known["expected"])) <= float(known["tolerance"])
    ]
    assert off == []
    assert len(priced) >= 300


def test_expected_prices_are_not_looked_at(tmp_path: Path, reference_data: Path) -> None:
    """The output does not depend on the column of expected prices."""
    rows = read(reference_data / "quantlib" / "reference.csv")
    without = tmp_path / "without.csv"
    with without.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HEADER.split(","), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    run_price(tmp_path, reference_data / "quantlib" / "reference.csv", "--output", "with-out.csv")
    run_price(tmp_path, without, "--output", "without-out.csv")
    assert (tmp_path / "with-out.csv").read_bytes() == (tmp_path / "without-out.csv").read_bytes()


def test_sensitivities_are_slopes_of_the_price(tmp_path: Path) -> None:
    """Delta, vega and rho are the slopes of the price, whether from the engine or from moved quotes."""
    contracts = {
        "european": ("european,Call", ""),
        "american": ("american_fd,Put", ""),
        "barrier": ("double_barrier,Call", "barrierType=KnockOut;barrierLo=70;barrierHi=140"),
        "asian": (
            "asian_arith_levy,Put",
            "average=Arithmetic;currentAverage=99;lengthDays=360;elapsedDays=0",
        ),
        "basket": ("basket2,Call", "basket=Max;spot2=95;q2=0.01;vol2=0.3;rho=0.4"),
    }
    moves = {
        "here": (100, 0.05, 0.2),
        "spot-": (99.5, 0.05, 0.2),
        "spot+": (100.5, 0.05, 0.2),
        "vol-": (100, 0.05, 0.195),
        "vol+": (100, 0.05, 0.205),
        "r-": (100, 0.0495, 0.2),
        "r+": (100, 0.0505, 0.2),
    }
    found = prices(
        tmp_path,
        *(
            f"{name} {move},{kind_and_type},102,{spot},0.02,{r},1,{vol},{extra}"
            for name, (kind_and_type, extra) in contracts.items()
            for move, (spot, r, vol) in moves.items()
        ),
    )
    for name in contracts:
        for sensitivity, moved, width in (("delta", "spot", 1.0), ("vega", "vol", 0.01), ("rho", "r", 0.001)):
            above, below = (float(found[f"{name} {moved}{side}"]["price"]) for side in "+-")
            slope = pytest.approx((above - below) / width, rel=5e-3)
            assert float(found[f"{name} here"][sensitivity]) == slope, (name, sensitivity)


def test_a_row_is_priced_as_if_it_stood_alone(tmp_path: Path) -> None:
    """The order of rows changes none of them, although all are priced in one market that moves."""
    rows = [
        GOOD_ROW,
        "other,european,Put,50,40,0,0.01,2,0.4,",
        "grid,american_fd,Put,100,95,0,0.06,0.5,0.4,",
        "basket,basket2,Call,95,100,0.01,0.04,0.5,0.3,basket=Max;spot2=95;q2=0.01;vol2=0.3;rho=0.4",
        "spread,spread_kirk,Call,5,122,0,0.05,1,0.2,basket=Spread;spot2=120;q2=0;vol2=0.2;rho=0.5",
    ]
    assert prices(tmp_path, *rows) == prices(tmp_path, *reversed(rows))


def test_no_slope_is_taken_across_a_running_extreme(tmp_path: Path) -> None:
    """Delta and gamma stay empty where a lower spot would itself be the new lowest."""
    found = prices(
        tmp_path,
        "at,lookback_floating,Call,,100,0.02,0.05,1,0.2,minmax=100",
        "off,lookback_floating,Call,,100,0.02,0.05,1,0.2,minmax=90",
    )
    assert found["at"]["delta"] == found["at"]["gamma"] == ""
    assert float(found["off"]["delta"]) > 0.0


def test_every_bad_cell_is_named_with_line_and_id(tmp_path: Path) -> None:
    """A file with bad cells ends in exit code 2 and one message for each, naming line, id and problem."""
    source = instrument_file(
        tmp_path,
        GOOD_ROW,
        "word,european,Call,100,x,0.02,0.05,1,0.2,",
        "nan,european,Call,100,100,0.02,nan,1,0.2,",
        "negative,european,Call,100,100,0.02,0.05,1,-0.2,",
        "percent,european,Call,100,100,0.02,0.05,1,20,",
        "past,european,Call,100,100,0.02,0.05,-1,0.2,",
        "short,european,Call,100",
        "extra,european,Call,100,100,0.02,0.05,1,0.2,barrier",
        GOOD_ROW,
    )
    done = run_price(tmp_path, source)
    assert done.returncode == 2
    problems = (
        (3, "word", "column spot is not a number: 'x'"),
        (4, "nan", "column r is not a finite number: 'nan'"),
        (5, "negative", "column vol is -0.2, outside"),
        (6, "percent", "column vol is 20, outside"),
        (7, "past", "column t is -1, outside"),
        (8, "short", "4 cells under 10 column names"),
        (9, "extra", "expected name=value, found 'barrier'"),
        (10, "good", "id already used on"),
    )
    messages = done.stderr.splitlines()
    assert len(messages) == len(problems)
    for message, (line, name, problem) in zip(messages, problems, strict=True):
        assert message.startswith(f"{source}:{line}: {name}")
        assert problem in message
    assert not (tmp_path / "prices.csv").exists()


def test_every_row_that_means_nothing_is_named(tmp_path: Path) -> None:
    """Well-formed rows that describe no contract end in exit code 2 and one message for each."""
    market = "100,100,0.02,0.05,1,0.2"
    double = "barrierType=KnockOut;barrierLo=120;barrierHi=140"
    same_rates = "100,100,0.05,0.05,1,0.2"
    source = instrument_file(
        tmp_path,
        GOOD_ROW,
        f"kind,swap,Call,{market},",
        f"type,european,call,{market},",
        "strike,european,Call,,100,0.02,0.05,1,0.2,",
        f"lacking,barrier,Call,{market},barrierType=DownOut",
        f"unknown,barrier,Call,{market},barrierType=DownOut;barrier=90;rebait=3",
        f"choice,barrier,Call,{market},barrierType=Down;barrier=90",
        f"outside,double_barrier,Call,{market},{double}",
        f"state,lookback_fixed,Call,{market},minmax=90",
        f"carry,lookback_fixed,Call,{same_rates},minmax=100",
        f"late,compound,Call,{market},motherType=Call;motherStrike=5;tMother=1.5",
    )
    done = run_price(tmp_path, source)
    assert done.returncode == 2
    problems = (
        "unknown kind; known are american_baw",
        "column type is 'call', expected Call or Put",
        "column strike is empty",
        "extra has no barrier=",
        "extra has rebait, but barrier takes",
        "extra barrierType is 'Down', expected one of",
        "needs a call's strike above barrierLo",
        "lies below today's",
        "divide by r - q",
        "extra tMother is 1.5, outside",
    )
    messages = done.stderr.splitlines()
    assert len(messages) == len(problems)
    for line, (message, problem) in enumerate(zip(messages, problems, strict=True), start=3):
        assert message.startswith(f"{source}:{line}: ")
        assert problem in message
    assert not (tmp_path / "prices.csv").exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot read"),
        (b"", "the file is empty"),
        (f"{HEADER}\n".encode(), "no instruments"),
        (f"{HEADER.replace(',vol', '')}\n{GOOD_ROW}\n".encode(), "no column named vol"),
        (b"\xff\xfe\x00id", "not a CSV file in UTF-8"),
    ],
    ids=["missing", "empty", "only a header", "without a column", "not text"],
)
def test_an_unusable_file_is_bad_input(
    tmp_path: Path, instruments: ModuleType, content: bytes | None, problem: str
) -> None:
    """A file without usable rows is refused as bad input, in a message that begins with its path."""
    source = tmp_path / "input.csv"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(instruments.BadInstrumentError) as refused:
        instruments.read_instruments(source)
    assert str(refused.value).startswith(f"{source}:")
    assert problem in str(refused.value)


def test_an_empty_file_ends_in_exit_code_2(tmp_path: Path) -> None:
    """Bad input ends in exit code 2 with one message and no traceback."""
    source = tmp_path / "input.csv"
    source.touch()
    done = run_price(tmp_path, source)
    assert (done.returncode, done.stderr) == (2, f"{source}: the file is empty\n")


def test_a_failure_inside_quantlib_leaves_earlier_results_alone(tmp_path: Path) -> None:
    """A row that QuantLib refuses ends in exit code 3 with its reason, and no output is touched."""
    source = instrument_file(
        tmp_path,
        GOOD_ROW,
        "touched,barrier,Call,100,100,0.02,0.05,1,0.2,barrierType=DownOut;barrier=110",
    )
    (tmp_path / "prices.csv").write_text("earlier\n", encoding="utf-8")
    done = run_price(tmp_path, source)
    assert done.returncode == 3
    assert done.stderr == f"{source}:3: touched (barrier): QuantLib: barrier touched\n"
    assert (tmp_path / "prices.csv").read_text(encoding="utf-8") == "earlier\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input.csv", "prices.csv"]


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """An output path in a directory that does not exist ends in exit code 1 and a message."""
    done = run_price(tmp_path, instrument_file(tmp_path, GOOD_ROW), "--output", "nowhere/prices.csv")
    assert done.returncode == 1
    assert done.stderr == "nowhere/prices.csv: cannot write: No such file or directory\n"


def test_the_same_seed_writes_the_same_book(tmp_path: Path) -> None:
    """Files of a book depend on the seed and their number, not on how many there are."""
    book = run_book(tmp_path / "book", "--files", "9", "--instruments", "6", "--seed", "5")
    again = run_book(tmp_path / "again", "--files", "4", "--instruments", "6", "--seed", "5")
    other = run_book(tmp_path / "other", "--files", "4", "--instruments", "6", "--seed", "6")
    assert len(book) == 9
    assert [path.read_bytes() for path in book[:4]] == [path.read_bytes() for path in again]
    assert all(one.read_bytes() != two.read_bytes() for one, two in zip(book, other, strict=False))


def test_the_example_book_prices_and_holds_every_kind(tmp_path: Path) -> None:
    """The book of default size is priced without exception, and every known kind stands in it."""
    files = run_book(tmp_path / "book")
    assert len(files) == 40
    lines = [path.read_text(encoding="utf-8").splitlines() for path in files]
    assert {content[0] for content in lines} == {HEADER}
    rows = [row for content in lines for row in content[1:]]
    assert len(rows) == 1000

    found = prices(tmp_path, *rows)
    assert len(found) == 1000
    assert all(math.isfinite(float(row["price"])) for row in found.values())

    refusal = run_price(tmp_path, instrument_file(tmp_path, GOOD_ROW.replace("european", "no such kind")))
    known = re.search(r"known are (.*)", refusal.stderr)
    assert known is not None
    assert {row["kind"] for row in found.values()} == set(known[1].split(", "))
