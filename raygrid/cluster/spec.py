"""What a machine of a cluster runs: Ray's head or a worker, its rack, and Ray's settings."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from raygrid.errors import SettingsError
from raygrid.system.ray_environment import RAY_SETTINGS, environment_beside_ray

# For the results in a node's cache (node.cache, by default 64 MB) and for Ray's own objects.
OBJECT_STORE = 192 * 1024**2
# If this file is in the supervisor's directory, the supervisor ends for good, and a head ends the cluster.
STOP = "stop"
REDIS = ("redis://", "rediss://")


@dataclass(frozen=True, slots=True)
class HostSpec:
    """One machine of a cluster.

    Attributes:
        directory: directory of the supervisor's log, lock and state.
        head: whether it is the head, which runs no pricers.
        address: `host:port` of the head, for workers.
        port: the head's port.
        rack: the rack of a worker, which is its group; None for a machine without pricers.
        name: the node's name.
        storage: where the head keeps Ray's state for a restart: `rocksdb` (a directory of its own), a `redis://` URL,
            or `memory` (the state is lost with the head).
        object_store: bytes of shared memory for Ray's objects.
        haproxy: whether HTTP comes in through HAProxy instead of Ray Serve's own proxy.
        ray_args: further options of `ray start`.
    """

    directory: Path
    head: bool = False
    address: str | None = None
    port: int = 6379
    rack: str | None = None
    name: str = ""
    storage: str = "rocksdb"
    object_store: int = OBJECT_STORE
    haproxy: bool = True
    ray_args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.head == bool(self.address):
            raise SettingsError("a machine is either the head (--head) or a worker (--address HEAD:PORT)")
        if self.address and not _is_address(self.address):
            raise SettingsError(f"--address must be HOST:PORT of the head, not {self.address!r}")
        if self.head and self.rack:
            raise SettingsError("the head runs no pricers, so it has no rack; leave --rack out")
        if self.head and self.storage not in ("rocksdb", "memory") and not self.storage.startswith(REDIS):
            raise SettingsError(f"--storage must be rocksdb, memory or redis://HOST:PORT, not {self.storage!r}")

    @property
    def public(self) -> dict[str, object]:
        """The values for comparison, without the Redis URL, which may contain a password."""
        storage = self.storage.partition(":")[0]
        return asdict(self) | {"directory": str(self.directory), "ray_args": list(self.ray_args), "storage": storage}

    @property
    def head_address(self) -> tuple[str, int]:
        """Host and port of the head."""
        if self.address is None:
            return "127.0.0.1", self.port
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def gcs_directory(self) -> Path:
        """Where the head keeps Ray's state with `rocksdb`."""
        return self.directory / "gcs"

    def command(self) -> list[str]:
        """The `ray start` command that runs while this machine is part of the cluster."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        command.append(f"--node-name={self.name or socket.gethostname()}")
        command.append(f"--object-store-memory={self.object_store}")
        if self.head:
            # No dashboard: anyone who reaches it can run code. `--include-dashboard=true` in ray_args turns it on.
            command += ["--head", f"--port={self.port}", "--num-cpus=0", "--include-dashboard=false"]
        else:
            command += [f"--address={self.address}", f"--resources={json.dumps({self.rack: 1} if self.rack else {})}"]
        # Each node has a process that sends logs to drivers; no driver of raygrid reads them.
        return [*command, "--include-log-monitor=false", *self.ray_args]

    @property
    def public_environment(self) -> dict[str, str]:
        """Ray's settings that every process of the cluster must share."""
        ours = {
            # The token is in ~/.ray/auth_token (make it with: ray get-auth-token --generate).
            **RAY_SETTINGS,
            # Serve's own servers lose the body of a request that offers an upgrade, as Java's HTTP client does.
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "raygrid.parent.http.upgrades.for_serve",
            # A replaced parent listens for this long, until all entries know of its replacement.
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
            # Workers wait this long for a head that restarts.
            "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
        }
        if self.haproxy:
            ours["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
            # A parent's machine that does not answer delays a request by one second (Ray's default: 5), and health
            # checks are frequent enough (Ray's default: every 5 s) to take it out of use after a few seconds.
            ours["RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER"] = "2s"
            ours["RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S"] = "1"
            # In a separate thread, parents would buffer without limit for clients that read slowly or send fast.
            ours["RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD"] = "0"
        return ours

    def environment(self, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Variables for Ray on this machine; inherited values take precedence."""
        ours = self.public_environment
        if self.head and self.storage == "rocksdb":
            ours |= {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(self.gcs_directory)}
        elif self.head and self.storage.startswith(REDIS):
            ours["RAY_REDIS_ADDRESS"] = self.storage
        # The head is inside the site, so proxies for outgoing requests are not used for its address.
        return {**ours, **environment_beside_ray(inherited, [self.head_address[0]])}

    def to_json(self) -> str:
        """Write the spec as JSON, for the supervisor's standard input."""
        return json.dumps(asdict(self) | {"directory": str(self.directory)})

    @classmethod
    def from_json(cls, text: str) -> HostSpec:
        """Read the JSON of `to_json`."""
        values = json.loads(text)
        return cls(**values | {"directory": Path(values["directory"]), "ray_args": tuple(values["ray_args"])})


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 1 <= int(port) <= 65535


def rack_of(file: Path, given: str | None) -> str | None:
    """The rack of this machine: the given one, or the word in a file; None if there is neither."""
    if given is not None:
        return given or None
    try:
        words = file.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read this machine's rack from {file}: {error}") from error
    if len(words) != 1:
        raise SettingsError(f"{file} must hold one word, the name of this machine's rack, such as: rack-a")
    return words[0]
