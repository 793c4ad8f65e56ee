"""Finds what attacks aim at: processes, sockets, ports and files of the grid in this namespace, and of the victim."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tests.hostile import victim
from tests.hostile.inside import NAME, PORT, STATE, IsolatedGrid, titles
from tests.hostile.targets import VICTIM, Targets

# The role of a process by a part of its command line.
TITLES = {
    "agent": "ray::NodeAgentActor",
    "raylet": "/raylet/raylet ",
    "gcs": "/gcs/gcs_server ",
    "parent": "ray::ServeReplica",
    "leader": "ray::LeaderActor",
    "supervisor": "raygrid.local.supervisor",
    VICTIM: "tests.hostile.victim",
}
_LISTENING_TCP, _LISTENING_UNIX = "0A", 0x10000


def targets_of(grid: IsolatedGrid, given: dict[str, str | int], finished: str) -> Targets:
    """All that an attack may aim at. `given` is the victim's input; `finished` what a finished job has printed."""
    state, file = STATE / NAME, grid.file
    session = next(path for path in Path("/tmp").rglob("session_2*") if path.is_dir())
    text = str(given["text"])
    job, tmp = (_only(state / "nodes", name) for name in (victim.IN_JOB, victim.IN_TMP))
    known = json.loads((job.parent / victim.KNOWN).read_text())
    unix = list(_unix_sockets())
    return Targets(
        processes=_processes(),
        secrets={
            "grid-file": (str(state / "grid.json"), str(file.ray_token)),
            "token": (str(state / "ray_token"), str(file.ray_token)),
            "job-store": (str(state / "jobs.db"), "SQLite format 3"),
            "settings": (str(grid.config), "api_keys"),
            "result": (str(_holding(state / "blobs", finished)), finished),
            "log": (str(state / "logs" / "supervisor.log"), "starting"),
            "session": _first_text(session),
        },
        state_dir=str(state),
        session_dir=str(session),
        sockets=tuple(name for name in unix if name.startswith("/") and not name.endswith(victim.SOCKET)),
        abstract=tuple(name[1:] for name in unix if name.startswith("@") and name[1:] != given["abstract"]),
        ports=tuple(each for each in _ports() if each[1] != known["port"]),
        gcs_port=int(str(file.ray_address).rpartition(":")[2]),
        http_port=PORT,
        victim_files={"job-directory": str(job), "tmp": str(tmp), "shm": f"/dev/shm/{given['abstract']}"},
        victim_socket=str(job.with_name(victim.SOCKET)),
        victim_abstract=str(given["abstract"]),
        victim_port=known["port"],
        victim_udp_port=known["udp_port"],
        victim_segment=int(given["segment"]),
        victim_text=text,
    )


def _processes() -> dict[str, int]:
    found = titles()
    return {role: max(pid for pid, words in found.items() if title in words) for role, title in TITLES.items()}


def _only(directory: Path, name: str) -> Path:
    [path] = directory.rglob(name)
    return path


def _holding(directory: Path, text: str) -> Path:
    """The file that contains a text."""
    return next(path for path in directory.rglob("*") if path.is_file() and text.encode() in path.read_bytes())


def _first_text(directory: Path) -> tuple[str, str]:
    """A file of Ray's session, and its beginning."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.is_symlink() and len(text := path.read_text(errors="replace")[:40]) > 3:
            return str(path), text
    raise LookupError(f"no file in {directory} has a text")


def _ports() -> Iterator[tuple[str, int]]:
    """The listening TCP ports of this network namespace; all listen on loopback or on all interfaces."""
    seen = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            port = int(fields[1].rpartition(":")[2], 16)
            if fields[3] == _LISTENING_TCP and port not in seen:
                seen.add(port)
                yield "127.0.0.1", port


def _unix_sockets() -> Iterator[str]:
    """The names of listening Unix sockets in this network namespace."""
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and int(fields[3], 16) & _LISTENING_UNIX:
            yield fields[7]
