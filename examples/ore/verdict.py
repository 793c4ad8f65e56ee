"""Decides whether an ORE run has succeeded, because ORE does not report that to its Python caller.

`OREApp.run()` returns normally after a failure. What there is to judge by: the console text, which ends in
"ORE done." only when no analytic failed, and the structured log, one JSON object a line, which names failed
trades and analytics. Called by `run_ore.py`; knows nothing of ORE's Python module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

FINISHED = "ORE done."

# Groups in which an error means that a number asked for is missing. In the others (Curve, Fixing, ...) ORE
# carries on with a substitute or reports the trade concerned as well.
DECISIVE_GROUPS = frozenset({"Trade", "Analytics"})

# Errors after which ORE has all the numbers, by their exception and message.
HARMLESS = (
    # An American Monte Carlo run over trades for which ORE has no such method: ORE reports them with zero
    # exposure, and its own example (AmericanMonteCarlo, FX TaRF) expects just that.
    (r"Error building trade for AMC simulation", r"amcCalculator not provided"),
    # Trades of a netting set that netting.xml does not define: ORE takes it as one without collateral, as its own
    # example (AmericanMonteCarlo, generic barrier option) expects. It reports each trade, and the set itself.
    (
        r"Netting set definition (?:is )?not found\.?",
        r"Definition for netting set .* is not found\. A fallback of 'uncollateralised' netting set will be used, "
        r"results for this netting set may be invalid\.",
    ),
)

# ORE's messages for a trade that it does not price.
_NOT_BUILT = re.compile(
    r"Error parsing Trade XML|Error parsing type and envelope|Error building trade for context '.*'"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One message of ORE's structured log."""

    category: str
    group: str
    message: str
    exception: str
    subject: str
    trade: str = ""
    trade_type: str = ""

    @property
    def decisive(self) -> bool:
        """Whether the run must count as failed on this message alone."""
        for exception, message in HARMLESS:
            if re.fullmatch(exception, self.exception) and re.fullmatch(message, self.message, re.DOTALL):
                return False
        return self.category == "Error" and self.group in DECISIVE_GROUPS

    @property
    def leaves_out_a_trade(self) -> bool:
        """Whether ORE cannot build a trade, and goes on with the others."""
        return self.decisive and bool(self.trade) and _NOT_BUILT.fullmatch(self.exception) is not None

    def __str__(self) -> str:
        """The message as a person reads it: what it is about, what went wrong, in ORE's words."""
        return ": ".join(part for part in (self.subject, self.exception, self.message) if part)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a run.

    Attributes:
        failures: empty when the run has succeeded.
        notes: errors that ORE worked around.
        missing: trades that ORE cannot build, where that was accepted: id, type and reason of each.
    """

    failures: tuple[str, ...]
    notes: tuple[str, ...]
    missing: tuple[tuple[str, str, str], ...] = ()


def judge(
    console: str,
    messages: Iterable[str],
    *,
    accept_incomplete: bool = False,
    trades: Collection[str] = (),
) -> Verdict:
    """The verdict on a run from its console text and the lines of its structured log.

    With `accept_incomplete` a trade that ORE cannot build is missing, and no failure of the run, unless none of the
    `trades` of the portfolio is left.
    """
    findings = [finding for line in messages if (finding := _finding(line)) is not None]
    missing: dict[str, tuple[str, str, str]] = {}
    for finding in findings if accept_incomplete else ():
        if finding.leaves_out_a_trade:
            reason = f"{finding.exception}: {finding.message}"
            missing.setdefault(finding.trade, (finding.trade, finding.trade_type, reason))
    failures = _unique(
        str(finding) for finding in findings if finding.decisive and not (finding.trade and finding.trade in missing)
    )
    if missing and trades and missing.keys() >= set(trades):
        failures = (
            *failures,
            f"ORE can build none of the {len(missing)} trades, such as {' '.join(missing[min(missing)])}",
        )
    if FINISHED not in console:
        failures = (*failures, _last_error(console))
    notes = _unique(str(item) for item in findings if item.category == "Error" and not item.decisive)
    return Verdict(failures, notes, tuple(missing.values()))


def _finding(line: str) -> Finding | None:
    try:
        content = json.loads(line, strict=False)  # ORE leaves control characters in its strings
        fields = {field["name"]: field["value"] for field in content["sub_fields"]}
        category, group, message = content["category"], content["group"], content["message"]
    except (ValueError, TypeError, KeyError):
        return None
    subject = ""
    trade, trade_type = fields.get("tradeId", ""), fields.get("tradeType", "")
    if "tradeId" in fields:
        subject = f"trade {fields['tradeId']} ({fields.get('tradeType', 'type unknown')})"
    elif "curveId" in fields:
        subject = f"curve {fields['curveId']}"
    elif "analyticType" in fields:
        subject = f"analytic {fields['analyticType']}"
    return Finding(category, group, message, fields.get("exceptionType", ""), subject, trade, trade_type)


def _last_error(console: str) -> str:
    lines = [line.strip() for line in console.splitlines() if line.strip()]
    errors: Sequence[str] = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["ORE stopped without a message"])[-1].removeprefix("Error: ")


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
