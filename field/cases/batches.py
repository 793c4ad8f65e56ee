"""The jobs of a batch are listed in the order in which they were submitted, also later."""

from __future__ import annotations

import uuid

from field import http
from field.account import Account
from field.case import case
from field.desk import Desk

NAMES = ("t10", "t9", "t2", "t1")
ATTACH = "import raygrid, sys; print(*(job.job_id for job in raygrid.connect(sys.argv[1]).batch(sys.argv[2])))"


@case("order", "a batch that is attached again")
def order(desk: Desk, account: Account) -> None:
    """By the client, by HTTP and by the command: t10, t9, t2, t1."""
    grid = desk.grid
    batch = f"order-{uuid.uuid4()}"
    wanted = [f"{name}-{batch[-6:]}" for name in NAMES]
    parts = [http.part(f'name="{name}"; filename="{name}.txt"', name) for name in wanted]
    body, headers = http.form(http.field("batchId", batch), http.field("pricer", "cat"), *parts)
    answer = grid.request("POST", "/batches", body, headers)
    account.check("POST /batches with t10, t9, t2, t1", answer.status, answer.status in {200, 202})
    grid.command("result", "--batch", batch, "-o", grid.scratch / batch, "--wait", "30")
    attached = grid.python(ATTACH, batch).stdout.decode().split()
    account.check("client.batch(ID)", " ".join(name.split("-")[0] for name in attached), attached == wanted)
    lines = grid.command("result", "--batch", batch, "-o", grid.scratch / f"{batch}2").stdout.decode().splitlines()
    listed = [line.split("\t")[0] for line in lines]
    account.check("raygrid result --batch ID", " ".join(name.split("-")[0] for name in listed), listed == wanted)
