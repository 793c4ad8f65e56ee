"""Bytes that a pricer wrote must leave the grid unchanged."""

from __future__ import annotations

import uuid

from field.account import Account
from field.case import case
from field.desk import Desk

SJIS = "取引,価格\n".encode("cp932")
BINARY = bytes(range(256))


@case("bytes", "stdout that is not UTF-8, by the command")
def stdout_bytes(desk: Desk, account: Account) -> None:
    """`raygrid submit FILE > out` and `raygrid result JOB > out` write exactly what the pricer printed."""
    grid = desk.grid
    for what, data in (("Shift_JIS", SJIS), ("all 256 bytes", BINARY)):
        path = grid.scratch / "input.bin"
        path.write_bytes(data)
        job = f"bytes-{uuid.uuid4()}"
        printed = grid.command("submit", path, "--pricer", "cat", "--job-id", job).stdout
        account.check(f"raygrid submit, {what}", printed[:40], printed == data)
        printed = grid.command("result", job).stdout
        account.check(f"raygrid result, {what}", printed[:40], printed == data)
