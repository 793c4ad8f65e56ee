"""Real pricers on real Ray, held against published answers."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import httpx
import pytest

from raygrid.client import Client
from raygrid.local import GridFile

ORE_CASES = [
    "academy_equity_option",
    "academy_ir_swap",
    "amc_fxtarf",
    "hw_calibration",
    "minimal_swaptions",
    "minimal_xva",
    "simm26",
]
ORE_BAD = ["bad_trade_type", "broken_xml", "corrupt_portfolio", "no_market_data"]


def test_the_book_of_published_prices_comes_back_within_tolerance(client: Client, reference_data: Path) -> None:
    """Every row of the published prices, a file for each kind, comes back from the grid within its tolerance."""
    with (reference_data / "quantlib" / "reference.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    books: dict[str, io.StringIO] = defaultdict(io.StringIO)
    for row in rows:
        book = books[row["kind"]]
        writer = csv.DictWriter(book, row.keys())
        if not book.tell():
            writer.writeheader()
        writer.writerow({**row, "expected": "", "tolerance": ""})
    results = client.map([book.getvalue().encode() for book in books.values()], pricer="quantlib").results(120)
    prices = {
        row["id"]: float(row["price"])
        for result in results
        for row in csv.DictReader(io.StringIO(result.text("prices.csv")))
    }
    outside = [row["id"] for row in rows if abs(prices[row["id"]] - float(row["expected"])) > float(row["tolerance"])]
    assert outside == []
    assert len(prices) == len(rows) >= 150


@pytest.mark.parametrize("case", ORE_CASES)
def test_ore_gives_its_published_output(case: str, client: Client, reference_data: Path, tmp_path: Path) -> None:
    """A published ORE case, submitted as its input ZIP, gives every expected file within ORE's own tolerances."""
    result = client.submit(reference_data / "ore" / case / "input.zip", pricer="ore").result(120)
    result.extract(tmp_path)
    compare = [sys.executable, str(reference_data / "ore" / "compare.py")]
    judged = subprocess.run(
        [*compare, str(reference_data / "ore" / case / "expected"), str(tmp_path / "Output")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert "OK" in judged.stdout


@pytest.mark.parametrize("case", ORE_BAD)
def test_a_bad_ore_input_ends_with_the_pricers_exit_code(case: str, ray_grid: GridFile, reference_data: Path) -> None:
    """The answer carries the pricer's message."""
    with (reference_data / "ore_bad" / case / "input.zip").open("rb") as file:
        answer = httpx.post(
            f"{ray_grid.url}/submit/bad-{case}", files={"file": file}, data={"pricer": "ore"}, timeout=120
        )
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["type"] == "urn:raygrid:problem:job-failed"
    assert problem["exit_code"] in (2, 3)
    assert problem["stderr_tail"].strip()
