"""Programs that signal every process: run as another user, in a PID namespace that ends with the trial.

`field.namespace` runs there as the first process, and prints the outcomes as lines of JSON.
"""

from __future__ import annotations

import json
import sys

from field.account import Account
from field.case import Lane, case
from field.desk import Desk
from field.tools import PID_NAMESPACE


@case("kill", "kill -9 -1 in a pricer", PID_NAMESPACE, lane=Lane.OWN)
def kill(desk: Desk, account: Account) -> None:
    """Each such job ends as `poison` after some starts, or is cancelled while the grid is down."""
    done = desk.run_isolated(sys.executable, "-m", "field.namespace", str(desk.new_port()), timeout_s=200)
    rows = [line for line in done.stdout.decode(errors="replace").splitlines() if line.startswith("{")]
    for line in rows:
        row = json.loads(line)
        account.check(row["tried"], row["came_out"], row["right"])
    if done.returncode != 0 or not rows:
        account.check("the trial in its own namespace", done.stderr[-300:] or "it was killed", right=False)
