"""What hostile pricers aim at: processes, files and sockets of a grid and of another job, as the driver found them.

It travels as the input file of the attacking job. The texts in it show whether an attack reached what it aimed at: they
are read from nowhere else.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

VICTIM = "victim"
AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Targets:
    """The aims of the attacks.

    Attributes:
        processes: pids by role: `agent`, `raylet`, `gcs`, `parent`, `leader`, `supervisor`, and `victim`, another job.
        secrets: files of the grid by name, each with a text that it contains.
        state_dir: the grid's state directory.
        session_dir: Ray's session directory.
        sockets: paths of listening Unix sockets of the grid.
        abstract: names of abstract ones.
        ports: TCP ports on which processes of the grid listen, with an address that reaches each.
        gcs_port: that of Ray's GCS.
        http_port: that of the grid's HTTP interface.
        victim_files: files of the other job by name; each contains `victim_text`.
        victim_socket: the path of its Unix socket.
        victim_abstract: the name of its abstract socket.
        victim_port, victim_udp_port: the TCP port on which it listens; the UDP port on which it answers.
        victim_segment: the key of its System V shared memory.
        victim_text: what its files, its environment and its memory contain.
    """

    processes: dict[str, int]
    secrets: dict[str, tuple[str, str]] = field(default_factory=dict)
    state_dir: str = "/nonexistent"
    session_dir: str = "/nonexistent"
    sockets: tuple[str, ...] = ()
    abstract: tuple[str, ...] = ()
    ports: tuple[tuple[str, int], ...] = ()
    gcs_port: int = 0
    http_port: int = 0
    victim_files: dict[str, str] = field(default_factory=dict)
    victim_socket: str = "/nonexistent"
    victim_abstract: str = "nonexistent"
    victim_port: int = 0
    victim_udp_port: int = 0
    victim_segment: int = 0
    victim_text: str = ""

    def to_json(self) -> str:
        """As the input file of an attacking job."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Targets:
        """Of such a file."""
        values = json.loads(text)
        for name in ("sockets", "abstract"):
            values[name] = tuple(values[name])
        values["ports"] = tuple((host, port) for host, port in values["ports"])
        values["secrets"] = {name: (path, text) for name, (path, text) in values["secrets"].items()}
        return cls(**values)
