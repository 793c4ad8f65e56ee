"""Problems that were reported for other programs, and that raygrid had when they were first tried."""

from __future__ import annotations

import os
import stat
import threading
import uuid

from field.account import Account
from field.case import case
from field.desk import Desk

LOOPS = """
import asyncio, raygrid, sys
client = raygrid.AsyncClient(sys.argv[1])
async def ask(text):
    job = await client.submit(text.encode(), pricer="cat")
    return (await job.result()).stdout
print(*(asyncio.run(ask(text)) for text in ("one", "two", "three")))
"""


@case("signals", "signals within a pricer")
def signals(desk: Desk, account: Account) -> None:
    """Signals have their default actions, and none is blocked."""
    answer = desk.grid.submit("timeout -s INT 1 sleep 8; echo $?", timeout_s="5")
    account.check("timeout -s INT 1 sleep 8", answer.short, answer.files.get("stdout.txt") == b"124\n")
    answer = desk.grid.submit("timeout 5 yes | head -n 1; echo $?", timeout_s="10")
    account.check("yes | head -n 1", answer.short, answer.files.get("stdout.txt") == b"y\n0\n")


@case("download", "a result written to a FIFO or a link")
def download(desk: Desk, account: Account) -> None:
    """A FIFO stays a FIFO, and a link stays a link."""
    grid = desk.grid
    job = f"download-{uuid.uuid4()}"
    grid.submit("printf 7", job_id=job)
    fifo, link, target = (grid.scratch / f"{name}-{job}" for name in ("fifo", "link", "target"))
    os.mkfifo(fifo)
    link.symlink_to(target)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    grid.command("result", job, "-o", fifo)
    got = os.read(reading, 2)
    os.close(reading)
    still = stat.S_ISFIFO(fifo.stat().st_mode)
    account.check("raygrid result -o FIFO", f"still a FIFO: {still}, read {got!r}", still and got == b"PK")
    grid.command("result", job, "-o", link)
    account.check("raygrid result -o LINK", f"still a link: {link.is_symlink()}", link.is_symlink() and target.exists())


@case("stale", "a second result in the directory of a first")
def stale(desk: Desk, account: Account) -> None:
    """No file of the first result remains beside the files of the second."""
    grid = desk.grid
    book, out = grid.scratch / "book.sh", grid.scratch / "out"
    for script in ("echo 1 > prices.csv", "echo 2 > other.csv; exit 3"):
        book.write_text(script)
        grid.command("submit", book, "--out", out)
    left = sorted(path.name for path in (out / "book").iterdir())
    account.check("submit --out, twice, other files", left, "other.csv" in left and "prices.csv" not in left)


@case("query", "unknown query parameters")
def query(desk: Desk, account: Account) -> None:
    """They are refused: a mistyped filter would return everything, and an option in the URL would have no effect."""
    answer = desk.grid.request("GET", "/jobs?stat=failed")
    account.check("GET /jobs?stat=failed", answer.short, answer.status == 422)
    answer = desk.grid.request("POST", f"/submit/{uuid.uuid4()}?pricer=cat", b"", {"Content-Type": "text/csv"})
    account.check("POST /submit/JOB?pricer=cat", answer.short, answer.status == 422 and "-F pricer" in answer.text)
    answer = desk.grid.request("GET", "/jobs/")
    account.check("GET /jobs/", f"{answer.status} {answer.headers.get('location', '')}", answer.status == 404)


@case("twice", "a name that a settings file sets twice")
def twice(desk: Desk, account: Account) -> None:
    """It is refused, and the error names both lines."""
    grid = desk.new_grid({})
    grid.config.write_text("pricers:\n  a: {command: 'cat {input}'}\n  a: {command: 'wc {input}'}\n")
    done = grid.command("up", "--config", grid.config, "--port", str(grid.port), "--name", grid.name, timeout_s=100)
    if done.returncode == 0:
        grid.down()
    account.check("a pricer of one name, twice", done.stderr, done.returncode != 0 and b"line 3" in done.stderr)


@case("loops", "an AsyncClient in several event loops")
def loops(desk: Desk, account: Account) -> None:
    """`asyncio.run` makes a new loop each time."""
    done = desk.grid.python(LOOPS)
    account.check(
        "three times asyncio.run", done.stdout or done.stderr[-100:], done.stdout.split() == [b"one", b"two", b"three"]
    )


@case("busy", "a program that is being written")
def busy(desk: Desk, account: Account) -> None:
    """Jobs wait while a new version is copied over their program."""
    grid = desk.grid
    with desk.copied.open("r+b") as being_written:
        threading.Timer(1.5, being_written.close).start()
        answer = grid.submit("x", "copied", name="x.csv")
    account.check("a job while its program is open for writing", answer.short, answer.files.get("stdout.txt") == b"x")
