"""The supervisor of a grid on one machine: `python -m raygrid.local.supervisor`, settings on standard input.

It starts a Ray head and further Ray nodes as its children, deploys the parents, and watches them. A further node that
dies is started again. The grid ends when the head dies, or the process for which it was started. The children end with
the supervisor, even if it is killed: Ray ends the head, and the kernel the other nodes (parent-death signal).
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import secrets
import shutil
import sys
import tempfile
import threading
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

from raygrid.errors import RaygridError
from raygrid.local.port import ray_prefix, reachable
from raygrid.local.start import LOCKED
from raygrid.local.worker_node import WorkerNode, head_processes
from raygrid.settings.model import GridSettings
from raygrid.settings.started_with import StartedWith
from raygrid.system import local_key, tmp_cleaners, user_namespace
from raygrid.system.grid_file import GridFile
from raygrid.system.logs import DIRECTORY, private
from raygrid.system.loopback import open_here
from raygrid.system.orphans import Strays
from raygrid.system.proc import Life, life_of
from raygrid.system.processors import usable_processors
from raygrid.system.ray_directory import make_private
from raygrid.system.ray_environment import RAY_SETTINGS, prepare_to_join_ray
from raygrid.system.supervisor import run_alone, stop_on_signals, write_log

TOKEN = "ray_token"  # noqa: S105 - the name of a file
OBJECT_STORE_SLACK = 128 * 1024**2
READY_S = 120.0
NODE_S = 60.0
WATCH_S = 0.25
REAPERS_S = 5.0
STRAYS_S = 5.0


def node_name(rack: int, node: int) -> tuple[str, str]:
    """Group and node name by number: `rack-a`, `rack-a-1`."""
    letters = ""
    number = rack
    while True:
        letters = chr(ord("a") + number % 26) + letters
        number = number // 26 - 1
        if number < 0:
            break
    return f"rack-{letters}", f"rack-{letters}-{node + 1}"


def prepare_environment(grid_dir: Path) -> None:
    """Set Ray's variables for a grid on one machine; must be called before Ray is imported.

    Every process of Ray gets the name of the file with its token, and not the token: environments of processes can be
    read by other processes of the user. The token is for this start of this grid only.
    """
    prepare_to_join_ray()
    token = grid_dir / TOKEN
    token.unlink(missing_ok=True)
    with open(token, "x", encoding="ascii", opener=private) as file:
        file.write(secrets.token_hex(32))
    os.environ.pop("RAY_AUTH_TOKEN", None)  # it would take precedence
    os.environ.update(RAY_SETTINGS, RAY_AUTH_TOKEN_PATH=str(token))


def leave_out_unused() -> None:
    """Start no autoscaler, no log monitor and no API server.

    Machines are never added, no driver reads logs, and without the dashboard the API server only reports usage
    statistics, which are off. `ray.init` has no arguments for that. Each is a Python process with 80 MB that starts
    before the raylet; two of them have an open port for metrics.
    """
    from ray._private.node import Node  # noqa: PLC0415 - after its environment is set

    def leave_out(node: Node, **options: object) -> None:
        """Start nothing."""

    for name in ("start_monitor", "start_log_monitor", "start_api_server"):
        setattr(Node, name, leave_out)


class GridSupervisor:
    """Starts, watches and ends the processes of one grid."""

    def __init__(self, settings: GridSettings, racks: int, nodes: int, owner: Life | None = None) -> None:
        self._settings = settings
        self._started_with = StartedWith.of(settings, racks, nodes)
        self._owner = owner
        self._head: dict[Life, str] = {}
        self._places = [node_name(rack, node) for rack in range(racks) for node in range(nodes)]
        self._ray_dir = _fresh_ray_directory(settings.grid_dir)
        self._locked = tmp_cleaners.lock(self._ray_dir)
        self._nodes: list[WorkerNode] = []
        self._grid: GridFile | None = None
        self._strays: Strays | None = None
        self.stop = threading.Event()

    def listen(self) -> None:
        """Let SIGTERM and SIGINT end the grid in order."""
        stop_on_signals(self.stop)

    def up(self) -> None:
        """Start the grid; returns when it takes jobs."""
        self._strays = Strays()
        os.environ.update(self._strays.variables)
        import ray  # noqa: PLC0415 - after its environment is set

        from raygrid.composition import ACTORS  # noqa: PLC0415
        from raygrid.parent.ingress import serve_here  # noqa: PLC0415

        group, name = self._places[0]
        write_log(f"starting Ray's head, which is node {name}")
        leave_out_unused()
        with _encodable_directory(self._ray_dir):
            context: Any = ray.init(
                address="local",
                namespace="raygrid-supervisor",
                num_cpus=usable_processors(),
                resources={group: 1},
                object_store_memory=self._object_store,
                include_dashboard=False,
                log_to_driver=False,
                _node_name=name,
                _temp_dir=str(self._ray_dir),
            )
        self.listen()  # again, because Ray has installed its own handlers
        self._head = head_processes()
        self._strays.spare()
        address = str(context.address_info["gcs_address"])
        for group, name in self._places[1:]:
            self._start_node(address, group, name)
        write_log("starting the parents")
        serve_here(self._settings, ACTORS)
        write_log("waiting until leaders have found all nodes")
        http = self._settings.http
        host = reachable(http.host)
        url = f"http://{f'[{host}]' if ':' in host else host}:{http.port}"
        key = http.own_key or local_key.needed(self._settings.grid_dir)
        self._wait_ready(url, key)
        me = life_of(os.getpid())
        assert me is not None
        settings, token = self._settings, (self._settings.grid_dir / TOKEN).read_text(encoding="ascii")
        self._grid = GridFile(
            url, me.pid, me.started, settings.name, settings.grid_dir, key, address, self._started_with, token
        )
        self._grid.write()
        write_log(f"grid {settings.name} is up at {url}")

    @property
    def _object_store(self) -> int:
        return self._settings.node.cache + OBJECT_STORE_SLACK

    def _start_node(self, address: str, group: str, name: str) -> None:
        """Start a Ray node and wait for it: starting two at once is slower than one after the other."""
        from raygrid.transport.racks import live_nodes  # noqa: PLC0415

        write_log(f"starting node {name}")
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
            f"--address={address}",
            f"--node-name={name}",
            f"--resources={json.dumps({group: 1})}",
            f"--num-cpus={usable_processors()}",
            f"--object-store-memory={self._object_store}",
            f"--temp-dir={self._ray_dir}",
            "--include-log-monitor=false",
        ]
        node = WorkerNode(group, name, command, self._settings.grid_dir / DIRECTORY / f"ray-{name}.log")
        node.start()
        self._spare(node)
        self._nodes.append(node)
        until = time.monotonic() + NODE_S
        while not any(each["NodeName"] == name for each in live_nodes()):
            if node.exit_code is not None or time.monotonic() > until:
                raise RaygridError(f"node {name} did not start; see {node.log}")
            self._pause(0.1)

    def _wait_ready(self, url: str, key: str | None) -> None:
        """Wait until every node is in the grid."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        until = time.monotonic() + READY_S
        seen = 0
        while time.monotonic() < until:
            with contextlib.suppress(OSError, ValueError):
                request = urllib.request.Request(f"{url}/nodes", headers=headers)  # noqa: S310 - the grid's own URL
                with open_here(request, timeout_s=5) as answer:
                    seen = sum(node["slots"] > 0 for node in json.load(answer)["nodes"])
                if seen >= len(self._places):
                    return
            self._pause(0.1)
        raise RaygridError(
            f"only {seen} of {len(self._places)} nodes came up within {READY_S:g} s; the logs of parents, leaders and "
            f"agents are in {self._settings.grid_dir / DIRECTORY}"
        )

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise RaygridError("stopped while starting")
        if self._orphaned:
            raise RaygridError("the process that started this grid has ended")

    @property
    def _orphaned(self) -> bool:
        return self._owner is not None and self._owner.is_over

    def watch(self) -> bool:
        """Watch the grid and restart dead nodes until it must end; gives whether it can be ended in order.

        It cannot if the head has died, because all other processes depend on the head.
        """
        while not self.stop.wait(WATCH_S):
            if self._strays is not None:
                self._strays.look()
            if self._orphaned:
                assert self._owner is not None
                write_log(f"process {self._owner.pid}, for which this grid was started, has ended; stopping the grid")
                return True
            if died := [f"{name} (process {life.pid})" for life, name in self._head.items() if life.is_over]:
                write_log(f"the head has died: {', '.join(died)}; ending the grid, `raygrid up` starts it again")
                return False
            for node in self._nodes:
                if message := node.restart_if_dead(time.monotonic(), self._is_known):
                    write_log(message)
                    self._spare(node)
        return True

    @staticmethod
    def _is_known(name: str) -> bool:
        """Whether Ray lists a node of that name as alive."""
        from raygrid.transport.racks import live_nodes  # noqa: PLC0415

        return any(node["NodeName"] == name for node in live_nodes())

    def abandon(self) -> None:
        """End at once, without ending the actors first: the kernel ends the remaining processes with this one."""
        if self._grid is not None:
            self._grid.remove()
        for node in self._nodes:
            node.end(grace_s=2.0)
        self._end_strays()
        shutil.rmtree(self._ray_dir, ignore_errors=True)
        write_log(f"grid {self._settings.name} is stopped")
        os._exit(1)

    def down(self) -> None:
        """End the grid in order: parents, leaders, agents (which kill their pricers), and Ray."""
        write_log(f"stopping grid {self._settings.name}")
        if self._grid is not None:
            self._grid.remove()
        with contextlib.suppress(Exception):
            self._end_actors()
        for node in self._nodes:
            node.terminate()
        for node in self._nodes:
            node.end(grace_s=15.0)
        with contextlib.suppress(Exception):
            import ray  # noqa: PLC0415

            ray.shutdown()
        self._end_strays()
        shutil.rmtree(self._ray_dir, ignore_errors=True)
        write_log(f"grid {self._settings.name} is stopped")

    def _spare(self, node: WorkerNode) -> None:
        if self._strays is not None and node.pid is not None:
            self._strays.spare(node.pid)

    def _end_strays(self) -> None:
        """End the remaining processes of jobs and of Ray."""
        if self._strays is not None and (left := self._strays.end_all(REAPERS_S, STRAYS_S)):
            write_log(f"{left} processes that jobs left behind could not be ended")

    def _end_actors(self) -> None:
        import ray  # noqa: PLC0415
        from ray import serve  # noqa: PLC0415

        from raygrid.transport.actors import namespace  # noqa: PLC0415

        if not ray.is_initialized():
            return
        serve.shutdown()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
        names = ray.util.list_named_actors(all_namespaces=True)
        ours = [each["name"] for each in names if each["namespace"] == namespace(self._settings)]
        for prefix in ("leader:", "agent:"):
            actors = [ray.get_actor(name, namespace(self._settings)) for name in ours if name.startswith(prefix)]
            with contextlib.suppress(Exception):
                ray.get([actor.close.remote() for actor in actors], timeout=15)
            for actor in actors:
                ray.kill(actor)


