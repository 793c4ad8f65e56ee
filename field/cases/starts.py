"""Pricers that cannot be started as intended: `raygrid up` or the failed job explains why."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

from field.account import Account
from field.case import Lane, case
from field.desk import Desk
from field.tools import CC

CRLF = b'#!/bin/sh\r\nwc -l "$1"\r\n'
SAYS_LITTLE = "must exist there and be executable"


@case("programs", "programs that cannot be started", CC, lane=Lane.OWN)
def programs(desk: Desk, account: Account) -> None:
    """The message contains what is wrong with the file and what to do."""
    folder = desk.scratch / "programs"
    folder.mkdir(exist_ok=True)
    crlf, windows, loader = folder / "crlf.sh", folder / "pricer.exe", folder / "loader"
    crlf.write_bytes(CRLF)
    windows.write_bytes(b"MZ" + bytes(510))
    shutil.copy(desk.build("cc", "hole.c", "no-loader", "-Wl,--dynamic-linker=/lib/ld-nowhere.so.2"), loader)
    for path in (crlf, windows, loader):
        path.chmod(0o755)
    _explained(
        desk,
        account,
        {
            "a script with CRLF line ends": ([str(crlf), "{input}"], ("CR", "line end")),
            "./pricer.exe {input}, a Windows program": ([str(windows), "{input}"], ("wine",)),
            "a program whose loader is missing": ([str(loader), "{input}"], ("ld-nowhere",)),
        },
    )


def _explained(desk: Desk, account: Account, tried: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> None:
    """Each is refused by `up`, or its job fails; the message must contain one of the words."""
    for what, (command, words) in tried.items():
        grid = desk.new_grid({"pricers": {"it": {"command": list(command)}}})
        up = grid.up()
        if up.returncode != 0:
            said = up.stderr.decode(errors="replace")
        else:
            said = grid.submit("x", "it", name="x.csv").text
            grid.down()
        right = any(word in said for word in words) and SAYS_LITTLE not in said
        account.check(what, said[said.find("detail") + 9 :] if "detail" in said else said, right)


@case("placeholder", "a placeholder inside a command of a shell", lane=Lane.OWN)
def placeholder(desk: Desk, account: Account) -> None:
    """It is refused, because a file name could be executed; the message shows the form that works."""
    grid = desk.new_grid({"pricers": {"it": {"command": ["sh", "-c", "wc -l {input}"]}}})
    if grid.up().returncode == 0:
        answer = grid.submit("x\n", "it", name="x;touch proof;#.csv")
        grid.down()
        account.check(
            "sh -c 'wc -l {input}'", f"comes up; a file's name was run: {'proof' in answer.files}", right=False
        )
        return
    said = grid.command("up", "--config", grid.config).stderr.decode(errors="replace")
    account.check("sh -c 'wc -l {input}'", said, "$0" in said or "$1" in said)
    for line in ("cat {input} | wc -l", "sort {input} > out.csv"):
        done = grid.command("up", "--name", grid.name, "--port", str(grid.port), "--pricer", line, timeout_s=100)
        if done.returncode == 0:
            grid.down()
        account.check(f"raygrid up --pricer '{line}'", done.stderr, done.returncode != 0 and b"shell" in done.stderr)
