"""Reads instrument files, and refuses implausible values.

Nothing here knows QuantLib. `price.py` calls `read_instruments`, and the pricing functions in `kinds.py`
ask an `Instrument` for the values that only their kind needs; either may find the row unusable.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

COLUMNS = ("id", "kind", "type", "strike", "spot", "q", "r", "t", "vol", "extra")

# Numbers beyond these are treated as mistakes (a percentage written as 25 instead of 0.25, days instead of years).
MAX_LEVEL = 1e12
MAX_RATE = 1.0
MIN_VOLATILITY = 0.001
MAX_VOLATILITY = 5.0
MAX_YEARS = 100.0
HALF_A_DAY = 0.5 / 360  # times are rounded to days: less than this apart, two of them are the same day


class BadInstrumentError(ValueError):
    """A row, or the whole file, cannot be priced; the message contains where and why."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One row of an instrument file.

    `spot` and `strike` are prices, `q`, `r` and `vol` decimal fractions a year (continuously compounded),
    `t` is in years. `type` is empty and `strike` None where the kind has none. `extra` holds the
    kind's own terms, as written.
    """

    where: str
    id: str
    kind: str
    type: str
    strike: float | None
    spot: float
    q: float
    r: float
    t: float
    vol: float
    extra: Mapping[str, str]

    def bad(self, problem: str) -> BadInstrumentError:
        """The error for a problem of this row."""
        return BadInstrumentError(f"{self.where}: {self.id} ({self.kind}): {problem}")

    def required_strike(self) -> float:
        """The strike, for kinds that need one. Raises BadInstrumentError."""
        if self.strike is None:
            raise self.bad("column strike is empty")
        return self.strike

    def term(self, name: str) -> str:
        """The text of the extra term `name`. Raises BadInstrumentError when it is missing."""
        text = self.extra.get(name, "")
        if not text:
            raise self.bad(f"extra has no {name}=...")
        return text

    def number(self, name: str, low: float = 0.0, high: float = MAX_LEVEL) -> float:
        """The extra term `name` as a number within [low, high]. Raises BadInstrumentError."""
        return self._checked(name, self.term(name), low, high)

    def level(self, name: str) -> float:
        """The extra term `name` as a price, hence above zero. Raises BadInstrumentError."""
        level = self.number(name)
        if level == 0.0:
            raise self.bad(f"extra {name} must be above 0")
        return level

    def years(self, name: str, until: float) -> float:
        """The extra term `name` as a time in years, no day later than `until`. Raises BadInstrumentError."""
        return self.number(name, 0.0, until + HALF_A_DAY)

    def count(self, name: str, low: int, high: int) -> int:
        """The extra term `name` as a whole number within [low, high]. Raises BadInstrumentError."""
        value = self.number(name, low, high)
        if value != int(value):
            raise self.bad(f"extra {name} is not a whole number: {self.extra[name]}")
        return int(value)

    def choice(self, name: str, allowed: Collection[str]) -> str:
        """The extra term `name`, which must be one of `allowed`. Raises BadInstrumentError."""
        text = self.term(name)
        if text not in allowed:
            raise self.bad(f"extra {name} is {text!r}, expected one of {', '.join(sorted(allowed))}")
        return text

    def _checked(self, name: str, text: str, low: float, high: float) -> float:
        try:
            return parse_number(text, low, high)
        except ValueError as error:
            raise self.bad(f"extra {name} {error}") from None


def parse_number(text: str, low: float, high: float) -> float:
    """`text` as a finite number within [low, high]; ValueError with the reason otherwise."""
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        raise ValueError(f"is not a number: {text!r}") from None
    if not math.isfinite(value):
        raise ValueError(f"is not a finite number: {text!r}")
    if not low <= value <= high:
        raise ValueError(f"is {text}, outside {low:g} to {high:g}")
    return value


def read_instruments(path: Path) -> list[Instrument]:
    """All rows of the CSV file `path`, in order; columns other than `COLUMNS` are ignored.

    Raises BadInstrumentError naming every bad row, or the file if it is unreadable, empty or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(_numbered_rows(csv.reader(file, strict=True)))
    except OSError as error:
        raise BadInstrumentError(f"{path}: cannot read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInstrumentError(f"{path}: not a CSV file in UTF-8: {error}") from None
    if not rows:
        raise BadInstrumentError(f"{path}: the file is empty")
    header = [name.strip() for name in rows[0][1]]
    if missing := [name for name in COLUMNS if name not in header]:
        raise BadInstrumentError(f"{path}:1: no column named {', '.join(missing)}")
    if repeated := sorted({name for name in COLUMNS if header.count(name) > 1}):
        raise BadInstrumentError(f"{path}:1: more than one column named {', '.join(repeated)}")
    if len(rows) == 1:
        raise BadInstrumentError(f"{path}: a header, but no instruments")
    return _instruments(path, header, rows[1:])


def _numbered_rows(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Non-blank rows with the file line on which each begins (a quoted cell may hold line ends)."""
    begin = 1
    for row in reader:
        if any(cell.strip() for cell in row):
            yield begin, row
        begin = reader.line_num + 1  # type: ignore[attr-defined]  # csv's reader class has no public name


def _instruments(path: Path, header: list[str], rows: list[tuple[int, list[str]]]) -> list[Instrument]:
    found: list[Instrument] = []
    problems: list[str] = []
    first_line: dict[str, str] = {}
    for line, cells in rows:
        where = f"{path}:{line}"
        if len(cells) != len(header):
            problems.append(f"{where}: {cells[0]}: {len(cells)} cells under {len(header)} column names")
            continue
        try:
            instrument = _instrument(where, dict(zip(header, (cell.strip() for cell in cells), strict=True)))
        except BadInstrumentError as error:
            problems.append(str(error))
            continue
        if instrument.id in first_line:
            problems.append(f"{where}: {instrument.id}: id already used on {first_line[instrument.id]}")
        first_line[instrument.id] = where
        found.append(instrument)
    if problems:
        raise BadInstrumentError("\n".join(problems))
    return found


def _instrument(where: str, cells: Mapping[str, str]) -> Instrument:
    name = cells["id"]
    if not name:
        raise BadInstrumentError(f"{where}: column id is empty")

    def number(column: str, low: float, high: float) -> float:
        try:
            return parse_number(cells[column], low, high)
        except ValueError as error:
            raise BadInstrumentError(f"{where}: {name} ({cells['kind']}): column {column} {error}") from None

    smallest = 1.0 / MAX_LEVEL
    return Instrument(
        where=where,
        id=name,
        kind=cells["kind"],
        type=cells["type"],
        strike=number("strike", smallest, MAX_LEVEL) if cells["strike"] else None,
        spot=number("spot", smallest, MAX_LEVEL),
        q=number("q", -MAX_RATE, MAX_RATE),
        r=number("r", -MAX_RATE, MAX_RATE),
        t=number("t", HALF_A_DAY, MAX_YEARS),
        vol=number("vol", MIN_VOLATILITY, MAX_VOLATILITY),
        extra=_terms(where, name, cells["extra"]),
    )


def _terms(where: str, name: str, text: str) -> dict[str, str]:
    terms: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in text.split(";"))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not key:
            raise BadInstrumentError(f"{where}: {name}: column extra: expected name=value, found {item!r}")
        if key in terms:
            raise BadInstrumentError(f"{where}: {name}: column extra: {key} stands there twice")
        terms[key] = value
    return terms
