"""What `make security` guarantees: its corpus passes, fuzzers notice findings, explanations cover only their own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from raygrid.errors import RaygridError
from raygrid.transport.wire import NotAuthenticatedError
from security import audit, fuzz
from security.explained import ACCEPTED, EXPLAINED, REJECTED, SERVER_ERROR, explanation
from security.fuzzers import frames, manifests
from security.fuzzers.target import CORPUS, NAMES, Target, corpus_of, load
from security.row import Row, table

INPUTS = [(name, path) for name in NAMES for path in corpus_of(name)]


@pytest.mark.parametrize(("name", "path"), INPUTS, ids=[f"{name}/{path.name}" for name, path in INPUTS])
def test_an_input_of_the_corpus_is_read_or_refused_as_documented(name: str, path: Path) -> None:
    """No input of the corpus raises an undocumented error; those that once did are among them."""
    load(name).run(path.read_bytes())


def test_every_fuzzer_has_a_corpus_and_every_corpus_a_fuzzer() -> None:
    """Without inputs that are valid, a fuzzer does not get beyond the first check."""
    assert {path.name for path in CORPUS.iterdir()} == set(NAMES)
    assert all(len(corpus_of(name)) >= 8 for name in NAMES)


def test_an_undocumented_error_is_a_finding() -> None:
    """A reader with a planted error: its documented answers pass, and the error comes out of the target."""

    def read(data: bytes) -> None:
        if data == b"bad":
            raise RaygridError("refused")
        if data == b"worse":
            raise KeyError("planted")

    target = Target(read, (RaygridError,))
    target.run(b"good")
    target.run(b"bad")
    with pytest.raises(KeyError, match="planted"):
        target.run(b"worse")


def test_a_planted_error_in_the_product_is_found_by_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of results that does not check where files go is found, by the input that tries it."""
    monkeypatch.setattr("raygrid.client.result.Result._inside", lambda _self, root, name: root / name)
    with pytest.raises(AssertionError, match="written outside"):
        manifests.TARGET.run((CORPUS / "manifests" / "written-up").read_bytes())


def test_a_frame_that_is_changed_on_its_way_is_refused() -> None:
    """The target of frames reaches the check of a frame's code: the error is the documented one."""
    with pytest.raises(NotAuthenticatedError):
        frames.read((CORPUS / "frames" / "frame-wrong").read_bytes())


def test_a_fuzzer_that_finds_something_names_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The row fails and has the path of the input; the end of the output is printed."""

    def finds(_command: object, _temporary: str, out: int, _most_s: float) -> int:
        os.write(out, b"Uncaught Python exception: KeyError\nstat::number_of_executed_units: 1234\n")
        (tmp_path / "found" / "forms" / "crash-1").write_bytes(b"x")
        return 77

    monkeypatch.setattr(fuzz, "_run", finds)
    row = fuzz.fuzz("forms", 1, tmp_path)
    assert (row.passed, row.extent) == (False, "1,234 inputs")
    assert str(tmp_path / "found" / "forms" / "crash-1") in row.result
    assert "KeyError" in capsys.readouterr().out


def test_an_explanation_covers_one_kind_of_failure_only() -> None:
    """Another operation, status, text or kind of failure stays a finding."""
    detail = "the cursor 'x' is not a job of batch b; start again without a cursor"
    found = explanation(REJECTED, "GET /jobs", 422, detail)
    assert found is not None
    assert found.name == "unknown cursor"
    assert explanation(REJECTED, "GET /nodes", 422, detail) is None
    assert explanation(REJECTED, "GET /jobs", 400, detail) is None
    assert explanation(REJECTED, "GET /jobs", 422, "another text") is None
    assert explanation("JsonSchemaError", "GET /jobs", 422, detail) is None
    assert explanation(SERVER_ERROR, "GET /jobs", 503, "") is None
    report = "Invalid data should have been rejected\nInvalid component: in body - args: Incorrect type"
    assert explanation(ACCEPTED, "POST /submit", 202, report) is not None
    assert explanation(ACCEPTED, "POST /submit", 202, report.replace("args", "priority")) is None
    report = "Invalid component: in body - violates `type` at /properties/jobId (was string, became null)"
    assert explanation(ACCEPTED, "POST /submit", 202, report) is not None
    assert explanation(ACCEPTED, "POST /submit", 202, report.replace("jobId", "priority")) is None
    report = report.replace("body - violates", "body\n      - violates")
    assert explanation(ACCEPTED, "POST /submit", 202, report) is not None
    quoted = 'the option "9\'" is not UTF-8 text'
    assert explanation(REJECTED, "POST /batches", 422, quoted) is not None


def test_every_explanation_has_a_reason() -> None:
    """A reason is a sentence for a reader who wonders why the failure stays."""
    assert len({each.name for each in EXPLAINED}) == len(EXPLAINED)
    assert all(len(each.reason) > 40 and each.reason.endswith(".") for each in EXPLAINED)


KNOWN = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "1", "vulns": [{"id": "CVE-1"}]}
UNKNOWN = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("code", "packages", "passed", "extent", "result"),
    [
        (0, [KNOWN, UNKNOWN], True, "1 of 2 packages", "no advisory"),
        (1, [KNOWN, BAD], False, "2 of 2 packages", "found: b CVE-1"),
        (0, [UNKNOWN], True, "0 of 1 packages", "skipped: the service that answers knows none of the packages"),
        (1, None, True, "", "skipped: no service with advisories answers (no route)"),
    ],
)
def test_an_audit_that_knows_no_package_is_skipped_and_has_not_passed(
    monkeypatch: pytest.MonkeyPatch, code: int, packages: object, passed: bool, extent: str, result: str
) -> None:
    """pip-audit succeeds if a mirror without advisories answers; the summary says that nothing was checked."""
    printed = "" if packages is None else json.dumps({"dependencies": packages})
    monkeypatch.setattr(audit, "_asked", lambda _lock: (code, printed, "warning\nno route"))
    [row] = audit.audit()
    assert (row.passed, row.result) == (passed, result)
    assert row.extent == extent or packages is None


def test_the_summary_is_one_table() -> None:
    """What failed stands out."""
    rows = [Row("a", "1 input", 1.4, "nothing", passed=True), Row("b", "2 inputs", 2, "found: x", passed=False)]
    assert table(rows).splitlines()[2:] == ["| a | 1 input | 1 s | nothing |", "| b | 2 inputs | 2 s | **found: x** |"]
