"""Attacks over sockets: those of Ray, of the grid, and of another job."""

from __future__ import annotations

import contextlib
import http.client
import importlib
import socket
import urllib.error
import urllib.request
from collections import Counter

from tests.hostile.attacks.attack import NotTriedError, RefusedError, attack
from tests.hostile.targets import Targets

# A call that each kind of Ray's servers answers, and refuses without the token.
CALLS = (
    "/ray.rpc.NodeInfoGcsService/CheckAlive",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
)
# Refused, another protocol, or a server of another kind.
NOT_ANSWERED = {"UNAUTHENTICATED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "UNIMPLEMENTED"}
TIMEOUT_S = 2.0


def _connect(address: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.connect(address)
    return address.replace("\0", "@")


def _connect_any(addresses: tuple[str, ...]) -> str:
    if not addresses:
        raise NotTriedError("there is none")
    errors: list[OSError] = []
    reached = []
    for address in addresses:
        try:
            reached.append(_connect(address))
        except OSError as error:
            errors.append(error)
    if not reached:
        raise errors[0]
    return f"connected to {len(reached)} of {len(addresses)}: {', '.join(reached)}"


@attack("connect-sockets")
def connect_sockets(targets: Targets) -> str:
    """Connect to each Unix socket of Ray and of the grid by its path."""
    return _connect_any(targets.sockets)


@attack("connect-abstract-sockets")
def connect_abstract_sockets(targets: Targets) -> str:
    """Connect to each abstract Unix socket of Ray and of the grid."""
    return _connect_any(tuple(f"\0{name}" for name in targets.abstract))


@attack("connect-socket:victim")
def connect_socket_of_victim(targets: Targets) -> str:
    """Connect to the Unix socket of the other job."""
    return f"connected to {_connect(targets.victim_socket)}"


@attack("connect-abstract-socket:victim")
def connect_abstract_socket_of_victim(targets: Targets) -> str:
    """Connect to the abstract Unix socket of the other job."""
    return f"connected to {_connect(f'{chr(0)}{targets.victim_abstract}')}"


@attack("connect-port:victim")
def connect_port_of_victim(targets: Targets) -> str:
    """Connect to the TCP port of the other job."""
    return _connect_port("127.0.0.1", targets.victim_port)


@attack("connect-tcp")
def connect_tcp(targets: Targets) -> str:
    """Connect to Ray's GCS over TCP."""
    return _connect_port(*next((each for each in targets.ports if each[1] == targets.gcs_port), ("127.0.0.1", 9)))


def _connect_port(host: str, port: int) -> str:
    socket.create_connection((host, port), timeout=TIMEOUT_S).close()
    return f"connected to port {port}"


@attack("connect-all-tcp")
def connect_all_tcp(targets: Targets) -> str:
    """Connect to each TCP port of the grid."""
    reached = []
    for host, port in targets.ports:
        with contextlib.suppress(OSError):
            _connect_port(host, port)
            reached.append(port)
    if not reached:
        raise RefusedError(f"none of {len(targets.ports)} ports could be reached")
    return f"connected to {len(reached)} of {len(targets.ports)} ports"


@attack("call-ray-without-token")
def call_ray_without_token(targets: Targets) -> str:
    """Make a call of Ray at each TCP port of the grid, without the token."""
    try:
        grpc = importlib.import_module("grpc")  # it has no types
    except ImportError:
        raise NotTriedError("the package grpcio is not installed") from None
    answered = []
    refusals: Counter[str] = Counter()
    for host, port in targets.ports:
        with grpc.insecure_channel(f"{host}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            for method in CALLS:
                try:
                    channel.unary_unary(method)(b"", timeout=TIMEOUT_S)
                except grpc.RpcError as error:
                    refusals[code := error.code().name] += 1
                    if code not in NOT_ANSWERED:
                        answered.append(f"{port} {method.split('/')[1]}: {code}")
                else:
                    answered.append(f"{port} {method.split('/')[1]}")
    if not answered:
        raise RefusedError(f"none of {len(targets.ports)} ports answered: {dict(refusals)}")
    return "; ".join(answered)


@attack("read-http-without-key")
def read_http_without_key(targets: Targets) -> str:
    """Ask the grid's HTTP interface for all jobs, without a key."""
    return _get("127.0.0.1", targets.http_port, "/jobs")


@attack("read-other-http")
def read_other_http(targets: Targets) -> str:
    """Ask each further port of the grid for something over HTTP: for measurements, and for a start page."""
    answered = []
    for host, port in targets.ports:
        for path in ("/metrics", "/", "/api/version"):
            if port != targets.http_port:
                with contextlib.suppress(OSError, RefusedError):
                    answered.append(_get(host, port, path))
                    break
    if not answered:
        raise RefusedError(f"none of {len(targets.ports)} ports answered")
    return "; ".join(answered)


def _get(host: str, port: int, path: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{host}:{port}{path}", timeout=TIMEOUT_S) as answer:
            return f"port {port} answered {path} with {len(answer.read())} bytes"
    except urllib.error.HTTPError as error:
        raise RefusedError(f"port {port} answered {path} with status {error.code}") from None
    except (ValueError, OSError, http.client.HTTPException) as error:
        raise RefusedError(f"port {port}: {error}") from None


@attack("send-udp")
def send_udp(targets: Targets) -> str:
    """Send a datagram to the other job, which answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(TIMEOUT_S)
        sender.connect(("127.0.0.1", targets.victim_udp_port))
        sender.send(b"x")
        sender.recv(64)
    return "sent a datagram and got an answer"


@attack("raw-socket")
def raw_socket(targets: Targets) -> str:
    """Open a socket that sees all packets."""
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)).close()
    return "opened it"
