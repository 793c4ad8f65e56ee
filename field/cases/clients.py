"""Unusual uses of clients: forked processes, unusual headers, an ASCII locale."""

from __future__ import annotations

import os
import subprocess
import uuid

from field.account import Account
from field.case import case
from field.desk import Desk
from field.grid import run
from field.http import form, part
from field.tools import CURL

FORKED_JOBS = 60


@case("fork", "a client that was made before a fork")
def fork(desk: Desk, account: Account) -> None:
    """Parent and children at once: each result belongs to its job."""
    script = desk.program("forked_client.py").read_text()
    done = desk.grid.python(script, str(FORKED_JOBS), timeout_s=100)
    account.check(
        f"parent and 3 children, {4 * FORKED_JOBS} jobs", done.stdout or done.stderr[-200:], done.returncode == 0
    )


@case("head", "HEAD on the health checks", CURL)
def head(desk: Desk, account: Account) -> None:
    """The answer has the status of GET and no body; load balancers use HEAD."""
    for path in ("/health/live", "/health/ready"):
        answer = desk.grid.request("HEAD", path)
        account.check(
            f"HEAD {path}", f"{answer.status}, {len(answer.body)} bytes", (answer.status, answer.body) == (200, b"")
        )


@case("prefer", "Prefer in upper and lower case")
def prefer(desk: Desk, account: Account) -> None:
    """Preferences are compared without regard to case."""
    for value in ("respond-async", "Respond-Async", "RESPOND-ASYNC, wait=1"):
        answer = desk.grid.submit("sleep 1", prefer=value)
        account.check(f"Prefer: {value}", answer.status, answer.status == 202)


@case("narrow locale", "the command where only ASCII can be printed")
def narrow_locale(desk: Desk, account: Account) -> None:
    """`raygrid jobs` and `raygrid status` work with names of kanji in every locale."""
    job = f"kanji-{uuid.uuid4()}"
    desk.grid.submit("true", name="取引.sh", job_id=job)
    narrow = {"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}
    for words in (("jobs",), ("status", job)):
        done = desk.grid.command(*words, env=narrow)
        right = done.returncode == 0 and job[:20].encode() in done.stdout and b"Traceback" not in done.stderr
        account.check(f"raygrid {words[0]} in a narrow locale", done.stderr[-120:] or f"exit {done.returncode}", right)


@case("no home", "the command without HOME, for a user without an entry")
def no_home(desk: Desk, account: Account) -> None:
    """The command prints an error or the answer, but no traceback."""
    env = {key: value for key, value in desk.grid.environment.items() if key != "HOME"}
    command = [os.path.join(os.path.dirname(desk.python), "raygrid"), "status"]
    for state in ("with a state directory", "without"):
        if state == "without":
            env = {key: value for key, value in env.items() if not key.startswith("RAYGRID_")}
        before = ["setpriv", "--reuid=64321", "--clear-groups"] if os.geteuid() == 0 else []
        done = run([*before, *command], env=env, cwd=desk.scratch, timeout_s=30)
        said = done.stderr.decode(errors="replace")
        account.check(
            f"raygrid status without HOME, {state}", said or f"exit {done.returncode}", "Traceback" not in said
        )


@case("pipe", "raygrid submit <(…)")
def pipe(desk: Desk, account: Account) -> None:
    """The content of a pipe is read once and sent, or refused with the reason."""
    raygrid = os.path.join(os.path.dirname(desk.python), "raygrid")
    done = subprocess.run(
        ["bash", "-c", f"{raygrid} submit --pricer cat <(printf 'one\\ntwo\\n')"],
        env=desk.grid.environment,
        cwd=desk.scratch,
        capture_output=True,
        timeout=60,
        check=False,
    )
    refused = done.returncode != 0 and b"pipe" in done.stderr.lower()
    account.check("raygrid submit <(printf …)", done.stdout or done.stderr, done.stdout == b"one\ntwo\n" or refused)


@case("media types", "the description of the API")
def media_types(desk: Desk, account: Account) -> None:
    """Answers that are never JSON are not described as JSON, because generated clients rely on the description."""
    paths = desk.grid.request("GET", "/openapi.json").json["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            for status, answer in operation.get("responses", {}).items():
                types = sorted(answer.get("content", {}))
                if status.startswith("2") and len(types) > 1:
                    both = "application/json" in types
                    account.check(f"{method.upper()} {path} {status}", ", ".join(types), not both)
    account.check("described operations", len(paths), len(paths) > 10)


@case("empty", "an input without bytes, beside good ones")
def empty(desk: Desk, account: Account) -> None:
    """An empty input is accepted, or refused with a message that names the problem."""
    body, headers = form(part('name="file"; filename="b.csv"', b""))
    answer = desk.grid.request("POST", "/submit", body, headers)
    account.check("a file of 0 bytes", answer.short, answer.status in {200, 202, 400, 422} and "empty" in answer.text)
