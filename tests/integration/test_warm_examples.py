"""The example pricers, warm: QuantLib in Python and closed forms in C, each against itself run cold."""

from __future__ import annotations

import importlib.util
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raygrid.models import Outcome
from tests.support.warm import ROOT, WarmNode

EXAMPLES = ROOT / "examples"
ROWS = "id,type,strike,spot,q,r,t,vol\ncall,Call,95,100,0.02,0.05,0.75,0.2\nput,Put,95,100,0.02,0.05,0.75,0.2\n"


@pytest.mark.skipif(importlib.util.find_spec("QuantLib") is None, reason="the example needs QuantLib")
async def test_quantlib_stays_loaded(tmp_path: Path) -> None:
    """Every file of a book comes back as a cold run prices it, from one process; a bad file is an answer."""
    price = EXAMPLES / "quantlib" / "price.py"
    book = tmp_path / "book"
    make = [sys.executable, str(EXAMPLES / "quantlib" / "book.py"), str(book), "--files", "3", "--instruments", "4"]
    subprocess.run(make, check=True, capture_output=True, timeout=60)
    with WarmNode(tmp_path, "", command=(sys.executable, str(price))) as node:
        for number, path in enumerate(sorted(book.iterdir())):
            done = await node.run(path.stem, path.read_text())
            assert (done.report.outcome, done.manifest["warm_job"]) == (Outcome.EXITED, number + 1), done.stderr
            cold = [sys.executable, str(price), str(path), "--output", str(tmp_path / "cold.csv")]
            environment = {"PYTHONPATH": str(ROOT)}
            subprocess.run(cold, check=True, capture_output=True, timeout=60, env=environment)
            assert done.files["prices.csv"] == (tmp_path / "cold.csv").read_text()
        bad = await node.run("bad", "id,kind\n")
        assert (bad.report.exit_code, "no column named" in bad.stderr) == (2, True)
        named = await node.run("named", path.read_text(), args=("--output", "mine.csv"))
        assert (named.manifest["warm_job"], "mine.csv" in named.files) == (5, True)


@pytest.fixture(scope="module")
def black_scholes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C example, built by its own Makefile."""
    if not (shutil.which("cc") and shutil.which("make")):
        pytest.skip("the example needs a C compiler and make: cc and make")
    place = tmp_path_factory.mktemp("c")
    for name in ("Makefile", "black_scholes.c"):
        shutil.copy(EXAMPLES / "c" / name, place)
    build = ["make", "-C", str(place), "CFLAGS=-std=c11 -O2 -Wall -Wextra -Wpedantic -Werror"]
    subprocess.run(build, check=True, capture_output=True, timeout=60)
    return place / "black_scholes"


def price(*, call: bool, strike: float, spot: float, q: float, r: float, t: float, vol: float) -> float:
    """Black and Scholes, once more."""
    d1 = (math.log(spot / strike) + (r - q + vol**2 / 2) * t) / (vol * math.sqrt(t))
    sign = 1 if call else -1

    def below(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    in_spot = spot * math.exp(-q * t) * below(sign * d1)
    return sign * (in_spot - strike * math.exp(-r * t) * below(sign * (d1 - vol * math.sqrt(t))))


async def test_the_c_example_prices_warm_and_cold_alike(black_scholes: Path, tmp_path: Path) -> None:
    """The same program gives the right prices either way, and names the bad row on stderr."""
    (tmp_path / "input.csv").write_text(ROWS)
    cold = subprocess.run([str(black_scholes), "input.csv"], cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert (cold.returncode, cold.stderr) == (0, b"")
    lines = (tmp_path / "prices.csv").read_text().splitlines()
    for line, call in zip(lines[1:], (True, False), strict=True):
        expected = price(call=call, strike=95, spot=100, q=0.02, r=0.05, t=0.75, vol=0.2)
        assert float(line.split(",")[1]) == pytest.approx(expected, rel=1e-10)
    with WarmNode(tmp_path, "", command=(str(black_scholes),)) as node:
        for number in (1, 2):
            done = await node.run(f"job-{number}", ROWS, args=('"input": "/etc/passwd"',))
            assert done.report.exit_code == 0, done.stderr
            assert done.files["prices.csv"].splitlines() == lines
        bad = await node.run("bad", ROWS + "odd,Swap,1,1,0,0,1,0.2\nshort,Call\n")
        assert (bad.report.exit_code, sorted(bad.files)) == (2, ["manifest.json", "stderr.txt", "stdout.txt"])
        assert [line.partition(": ")[2] for line in bad.stderr.splitlines()] == [
            "the type is neither Call nor Put",
            "not as many cells as columns",
        ]
        assert bad.manifest["warm_job"] == 3
