"""What must not change when a grid restarts: the definition that a job runs, and stored results."""

from __future__ import annotations

import collections
import copy
import time
import uuid
import zlib
from typing import Any

from field.account import Account
from field.case import case
from field.desk import Desk, versioned
from field.grid import Grid
from field.http import field, form, part

AFTER, LATER = 20, 40
PRICES, TAMPERED = b"price,111111", b"price,999999"
WAIT_S = 120.0
ASK = "import raygrid, sys; print(raygrid.connect(sys.argv[1]).job(sys.argv[2]).result(timeout=20).text('prices.csv'))"


@case("pinned", "a deployment, then a new start with other settings, in the middle of a batch")
def pinned(desk: Desk, account: Account) -> None:
    """Each job runs the definition that it was submitted with; status and manifest name it."""
    grid = desk.grid
    first, second, third = (f"{name}-{uuid.uuid4().hex[:6]}" for name in ("first", "second", "third"))
    _post(grid, first, desk.jobs)
    deployed = _deploy(grid, _with_version(grid.settings, "two"))
    account.check("raygrid deploy while jobs wait", deployed or "deployed", deployed == "")
    if deployed:  # restart instead
        grid.down()
        grid.settings = _with_version(grid.settings, "two")
        grid.up()
    _post(grid, second, AFTER)
    _finish(grid, first, second)
    _check_batch(account, grid, first, desk.jobs, "one")
    _check_batch(account, grid, second, AFTER, "two")
    damaged = _make_results(grid)
    _post(grid, third, LATER, slow="1")
    grid.down()
    for job, mended in damaged.items():
        _damage(grid, job, mended=mended)
    grid.settings = _with_version(grid.settings, "three")
    up = grid.up()
    account.check("down, other settings, up", up.stderr[-120:], up.returncode == 0)
    _finish(grid, third)
    _check_batch(account, grid, third, LATER, "two")
    _check_damaged(account, grid, damaged)


def _with_version(settings: dict[str, Any], version: str) -> dict[str, Any]:
    changed = copy.deepcopy(settings)
    changed["pricers"]["versioned"] = versioned(version)
    return changed


def _deploy(grid: Grid, settings: dict[str, Any]) -> str:
    """Deploy settings; returns the error, or an empty text."""
    before, grid.settings = grid.settings, settings
    grid.write_settings()
    done = grid.command("deploy", "--config", grid.config, timeout_s=60)
    if done.returncode == 0:
        return ""
    grid.settings = before
    return done.stderr.decode(errors="replace").strip()[-150:] or f"exit {done.returncode}"


def _post(grid: Grid, batch: str, count: int, slow: str = "0.05") -> None:
    jobs = [part(f'name="{batch}-{n}"; filename="{n}.txt"', slow) for n in range(count)]
    body, headers = form(field("batchId", batch), field("pricer", "versioned"), *jobs)
    grid.request("POST", "/batches", body, headers)


def _finish(grid: Grid, *batches: str) -> None:
    until = time.monotonic() + WAIT_S
    while not all(grid.request("GET", f"/batches/{each}").json.get("finished") for each in batches):
        if time.monotonic() > until:
            return
        time.sleep(0.2)


def _check_batch(account: Account, grid: Grid, batch: str, count: int, wanted: str) -> None:
    """Compare what the jobs printed with the version in status and manifest."""
    printed: collections.Counter[str] = collections.Counter()
    for number in range(count):
        answer = grid.request("GET", f"/result/{batch}-{number}")
        manifest = answer.files.get("manifest.json", b"").decode()
        status = grid.request("GET", f"/status/{batch}-{number}").json.get("version")
        ran = answer.files.get("stdout.txt", b"nothing").decode().strip()
        named = f'"version": "{ran}"' in manifest and status == ran
        printed[ran if named else f"{ran}, but status says {status}"] += 1
    account.check(f"{count} jobs submitted under version {wanted}", dict(printed), printed == {wanted: count})


def _make_results(grid: Grid) -> dict[str, bool]:
    """Two done jobs, with whether the checksum in the ZIP will be corrected after the damage."""
    jobs = {f"damaged-{uuid.uuid4()}": False, f"mended-{uuid.uuid4()}": True}
    for job in jobs:
        grid.submit(f"printf '{PRICES.decode()}' > prices.csv; echo {job}", job_id=job)
    return jobs


def _damage(grid: Grid, job: str, *, mended: bool) -> None:
    """Change a stored result in place."""
    for path in (grid.state_dir / grid.name / "blobs").rglob("*"):
        if not path.is_file() or job.encode() not in (data := path.read_bytes()):
            continue
        # A pack holds results of many jobs: only the part before this job's name is this job's file.
        at = data.rfind(PRICES, 0, data.find(job.encode() + b"\n")) if PRICES in data else -1
        if at < 0:
            at = data.find(PRICES)
        changed = data[:at] + TAMPERED + data[at + len(PRICES) :] if at >= 0 else data
        if mended:
            before, after = (zlib.crc32(each).to_bytes(4, "little") for each in (PRICES, TAMPERED))
            changed = changed.replace(before, after)
        path.chmod(0o600)
        path.write_bytes(changed)


def _check_damaged(account: Account, grid: Grid, damaged: dict[str, bool]) -> None:
    for job, mended in damaged.items():
        what = "a stored result that was changed" + (", its checksum mended" if mended else "")
        answer = grid.request("GET", f"/result/{job}")
        right = TAMPERED not in answer.body and (answer.status != 200 or answer.files.get("prices.csv") == PRICES)
        account.check(what, answer.short, right)
        done = grid.python(ASK, job)
        account.check(f"{what}, by the client", (done.stdout + done.stderr)[-150:], TAMPERED not in done.stdout)
