"""A cluster on the five hosts, brought up by `ray up` from the `cluster.yaml` that raygrid ships.

Only what must differ is changed: addresses, the SSH key, and that the hosts use this checkout instead of installing a
release.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raygrid.client import Client
from tests.faults.hosts import ADDRESSES, DESK, OPT, SHARED, Hosts

PROJECT = Path(__file__).parents[2]
PORT = 8000
KEY = "a-key-for-the-tests-of-clusters"
PRICERS: dict[str, Any] = {
    "shell": {"command": ["sh", "{input}"], "result": "stdout"},
    "true": {"command": "true"},
    "drill": {"command": ["sh", "-c", 'sleep 0.2; cat "$0"', "{input}"], "result": "stdout"},
}


@dataclass
class Cluster:
    """A cluster on hosts, as an operator at the desk sees it."""

    hosts: Hosts
    directory: Path
    settings: dict[str, Any]
    haproxy: bool = True

    @classmethod
    def prepare(cls, hosts: Hosts, *, database: str, storage: dict[str, Any] | None = None, **settings: Any) -> Cluster:
        """Lay the operator's files out; nothing runs yet."""
        directory = hosts.directory / "desk"
        (directory / "home/.ray").mkdir(parents=True)
        (hosts.directory / "shared/blobs").mkdir(exist_ok=True)
        (directory / "home/.ray/auth_token").write_text(secrets.token_hex(32))
        cluster = cls(
            hosts,
            directory,
            {
                "pricers": PRICERS,
                "default_pricer": "shell",
                "http": {"host": "0.0.0.0", "port": PORT, "parents": 4, "api_keys": [{"name": "test", "key": KEY}]},
                "storage": {
                    "state_dir": f"{OPT}/state",
                    "database": database,
                    "blobs": f"{SHARED}/blobs",
                    **(storage or {}),
                },
                "node": {"slots": 2},
                **settings,
            },
        )
        cluster.write_settings()
        return cluster

    def write_settings(self, **changes: Any) -> None:
        """Write grid.yaml."""
        self.settings |= changes
        (self.directory / "head").mkdir(exist_ok=True)
        (self.directory / "head/grid.yaml").write_text(yaml.safe_dump(self.settings))
        (self.directory / "head/grid.yaml").chmod(0o600)
        (self.directory / "head/known_hosts").write_text(self.hosts.known_hosts)

    def write_cluster_file(self, workers: Sequence[str]) -> Path:
        """Write the operator's cluster.yaml for some of the hosts."""
        shipped = yaml.safe_load((PROJECT / "cluster.yaml").read_text())
        shipped["provider"] |= {"head_ip": ADDRESSES["head"], "worker_ips": [ADDRESSES[worker] for worker in workers]}
        shipped["auth"] = {"ssh_user": "root", "ssh_private_key": str(self.hosts.key)}
        shipped |= {"min_workers": len(workers), "max_workers": len(workers)}
        shipped["setup_commands"] = [line for line in shipped["setup_commands"] if "/venv/bin/" not in line]
        if not self.haproxy:
            for key in ("head_start_ray_commands", "worker_start_ray_commands"):
                shipped[key] = [line.replace("host start", "host start --no-haproxy") for line in shipped[key]]
        shipped["file_mounts"] = {
            f"{OPT}/head": str(self.directory / "head"),
            f"{OPT}/ssh": str(PROJECT / "deploy/ssh"),
            "~/.ray/auth_token": str(self.directory / "home/.ray/auth_token"),
        }
        path = self.directory / "cluster.yaml"
        path.write_text(yaml.safe_dump(shipped, sort_keys=False))
        return path

    def ray(self, *command: str, timeout_s: float = 240.0) -> str:
        """Run a command of Ray at the desk, such as `up`; gives its output."""
        done = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", *command],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
            env=self.environment,
            cwd=self.directory,
        )
        message = f"{done.stdout}{done.stderr}"
        assert done.returncode == 0, f"ray {' '.join(command)}: exit code {done.returncode}\n{message}"
        return message

    @property
    def environment(self) -> Mapping[str, str]:
        """The operator's environment: a home of its own, and a place for Ray's notes of clusters."""
        return {
            "PATH": f"{PROJECT}/deploy/ssh:{os.environ['PATH']}",
            "RAYGRID_KNOWN_HOSTS": str(self.directory / "head/known_hosts"),
            "HOME": str(self.directory / "home"),
            "RAY_TMPDIR": str(self.directory),
            "RAY_USAGE_STATS_ENABLED": "0",
            "LANG": "C.UTF-8",
        }

    @property
    def is_up(self) -> bool:
        """Whether the head runs Ray."""
        return bool(self.hosts.processes("head", "gcs_server"))

    def raygrid(self, *command: str, host: str = "head", timeout_s: float = 120.0) -> str:
        """Run `raygrid` on a host, with the cluster's key."""
        environment = {"RAYGRID_API_KEY": KEY, "RAYGRID_URL": f"http://127.0.0.1:{PORT}"}
        return self.hosts.run(host, "raygrid", *command, timeout_s=timeout_s, env=environment).stdout

    def drill(self, *words: str, host: str = "head", timeout_s: float = 900.0) -> list[dict[str, Any]]:
        """`raygrid drill … --yes --json` on a host; gives its scenarios, whether they went well or not."""
        environment = {"RAYGRID_API_KEY": KEY, "RAYGRID_URL": f"http://127.0.0.1:{PORT}"}
        command = ("raygrid", "drill", *words, "--yes", "--json")
        done = self.hosts.run(host, *command, timeout_s=timeout_s, env=environment, check=False)
        assert done.stdout, f"raygrid drill {' '.join(words)}: exit code {done.returncode}\n{done.stderr}"
        found: list[dict[str, Any]] = json.loads(done.stdout)["scenarios"]
        return found

    def wait_ready(self, nodes: int, timeout_s: int = 300) -> None:
        """`raygrid wait-ready`, at the desk's side of the head."""
        self.raygrid("wait-ready", "--nodes", str(nodes), "--timeout", f"{timeout_s}s", timeout_s=timeout_s + 20)

    def copy_settings(self) -> None:
        """Bring grid.yaml to the head, as `ray rsync-up` would."""
        self.hosts.file("head", f"{OPT}/grid.yaml").write_bytes((self.directory / "head/grid.yaml").read_bytes())

    def up(self, workers: Sequence[str] = ("a1", "a2", "b1", "b2")) -> str:
        """`ray up cluster.yaml`."""
        return self.ray("up", str(self.write_cluster_file(workers)), "--yes")

    def down(self) -> str:
        """`ray down cluster.yaml`."""
        return self.ray("down", str(self.directory / "cluster.yaml"), "--yes")

    def url(self, host: str = "head") -> str:
        """The URL of a host's entry."""
        return f"http://{ADDRESSES[host]}:{PORT}"

    def client(self, host: str = "head") -> Client:
        """A client at the desk that enters through a host."""
        return Client(self.url(host), KEY, plain_http=True)


__all__ = ["DESK", "KEY", "PORT", "Cluster"]
