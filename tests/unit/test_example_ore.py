"""The ORE example: its results against ORE's published ones, its failures, and the archives it refuses."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.computing

EXAMPLE = Path(__file__).parents[2] / "examples" / "ore"

needs_ore = pytest.mark.skipif(
    importlib.util.find_spec("ORE") is None, reason="needs open-source-risk-engine, which is not installed"
)


def run_ore(directory: Path, archive: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run run_ore.py on `archive` in `directory`."""
    command = [sys.executable, str(EXAMPLE / "run_ore.py"), *options, str(archive)]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def example_module(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """One module of the example, under a name of its own."""
    name = f"example_ore_{request.param}"
    spec = importlib.util.spec_from_file_location(name, EXAMPLE / f"{request.param}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


def with_module(name: str) -> pytest.MarkDecorator:
    """Give the test the module `name` of the example."""
    return pytest.mark.parametrize("example_module", [name], indirect=True)


@needs_ore
@pytest.mark.parametrize(
    "case",
    [
        "academy_equity_option",
        "academy_ir_swap",
        "amc_fxtarf",
        "hw_calibration",
        "minimal_swaptions",
        "minimal_xva",
        "simm26",
    ],
)
def test_published_results_are_met(tmp_path: Path, reference_data: Path, case: str) -> None:
    """The published results of an ORE example are met, and nothing but the output directory is left."""
    folder = reference_data / "ore" / case
    done = run_ore(tmp_path, folder / "input.zip")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["Output"]
    met = compared(reference_data, case, tmp_path)
    assert met.returncode == 0, met.stdout
    assert met.stdout.count("OK ") == len(list((folder / "expected").iterdir()))


@needs_ore
@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("bad_trade_type", "trade Swap_20y (Nonsense): Error parsing Trade XML"),
        ("broken_xml", "Input/ore.xml: RapidXML Parse Error"),
        ("corrupt_portfolio", "Portfolio does not contain any built trades"),
        ("no_market_data", "error opening file Input/market.txt"),
    ],
)
def test_a_failed_run_has_a_reason(tmp_path: Path, reference_data: Path, case: str, reason: str) -> None:
    """A run whose failure ORE does not report by its exit code ends in exit code 3 with ORE's own message."""
    done = run_ore(tmp_path, reference_data / "ore_bad" / case / "input.zip")
    assert done.returncode == 3
    assert done.stderr.startswith("ORE failed: ")
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "Input").exists()


def changed(archive: Path, directory: Path, member: str, old: str, new: str) -> Path:
    """A copy of an archive in which one member has another text."""
    with zipfile.ZipFile(archive) as source:
        members = {name: source.read(name).decode("latin-1") for name in source.namelist() if not name.endswith("/")}
    assert old in members[member]
    return zip_file(directory, {**members, member: members[member].replace(old, new)})


