"""Whether an ORE run has succeeded, which ORE itself does not tell its Python caller.

`OREApp.run()` returns normally after a failure. What there is to judge by: the console text, which ends in
"ORE done." only when no analytic failed, and the structured log, one JSON object a line, which names failed
trades and analytics. Called by `run_ore.py`; knows nothing of ORE's Python module.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

FINISHED = "ORE done."

# Groups in which an error means that a number asked for is missing. In the others (Curve, Fixing, ...) ORE
# carries on with a substitute or reports the trade concerned as well.
DECISIVE_GROUPS = frozenset({"Trade", "Analytics"})

# An American Monte Carlo run over trades for which ORE has no such method: ORE reports them with zero
# exposure, and its own example (AmericanMonteCarlo, FX TaRF) expects just that.
HARMLESS = frozenset({("Error building trade for AMC simulation", "amcCalculator not provided")})


@dataclass(frozen=True, slots=True)
class Finding:
    """One message of ORE's structured log."""

    category: str
    group: str
    message: str
    exception: str
    subject: str

    @property
    def decisive(self) -> bool:
        """Whether the run must count as failed on this message alone."""
        if (self.exception, self.message) in HARMLESS:
            return False
        return self.category == "Error" and self.group in DECISIVE_GROUPS

    def __str__(self) -> str:
        """The message as a person reads it: what it is about, what went wrong, in ORE's words."""
        return ": ".join(part for part in (self.subject, self.exception, self.message) if part)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`failures` is empty when the run has succeeded; `notes` are errors that ORE worked around."""

    failures: tuple[str, ...]
    notes: tuple[str, ...]


def judge(console: str, messages: Iterable[str]) -> Verdict:
    """The verdict on a run from its console text and the lines of its structured log."""
    findings = [finding for line in messages if (finding := _finding(line)) is not None]
    failures = _unique(str(finding) for finding in findings if finding.decisive)
    if FINISHED not in console:
        failures = (*failures, _last_error(console))
    notes = _unique(str(item) for item in findings if item.category == "Error" and not item.decisive)
    return Verdict(failures, notes)


def _finding(line: str) -> Finding | None:
    try:
        content = json.loads(line, strict=False)  # ORE leaves control characters in its strings
        fields = {field["name"]: field["value"] for field in content["sub_fields"]}
        category, group, message = content["category"], content["group"], content["message"]
    except (ValueError, TypeError, KeyError):
        return None
    subject = ""
    if "tradeId" in fields:
        subject = f"trade {fields['tradeId']} ({fields.get('tradeType', 'type unknown')})"
    elif "curveId" in fields:
        subject = f"curve {fields['curveId']}"
    elif "analyticType" in fields:
        subject = f"analytic {fields['analyticType']}"
    return Finding(category, group, message, fields.get("exceptionType", ""), subject)


def _last_error(console: str) -> str:
    lines = [line.strip() for line in console.splitlines() if line.strip()]
    errors: Sequence[str] = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["ORE stopped without a message"])[-1].removeprefix("Error: ")


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
