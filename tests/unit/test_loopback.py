"""Requests to this machine go through no proxy, whatever the environment has."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from raygrid.client import AsyncClient, Client
from raygrid.client.endpoint import Endpoint
from raygrid.cluster import HostSpec
from raygrid.errors import RaygridError
from raygrid.local.supervisor import GridSupervisor, prepare_environment
from raygrid.settings.model import load_settings
from raygrid.system.loopback import is_this_machine, own_addresses, without_proxy
from raygrid.system.ray_environment import environment_beside_ray
from tests.support.recording_proxy import RecordingProxy, recording_proxy

NODES = {"nodes": [{"node": "rack-a-1", "group": "rack-a", "state": "ok", "slots": 1, "running": 0}]}


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingProxy]:
    """A proxy that the environment names for every request."""
    with recording_proxy() as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


class _Parent(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(NODES if self.path == "/nodes" else {"status": "ok"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def parent() -> Iterator[int]:
    """The port of a server that answers on all addresses of this machine as a parent does."""
    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), _Parent) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join(10)


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LocalHost", "localhost.", "127.0.0.1", "127.8.9.10", "127.1", "0.0.0.0"),
        *("::1", "[::1]", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", *own_addresses()),
    ],
)
def test_these_hosts_are_this_machine(host: str) -> None:
    """All ways of writing a loopback address count, and so do the machine's own addresses."""
    assert is_this_machine(host)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1.example.com", "127.example.com", "localhost.example.com", "grid", "", "1", "x" * 300),
        *("198.51.100.77", "2001:db8::1"),
    ],
)
def test_these_hosts_are_other_machines(host: str) -> None:
    """A name that only looks like a loopback address is another machine's, for which the site's proxy is meant."""
    assert not is_this_machine(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", *own_addresses()[:1]])
def test_clients_ask_this_machine_directly(proxy: RecordingProxy, parent: int, host: str) -> None:
    """Neither the blocking nor the async client asks the proxy for a grid on this machine."""

    async def ask() -> None:
        async with AsyncClient(f"http://{host}:{parent}") as client:
            assert [node.node for node in await client.nodes()] == ["rack-a-1"]

    with Client(f"http://{host}:{parent}") as client:
        assert [node.node for node in client.nodes()] == ["rack-a-1"]
    asyncio.run(ask())
    assert proxy.asked == []


def test_of_several_entries_only_those_elsewhere_go_through_the_proxy(proxy: RecordingProxy, parent: int) -> None:
    """A grid with one entry here and one elsewhere: the proxy is asked for the latter alone."""
    here, elsewhere = f"http://127.0.0.1:{parent}", "http://grid.test:8000"

    async def ask(urls: list[str]) -> None:
        async with AsyncClient(urls, retry_s=0) as client:
            await client.nodes()

    with Client([here, elsewhere]) as client:
        client.nodes()
    asyncio.run(ask([here, elsewhere]))
    assert proxy.asked == []
    with Client([elsewhere, here], retry_s=0) as client, pytest.raises(RaygridError):
        client.nodes()
    with pytest.raises(RaygridError):
        asyncio.run(ask([elsewhere, here]))
    assert proxy.asked == ["GET http://grid.test:8000/nodes HTTP/1.1"] * 2
    assert Endpoint(f"http://[::1]:1,{elsewhere}").own_hosts == {"::1"}


def test_the_supervisor_asks_its_parents_directly(proxy: RecordingProxy, parent: int, tmp_path: Path) -> None:
    """A grid comes up although the environment names a proxy; its processes get an exception for this machine."""
    supervisor = GridSupervisor(load_settings(storage={"state_dir": tmp_path}), 1, 1)
    try:
        supervisor._wait_ready(f"http://127.0.0.1:{parent}", None)
    finally:
        shutil.rmtree(supervisor._ray_dir)
    assert proxy.asked == []


def test_all_tiers_use_no_proxy_for_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Supervisor and hosts of a cluster except this machine, and keep what the site excepts."""
    monkeypatch.setattr(os, "environ", {"no_proxy": "a.test, b.test", "NO_PROXY": "c.test"})
    prepare_environment(tmp_path)
    host = HostSpec(Path(), address="192.0.2.9:6379").environment({"http_proxy": "http://p.test"})
    for environment in (os.environ, host):
        for name in ("no_proxy", "NO_PROXY"):
            assert {"localhost", "127.0.0.1", "127.0.0.0/8", "::1"} <= set(environment[name].split(","))
    assert os.environ["no_proxy"].startswith("a.test,b.test,c.test,")
    assert "192.0.2.9" in host["NO_PROXY"].split(",")
    assert host["http_proxy"] == "http://p.test"


def test_below_uv_run_ray_uploads_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray's hook for `uv run` is off for supervisors, hosts of a cluster and drills, however it is asked for."""
    asked = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "1", "RAY_RUNTIME_ENV_HOOK": "ray._private.runtime_env.uv.hook"}
    monkeypatch.setattr(os, "environ", dict(asked))
    prepare_environment(tmp_path)
    host = HostSpec(Path(), head=True).environment(asked)
    for environment in (os.environ, host, environment_beside_ray(asked)):
        assert environment["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == "0"
        assert "RAY_RUNTIME_ENV_HOOK" not in environment


def test_nothing_is_excepted_twice() -> None:
    """Tiers start one another, each with the variables of the one before."""
    once = without_proxy({})
    assert without_proxy(once) == once