def compared(reference_data: Path, case: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """The comparison of the output in `directory` with the published results of a case."""
    ore = reference_data / "ore"
    command = [sys.executable, str(ore / "compare.py"), str(ore / case / "expected"), "Output"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)


@needs_ore
def test_a_netting_set_without_a_definition_does_not_fail_a_run(tmp_path: Path, reference_data: Path) -> None:
    """ORE treats it as one without collateral, so all published results are met; stderr mentions it."""
    job = tmp_path / "job"
    job.mkdir()
    archive = reference_data / "ore" / "minimal_xva" / "input.zip"
    done = run_ore(job, changed(archive, tmp_path, "Input/netting.xml", "CPTY_A", "ANOTHER"))
    assert done.returncode == 0, done.stderr
    assert "ORE continued after: trade Swap_20y (Swap): Netting set definition is not found." in done.stderr
    assert "ORE failed" not in done.stderr
    met = compared(reference_data, "minimal_xva", job)
    assert met.returncode == 0, met.stdout


BAD_TRADE = """  <Trade id="Odd">
    <TradeType>Nonsense</TradeType>
    <Envelope><CounterParty>CPTY_A</CounterParty><NettingSetId>CPTY_A</NettingSetId></Envelope>
  </Trade>
</Portfolio>"""


@needs_ore
def test_an_incomplete_portfolio_is_accepted_on_request_only(tmp_path: Path, reference_data: Path) -> None:
    """The other trades have their published results, and the result lists the one that is missing."""
    job = tmp_path / "job"
    job.mkdir()
    case = reference_data / "ore" / "minimal_swaptions"
    with_one_more = changed(case / "input.zip", tmp_path, "Input/portfolio_swaptions.xml", "</Portfolio>", BAD_TRADE)
    refused = run_ore(job, with_one_more)
    assert refused.returncode == 3
    assert "ORE failed: trade Odd (Nonsense): Error parsing Trade XML" in refused.stderr
    done = run_ore(job, with_one_more, "--accept-incomplete")
    assert done.returncode == 0, done.stderr
    assert "ORE left out: trade Odd (Nonsense): Error parsing Trade XML" in done.stderr
    header, row = (job / "missing_trades.csv").read_text().splitlines()
    assert header == "trade,type,reason"
    assert row.startswith("Odd,Nonsense,Error parsing Trade XML: ")
    [published] = (case / "expected").iterdir()
    [npvs] = job.rglob(published.name)
    priced = {line.split(",")[0]: line.split(",")[4] for line in npvs.read_text().splitlines()}
    assert priced.pop("Odd") == "#N/A"
    assert priced == {line.split(",")[0]: line.split(",")[4] for line in published.read_text().splitlines()}


@needs_ore
def test_a_complete_portfolio_has_an_empty_list(tmp_path: Path, reference_data: Path) -> None:
    """The list is there and has no row; a portfolio of which no trade is left is no success."""
    done = run_ore(tmp_path, reference_data / "ore" / "academy_ir_swap" / "input.zip", "--accept-incomplete")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "missing_trades.csv").read_text().splitlines() == ["trade,type,reason"]
    done = run_ore(tmp_path, reference_data / "ore_bad" / "bad_trade_type" / "input.zip", "--accept-incomplete")
    assert done.returncode == 3
    assert "ORE failed: ORE can build none of the 1 trades, such as Swap_20y Nonsense" in done.stderr


@needs_ore
def test_an_earlier_failure_does_not_count_against_the_next_run(tmp_path: Path, reference_data: Path) -> None:
    """A good run after a failed one in the same directory succeeds, although ORE leaves the old log there."""
    assert run_ore(tmp_path, reference_data / "ore_bad" / "bad_trade_type" / "input.zip").returncode == 3
    done = run_ore(tmp_path, reference_data / "ore" / "academy_ir_swap" / "input.zip")
    assert (done.returncode, done.stderr) == (0, "")


@needs_ore
def test_results_may_not_leave_the_current_directory(tmp_path: Path) -> None:
    """An ore.xml that would write elsewhere is refused with exit code 2, before anything is written."""
    settings = '<ORE><Setup><Parameter name="outputPath">../elsewhere</Parameter></Setup></ORE>'
    job = tmp_path / "job"
    job.mkdir()
    done = run_ore(job, zip_file(tmp_path, {"Input/ore.xml": settings}))
    assert done.returncode == 2
    assert "'../elsewhere' must be in the current directory" in done.stderr
    assert not (tmp_path / "elsewhere").exists()
    assert list(job.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        (b"not a zip", "not a usable ZIP file"),
        (b"PK\x03\x04", "not a usable ZIP file"),
    ],
    ids=["missing", "text", "cut off"],
)
def test_what_is_no_zip_is_bad_input(tmp_path: Path, content: bytes | None, problem: str) -> None:
    """A file that is no ZIP ends in exit code 2 and a message that names it."""
    source = tmp_path / "input.zip"
    if content is not None:
        source.write_bytes(content)
    done = run_ore(tmp_path, source)
    assert done.returncode == 2
    assert done.stderr.startswith(str(source))
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def test_an_archive_without_settings_is_bad_input(tmp_path: Path) -> None:
    """An archive without Input/ore.xml ends in exit code 2, and what was unpacked is gone."""
    done = run_ore(tmp_path, zip_file(tmp_path, {"Input/market.txt": ""}))
    assert done.returncode == 2
    assert "no Input/ore.xml in it" in done.stderr
    assert not (tmp_path / "Input").exists()


