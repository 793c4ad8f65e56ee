"""Workload 4: one synchronous submit at a time on an idle grid, each followed by a bare spawn of the same command.

The standard library's HTTP client sends a prepared request, so that the cost of a client is not included. The grid's
own client is measured as well.
"""

from __future__ import annotations

import subprocess
import time
from http.client import OK, HTTPConnection
from urllib.parse import urlsplit

from bench.figures import Figure, Plan, percentile
from bench.grid import grid
from bench.workloads import Workload
from raygrid.client import Client

COMMAND = ("/bin/true",)
JOBS = 300
P50, P99 = "ms p50", "ms p99"
_INPUT = b"x" * 1024
_BOUNDARY = "input"
_FORM = b"".join(
    (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="input"\r\n\r\n'.encode(),
        _INPUT,
        f"\r\n--{_BOUNDARY}--\r\n".encode(),
    )
)
_HEADERS = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}


def _submitted(http: HTTPConnection, job_id: str) -> float:
    """Milliseconds from a submit to its result."""
    began = time.perf_counter()
    http.request("POST", f"/submit/{job_id}", _FORM, _HEADERS)
    answer = http.getresponse()
    result = answer.read()
    took_ms = (time.perf_counter() - began) * 1_000
    assert (answer.status, result[:2]) == (OK, b"PK"), result
    return took_ms


def _by_the_client(client: Client) -> float:
    began = time.perf_counter()
    client.submit(_INPUT).result()
    return (time.perf_counter() - began) * 1_000


def _spawned() -> float:
    began = time.perf_counter()
    subprocess.run(COMMAND, check=True)
    return (time.perf_counter() - began) * 1_000


def _measure(plan: Plan) -> list[Figure]:
    jobs = plan.jobs(JOBS, at_least=20)
    found: dict[str, list[list[float]]] = {name: [] for name in ("bare spawn", "raygrid", "raygrid.Client")}
    with grid({"bench": {"command": list(COMMAND)}}, slots=plan.at_once) as bench:
        http = HTTPConnection(urlsplit(bench.url).netloc, timeout=60)
        for number in range(plan.rounds + 1):  # the first warms up
            took: dict[str, list[float]] = {name: [] for name in found}
            times = jobs if number else max(10, jobs // 5)
            for job in range(times):
                took["raygrid"].append(_submitted(http, f"round-{number}-{job}"))
                took["bare spawn"].append(_spawned())
            took["raygrid.Client"] = [_by_the_client(bench.client) for _ in range(times)]
            if number:
                for name, each in took.items():
                    found[name].append(each)
        http.close()
    said = {
        "bare spawn": "subprocess.run",
        "raygrid": "POST /submit/{jobId}, until its ZIP is here; http.client, one connection",
        "raygrid.Client": "client.submit().result(): two requests, so that a lost connection loses nothing",
    }
    return [
        Figure(of, what, tuple(percentile(each, share) for each in rounds), said[of])
        for of, rounds in found.items()
        for what, share in ((P50, 0.5), (P99, 0.99))
    ]


WORKLOAD = Workload(f"one synchronous submit of {COMMAND[0]} at a time on an idle grid, {JOBS} a round", _measure)
