"""Windows programs under wine, .NET and the JVM, with default settings."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

from field.account import Account
from field.case import case
from field.desk import SLOTS, Desk
from field.grid import Grid
from field.http import Answer, field, form, part
from field.tools import DOTNET, JAVA, MCS, MINGW, WINE

WINDOWS_JOBS, LINUX_JOBS = 200, 100
LINGER_S = 30.0


@case("dotnet", ".NET with default settings", DOTNET, MCS)
def dotnet(desk: Desk, account: Account) -> None:
    """It reserves memory files of terabytes at its start, and writes nothing."""
    _count(desk, account, "dotnet", ".NET")


@case("jvm", "the JVM with its collectors", JAVA)
def jvm(desk: Desk, account: Account) -> None:
    """ZGC keeps its heap in a memory file of 2 GB."""
    _count(desk, account, "java_zgc", "JVM, ZGC and -Xms2g")
    _count(desk, account, "java_g1", "JVM, G1")


def _count(desk: Desk, account: Account, pricer: str, what: str) -> None:
    answer = desk.grid.submit("a\nb\nc\n", pricer, name="book.csv")
    account.check(what, answer.short, answer.files.get("prices.csv", b"").split() == [b"lines,3"])


@case(
    "wine", f"{WINDOWS_JOBS} Windows jobs of 0 to 2 s on {SLOTS} slots, {LINUX_JOBS} Linux jobs among them", WINE, MINGW
)
def wine(desk: Desk, account: Account) -> None:
    """Every job is right, although all share the wineserver of the first job; no process of wine remains."""
    grid = desk.grid
    before = _of_wine(desk)
    # Alone: without a grid, too, wine sometimes fails if several programs create one new prefix at once.
    first = f"first-{uuid.uuid4()}"
    grid.submit(_windows_input(1), "windows", name="w.txt", job_id=first)
    why = _wrong(grid, first, 1)
    account.check("the first Windows job, which makes the prefix", why or "right", why is None)
    batch = f"wine-{uuid.uuid4()}"
    _post(grid, batch, "windows", {f"w{number}": _windows_input(number) for number in range(WINDOWS_JOBS)})
    _post(grid, batch, "cat", {f"l{number}": f"linux {number}" for number in range(LINUX_JOBS)})
    until = time.monotonic() + 120
    while not grid.request("GET", f"/batches/{batch}").json.get("finished") and time.monotonic() < until:
        time.sleep(0.2)
    during = _of_wine(desk)
    wrong = [why for number in range(WINDOWS_JOBS) if (why := _wrong(grid, f"w{number}-{batch}", number))]
    account.check(f"{WINDOWS_JOBS} Windows jobs", f"{WINDOWS_JOBS - len(wrong)} right; {wrong[:3]}", not wrong)
    linux = [grid.request("GET", f"/result/l{number}-{batch}") for number in range(LINUX_JOBS)]
    own = sum(_stdout(answer) == f"linux {number}" for number, answer in enumerate(linux))
    account.check(f"{LINUX_JOBS} Linux jobs", f"{own} right", own == LINUX_JOBS)
    until = time.monotonic() + LINGER_S
    while _of_wine(desk) > before and time.monotonic() < until:
        time.sleep(0.2)
    waited = LINGER_S - (until - time.monotonic())
    told = f"{before} before, {during} at the last job's end, {_of_wine(desk)} after {waited:.0f} s"
    account.check("processes of wine", told, _of_wine(desk) == before)


def _windows_input(number: int) -> str:
    """An input whose first line is the time to sleep, ms: mostly short, each tenth 2 s."""
    sleep_ms = 2000 if number % 10 == 0 else 500 if number % 5 == 0 else number % 7 * 10
    return f"{sleep_ms}\n" + "trade\n" * (number % 9)


def _post(grid: Grid, batch: str, pricer: str, jobs: dict[str, str]) -> None:
    parts = [part(f'name="{job}-{batch}"; filename="{job}.txt"', text) for job, text in jobs.items()]
    body, headers = form(field("batchId", batch), field("pricer", pricer), *parts)
    grid.request("POST", "/batches", body, headers)


def _wrong(grid: Grid, job: str, number: int) -> str | None:
    """What is wrong with one job's result; None if nothing is."""
    answer = grid.request("GET", f"/result/{job}?even_if=failed")
    text = _windows_input(number)
    lines = text.count("\n")
    prices = answer.files.get("prices.csv", b"").split()
    stdout = answer.files.get("stdout.txt", b"")
    if prices == [f"lines,{lines}".encode()] and stdout == f"slept {text.split()[0]} counted {lines}\r\n".encode():
        return None
    stderr = answer.files.get("stderr.txt", b"")
    return f"{job[:5]}: {answer.status} {stdout[:20]!r} {prices} {stderr[-80:]!r}"


def _stdout(answer: Answer) -> str:
    return answer.files.get("stdout.txt", answer.body).decode(errors="replace")


def _of_wine(desk: Desk) -> int:
    """The number of processes that use this run's prefix."""
    mark = f"WINEPREFIX={desk.scratch / 'wine'}".encode()
    found = 0
    for entry in Path("/proc").iterdir():
        try:
            found += entry.name.isdigit() and mark in (entry / "environ").read_bytes()
        except OSError:
            continue
    return found