def zip_file(directory: Path, members: dict[str, str], mode: int = 0o100644) -> Path:
    """Write a ZIP file of the given members, each with the file mode `mode`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            archive.writestr(member, content)
    path = directory / "made.zip"
    path.write_bytes(buffer.getvalue())
    return path


@with_module("archive")
@pytest.mark.parametrize(
    ("name", "mode", "problem"),
    [
        ("/Input/a", 0o100644, "not a plain relative path"),
        ("Input/../a", 0o100644, "not a plain relative path"),
        ("Input\\..\\a", 0o100644, "not a plain relative path"),
        ("C:/Input/a", 0o100644, "not a plain relative path"),
        ("Output/a", 0o100644, "not below Input/"),
        ("Input/a", 0o120777, "a link or a special file"),
    ],
)
def test_a_dangerous_member_is_refused(
    tmp_path: Path, example_module: ModuleType, name: str, mode: int, problem: str
) -> None:
    """An archive with one dangerous member is refused whole: nothing of it is unpacked."""
    source = zip_file(tmp_path, {"Input/ore.xml": "<ORE/>", name: "content"}, mode)
    with pytest.raises(example_module.BadArchiveError, match=problem):
        example_module.unpack(source, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["made.zip"]


@with_module("archive")
@pytest.mark.parametrize(("limit", "value"), [("MAX_FILES", 2), ("MAX_BYTES", 299)])
def test_an_archive_beyond_the_limits_is_refused(
    tmp_path: Path, example_module: ModuleType, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    """Three files of 300 bytes in all are unpacked, but refused under a limit of two files or 299 bytes."""
    source = zip_file(tmp_path, {f"Input/{name}": name * 100 for name in "abc"})
    with monkeypatch.context() as tightened:
        tightened.setattr(example_module, limit, value)
        with pytest.raises(example_module.BadArchiveError, match=f"more than the {value} allowed"):
            example_module.unpack(source, tmp_path)
        assert not (tmp_path / "Input").exists()
    unpacked = example_module.unpack(source, tmp_path)
    assert sorted(path.name for path in unpacked.iterdir()) == ["a", "b", "c"]


@with_module("archive")
def test_a_damaged_member_leaves_nothing_behind(tmp_path: Path, example_module: ModuleType) -> None:
    """When the second member is damaged, the first is removed again."""
    source = zip_file(tmp_path, {"Input/a": "whole", "Input/b": "0123456789" * 50})
    content = bytearray(source.read_bytes())
    begin = content.index(b"Input/b") + len(b"Input/b")
    content[begin : begin + 4] = b"\xff\xff\xff\xff"
    source.write_bytes(content)
    with pytest.raises(example_module.BadArchiveError):
        example_module.unpack(source, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["made.zip"]


@with_module("archive")
def test_an_existing_input_is_not_overwritten(tmp_path: Path, example_module: ModuleType) -> None:
    """A directory that already has an Input is refused, and its Input stays."""
    (tmp_path / "Input").mkdir()
    (tmp_path / "Input" / "mine").write_text("kept")
    with pytest.raises(example_module.BadArchiveError, match="exists already"):
        example_module.unpack(zip_file(tmp_path, {"Input/ore.xml": "<ORE/>"}), tmp_path)
    assert [path.name for path in (tmp_path / "Input").iterdir()] == ["mine"]


def message(category: str, group: str, text: str, **fields: str) -> str:
    """Write a line of ORE's structured log."""
    listed = [{"name": name, "value": value} for name, value in fields.items()]
    return json.dumps({"category": category, "group": group, "message": text, "sub_fields": listed})


