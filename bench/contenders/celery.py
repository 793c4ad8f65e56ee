"""Celery with Redis as broker and result backend, over a Unix socket; one group of tasks a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.contenders.contender import AbsentError, Contender, Run, installed
from bench.contenders.spawn import require_all_well

_UP_S = 30.0


def _version() -> str:
    version = installed("celery")
    if shutil.which("redis-server") is None:
        raise AbsentError("there is no redis-server on this machine (Debian's package redis-server has it)")
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    redis = next((word[2:] for word in said.split() if word.startswith("v=")), "?")
    return f"{version}, redis-py {installed('redis')}, Redis {redis}"


@contextmanager
def _redis(home: Path) -> Iterator[Path]:
    socket = home / "redis.sock"
    # Nothing is written to disk, which is fastest.
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
    server = subprocess.Popen([*command, "--dir", str(home)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _UP_S
        while not socket.exists():
            if server.poll() is not None or time.monotonic() > until:
                raise AbsentError("redis-server did not start")
            time.sleep(0.05)
        yield socket
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def _worker(at_once: int) -> Iterator[None]:
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR"]
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "bench.contenders.celery_app", "worker", *quiet]
    worker = subprocess.Popen(
        [*command, f"--concurrency={at_once}", "--pool=prefork"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        worker.terminate()
        try:
            worker.wait(15)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


@contextmanager
def _opened(command: Sequence[str], at_once: int) -> Iterator[Run]:
    with (
        tempfile.TemporaryDirectory(prefix="celery-", ignore_cleanup_errors=True) as home,
        _redis(Path(home)) as socket,
    ):
        os.environ["BENCH_REDIS"] = str(socket)
        from bench.contenders.celery_app import job

        with _worker(at_once):
            job.delay(["/bin/true"], b"").get(timeout=_UP_S)

            def run(jobs: int, payload: bytes) -> float:
                from celery import group

                began = time.perf_counter()
                sent = group(job.s(list(command), payload) for _ in range(jobs)).apply_async()
                codes = sent.join_native()
                seconds = time.perf_counter() - began
                require_all_well(codes, jobs)
                return seconds

            yield run


CONTENDER = Contender(
    "one worker, prefork, prefetch 64, no gossip, events or heartbeat; Redis in memory over a Unix socket; results "
    "not ignored, because only a result shows that a job has ended",
    "a queue on disk, running the jobs of a dead worker again, results beyond exit codes, input files, job directories",
    _version,
    _opened,
)
