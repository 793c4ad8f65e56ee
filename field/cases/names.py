"""Names of input and output files: kept unchanged, or refused with an error."""

from __future__ import annotations

from urllib.parse import quote

from field import http
from field.account import Account
from field.case import case
from field.desk import Desk

ODD = {
    "ideographic space": "取引　一覧.csv",
    "no-break space": "a\u00a0b.csv",
    "narrow no-break space": "a\u202fb.csv",
    "zero-width space": "a\u200bb.csv",
    "joined emoji": "👩\u200d💻.csv",
    "right-to-left mark": "a\u200fb.csv",
    "combining accent": "cafe\u0301.csv",
}


@case("names out", "output names with unusual characters")
def names_out(desk: Desk, account: Account) -> None:
    """All files of a job are in its result under their names."""
    script = "".join(f"printf '{number}' > '{name}'\n" for number, name in enumerate(ODD.values()))
    answer = desk.grid.submit(script)
    for number, (what, name) in enumerate(ODD.items()):
        found = answer.files.get(name)
        account.check(
            f"output name with {what}", found if answer.files else answer.short, found == str(number).encode()
        )
    answer = desk.grid.submit("printf x > \"$(printf 'a\\nb')\"; printf 7 > good.csv")
    account.check("output name with a line break", answer.short, answer.status == 422 or "good.csv" in answer.files)


@case("names in", "input names with unusual characters")
def names_in(desk: Desk, account: Account) -> None:
    """The pricer gets the name as sent, or the submit is refused."""
    for what, name in ODD.items():
        answer = desk.grid.submit("x", "show", name=name)
        seen = answer.text.splitlines()[0] if answer.status == 200 else answer.short
        account.check(f"input name with {what}", seen, seen == name or answer.status in {400, 422})
    long = ["n" * 230 + end for end in ("1.csv", "2.csv")]
    seen_long = [desk.grid.submit("x", "show", name=name) for name in long]
    kept = [
        answer.text.splitlines()[0] == name
        for answer, name in zip(seen_long, long, strict=True)
        if answer.status == 200
    ]
    account.check("two names of 235 bytes", [answer.status for answer in seen_long], all(kept))
    answer = desk.grid.submit("x", "show", name="a\tb.csv")
    account.check("input name with a tab", answer.short, answer.status in {400, 422})


@case("filename*", "encoded names of other libraries")
def filename_star(desk: Desk, account: Account) -> None:
    """.NET, old requests, aiohttp and Spring encode names that are not ASCII; the pricer gets them decoded."""
    name = "取引.csv"
    star, percent = f"filename*=UTF-8''{quote(name)}", quote(name)
    ways = {
        ".NET: =?utf-8?B?…?= and filename*": f'name=file; filename="=?utf-8?B?5Y+W5byVLmNzdg==?="; {star}',
        "filename* alone": f'name="file"; {star}',
        "filename* before filename": f'name="file"; {star}; filename="other.csv"',
        "percent-encoded filename and filename*": f'name="file"; filename="{percent}"; {star}',
    }
    for what, disposition in ways.items():
        body, headers = http.form(http.field("pricer", "show"), http.part(disposition, "x"))
        answer = desk.grid.request("POST", "/submit", body, {**headers, "Prefer": "wait=20"})
        if answer.status == 202:
            answer = desk.grid.request("GET", f"/result/{answer.json.get('jobId')}?wait=20")
        seen = next(iter(answer.files.get("stdout.txt", answer.body).decode(errors="replace").splitlines()), "")
        account.check(what, seen or answer.short, seen == name)
