"""Which attacks may succeed under which sandbox, each with the reason; every other one must be refused.

Names without a colon and what follows it stand for the attack on every process.
"""

from __future__ import annotations

import os
import subprocess

from tests.hostile.isolation import FIRST_UID

NETWORK = "`protect` leaves the network as it is: licence servers and databases are there"
OWN_FILES = "`protect` lets programs write what the user can write, apart from the grid's files"
# Under `off` a pricer is as strong as its user, apart from what the grid protects in every case: its tiers cannot be
# traced, Ray refuses calls without its token, and the HTTP interface refuses requests without a key.
OFF_REFUSES = (
    *("read-environ:agent", "open-memory:agent", "trace:agent", "take-descriptor:agent", "read-memory:agent"),
    *("read-environ:leader", "read-environ:parent", "read-environ:supervisor"),
    *("call-ray-without-token", "read-http-without-key", "have-capabilities", "mount", "unmount", "change-root"),
)
OFF_ALLOWS = (
    *("read-grid-file", "read-token", "read-job-store", "read-settings", "read-result", "read-session"),
    *("change-result", "read-job-directory:victim", "hard-link-secret", "signal:agent", "signal:raylet"),
    *("signal:victim", "trace:victim", "connect-sockets", "connect-tcp", "write-state-directory", "set-limits:agent"),
    *("new-user-namespace", "io-uring", "keys", "signal-others", "write-process-files:victim"),
)
PROTECT_ALLOWS = {
    "read-command-line": "the kernel shows every command line to every user; none of the grid's has a secret",
    "write-tmp": OWN_FILES,
    "write-home": OWN_FILES,
    "write-job-directory": "every pricer may",
    "plant-shell-start": OWN_FILES,
    "plant-code": f"{OWN_FILES}; a grid in a virtual environment loads no code from there",
    "connect-tcp": NETWORK,
    "connect-all-tcp": NETWORK,
    "connect-port:victim": NETWORK,
    "send-udp": NETWORK,
    "read-other-http": f"{NETWORK}; Ray's measurements need no token",
    "memory-file": "programs need it; it counts as memory of the process that maps it, or where a cgroup counts",
}
STRICT_OPEN = ("read-command-line", "write-job-directory", "memory-file")
STRICT_ALLOWS = {name: PROTECT_ALLOWS[name] for name in STRICT_OPEN}
MOST_OF_EIGHTEEN_UNDER_STRICT = 3


def allowed(name: str, allows: dict[str, str]) -> bool:
    """Whether an attack may succeed."""
    return name in allows or name.partition(":")[0] in allows


def why_no_sandboxes() -> str | None:
    """Why this kernel cannot give an ordinary user every mechanism of sandboxes; None if it can."""
    release = os.uname().release
    if tuple(int(part) for part in release.split("-")[0].split(".")[:2]) < (6, 12):
        return f"sandboxes with all mechanisms need Linux 6.12, whose Landlock scopes signals; this is {release}"
    as_user = ["setpriv", "--reuid", str(FIRST_UID), "--regid", str(FIRST_UID), "--clear-groups"]
    tried = subprocess.run([*as_user, "unshare", "--user", "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        return f"sandboxes need user namespaces, which users cannot make here: {tried.stderr.strip()}"
    return None