def _encodable_directory(instead: Path) -> contextlib.AbstractContextManager[None]:
    """Change the working directory if its name is not UTF-8, because Ray passes it on as text."""
    try:
        str(Path.cwd()).encode()
    except UnicodeEncodeError:
        return contextlib.chdir(instead)
    return contextlib.nullcontext()


def _fresh_ray_directory(grid_dir: Path) -> Path:
    """Make a directory for Ray's files, and remove those of earlier starts of this grid."""
    prefix = Path(ray_prefix(grid_dir))
    make_private(prefix.parent)
    for earlier in prefix.parent.glob(f"{prefix.name}*"):
        shutil.rmtree(earlier, ignore_errors=True)
    # Ray lets all users read its own directory; only the owner can read the directory around it.
    return Path(tempfile.mkdtemp(prefix=prefix.name, dir=prefix.parent))


def main() -> int:
    """Run a grid until it ends."""
    settings, racks, nodes, owner = pickle.load(sys.stdin.buffer)  # noqa: S301 - our parent wrote it # nosec B301
    if (why_not := user_namespace.enter(settings.grid_dir)) is not None:
        write_log(why_not)
    prepare_environment(settings.grid_dir)
    return run_alone(settings.grid_dir, partial(_supervise, settings, racks, nodes, owner), taken=LOCKED)


def _supervise(settings: GridSettings, racks: int, nodes: int, owner: Life | None) -> None:
    supervisor = GridSupervisor(settings, racks, nodes, owner)
    supervisor.listen()
    in_order = True
    try:
        supervisor.up()
        in_order = supervisor.watch()
    finally:
        if in_order:
            supervisor.down()
        else:
            supervisor.abandon()


if __name__ == "__main__":
    sys.exit(main())