@with_module("verdict")
def test_one_failed_trade_fails_a_run_that_ore_calls_done(example_module: ModuleType) -> None:
    """A trade error fails the run even when ORE ends with "ORE done."."""
    line = message("Error", "Trade", "no quote", exceptionType="pricing", tradeId="T1", tradeType="Swap")
    verdict = example_module.judge("ORE done.", [line, line])
    assert verdict.failures == ("trade T1 (Swap): pricing: no quote",)


@with_module("verdict")
def test_errors_that_ore_works_around_are_notes(example_module: ModuleType) -> None:
    """A curve error, and a trade unsuited to American Monte Carlo, are notes on a run that succeeds."""
    curve = message("Error", "Curve", "flat instead", curveId="EUR")
    reason = "Error building trade for AMC simulation"
    unsuited = message("Error", "Trade", "amcCalculator not provided", exceptionType=reason, tradeId="T1")
    warning = message("Warning", "Curve", "unknown configuration", curveId="USD")
    verdict = example_module.judge("ORE done.", [curve, unsuited, warning, "not JSON"])
    assert verdict.failures == ()
    assert verdict.notes == (
        "curve EUR: flat instead",
        "trade T1 (type unknown): Error building trade for AMC simulation: amcCalculator not provided",
    )


@with_module("verdict")
def test_a_run_that_does_not_end_has_failed(example_module: ModuleType) -> None:
    """Without "ORE done." the run has failed, and its message is the last error on the console."""
    verdict = example_module.judge("Loading inputs OK\nError: no asof date\nbye\n", [])
    assert verdict.failures == ("no asof date",)
    assert example_module.judge("", []).failures == ("ORE stopped without a message",)


NETTING = (
    "Definition for netting set CRIF_20191230 is not found. A fallback of 'uncollateralised' netting set will be used, "
    "results for this netting set may be invalid."
)


@with_module("verdict")
def test_the_fallback_of_a_netting_set_is_harmless_and_no_other_message_of_its_kind(example_module: ModuleType) -> None:
    """Both messages of the fallback are notes; any other message of that kind fails the run."""
    trade = message("Error", "Trade", NETTING, exceptionType="Netting set definition is not found.", tradeId="T1")
    found = {"exceptionType": "Netting set definition not found", "analyticType": "XvaAnalytic"}
    analytic = message("Error", "Analytics", NETTING, **found)
    verdict = example_module.judge("ORE done.", [trade, analytic])
    assert (verdict.failures, len(verdict.notes)) == ((), 2)
    for changed_text in (NETTING + " And more.", NETTING.replace("uncollateralised", "other"), "netting set not found"):
        assert example_module.judge("ORE done.", [message("Error", "Analytics", changed_text, **found)]).failures
    other = message("Error", "Trade", NETTING, exceptionType="pricing", tradeId="T1")
    assert example_module.judge("ORE done.", [other]).failures


@with_module("verdict")
def test_only_trades_that_cannot_be_built_may_be_missing(example_module: ModuleType) -> None:
    """An error of pricing or of an analytic fails the run also where an incomplete portfolio is accepted."""
    kinds = ("Error parsing Trade XML", "Error building trade for context 'pricing'", "Error during trade pricing")
    lines = [
        message("Error", "Trade", "why", exceptionType=kind, tradeId=f"T{at}", tradeType="Swap")
        for at, kind in enumerate(kinds)
    ]
    again = message("Error", "Trade", "no price", exceptionType="Error during trade pricing", tradeId="T0")
    verdict = example_module.judge("ORE done.", [*lines, again], accept_incomplete=True, trades=["T0", "T1", "T2"])
    assert verdict.failures == ("trade T2 (Swap): Error during trade pricing: why",)
    assert [trade for trade, _, _ in verdict.missing] == ["T0", "T1"]
    assert example_module.judge("ORE done.", lines).missing == ()
    assert len(example_module.judge("ORE done.", lines).failures) == 3
    assert example_module.judge("", lines[:1], accept_incomplete=True).failures == ("ORE stopped without a message",)
