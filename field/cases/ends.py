"""The state of a job must match how it ended."""

from __future__ import annotations

import json
import uuid

from field.account import Account
from field.case import case
from field.desk import Desk
from field.http import Answer


def _submit(desk: Desk, script: str, pricer: str = "shell", **fields: str) -> tuple[str, Answer, str]:
    """Submit and wait: the job's id, the answer, and the state and reason of the job."""
    job = f"end-{uuid.uuid4()}"
    answer = desk.grid.submit(script, pricer, job_id=job, **fields)
    status = desk.grid.request("GET", f"/status/{job}").json
    return job, answer, f"{status.get('state')} {status.get('reason') or ''}".strip()


@case("time limit", "a program that exits with 0 on SIGTERM at its time limit")
def time_limit(desk: Desk, account: Account) -> None:
    """The reason is `timeout`, independent of the exit code."""
    script = "trap 'echo half > prices.csv; exit 0' TERM\ni=0\nwhile [ $i -lt 200 ]; do sleep 0.1; i=$((i+1)); done"
    _, answer, end = _submit(desk, script, timeout_s="1")
    account.check("limit 1 s, trap 'exit 0' TERM", f"{answer.status}, {end}", end == "failed timeout")


@case("warm", "a warm pricer that ends without an answer")
def warm(desk: Desk, account: Account) -> None:
    """A warm pricer must answer: neither exit code 0 nor a closed stdout is enough."""
    for pricer, what in (("warm_leaves", "exit 0"), ("warm_closes", "closes stdout")):
        _, answer, end = _submit(desk, "x", pricer)
        told = str(answer.json.get("detail"))
        right = end == "failed bad_output" and "without an answer" in told
        account.check(f"warm, {what} without an answer", f"{answer.status}, {end}: {told[46:]}", right)


@case("failed", "the files of a failed job")
def failed(desk: Desk, account: Account) -> None:
    """The answer for a failed job contains the address of its files."""
    job, answer, _ = _submit(desk, "echo 7 > prices.csv; exit 3")
    told = json.dumps(answer.json)
    account.check("the 422 names even_if=failed", told, answer.status == 422 and "even_if=failed" in told)
    left = desk.grid.request("GET", f"/result/{job}?even_if=failed")
    account.check("GET /result?even_if=failed", left.short, left.files.get("prices.csv") == b"7\n")


@case("paths", "messages show no path of a node")
def paths(desk: Desk, account: Account) -> None:
    """A message names files as the pricer sees them."""
    for what, script in (("a link", "ln -s /etc/passwd there"), ("a FIFO", "mkfifo pipe"), ("exit code", "exit 9")):
        _, answer, end = _submit(desk, script)
        shown = str(desk.grid.state_dir) in answer.text
        account.check(f"job that leaves {what}", f"{end}: {answer.json.get('detail', '')[46:]}", not shown)
