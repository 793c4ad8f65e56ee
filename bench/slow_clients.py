"""The memory that a parent needs for a thousand slow uploads and slow readers: `python bench/slow_clients.py`.

A parent with a grid of one node runs in a process of its own, behind the listener of a grid on one machine. The senders
send one byte per second of a form; the readers ask for a result of 3 MB and for a batch of such results, and read
nothing. Prints the parent's resident memory before, its peak meanwhile, and how long other requests take.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from raygrid.parent.http.listener import Listener
from raygrid.system.proc import cpu_and_memory
from tests.support.small_grid import SmallGrid

SIZE = 3 * 1024**2
SCRIPT = f"head -c {SIZE} /dev/urandom > random"
LOOK_S = 0.25


async def serve(directory: Path, port: int) -> None:
    """Run the parent until it is ended."""
    async with SmallGrid(directory) as grid:
        files = [(f"j{number}", ("job.sh", SCRIPT.encode())) for number in range(8)]
        await grid.http.post("/batches", files=files, data={"pricer": "shell", "batchId": "b"})
        await grid.http.get("/batches/b/results", params={"wait": 60})
        listener = Listener(grid.app, "127.0.0.1", port)
        await listener.open()
        print("ready", flush=True)
        await asyncio.Event().wait()


async def slow_sender(port: int) -> None:
    """Send the head of an upload, and then a byte per second."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /submit HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b'Content-Length: 1000000\r\n\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    )
    with contextlib.suppress(OSError):
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(1)


async def slow_reader(port: int, number: int) -> None:
    """Ask for a result, or for a batch of results, and read nothing."""
    path = "/batches/b/results?wait=0" if number % 2 else f"/result/j{number % 8}"
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await asyncio.sleep(3600)


async def measure(pid: int, port: int, sender_count: int, reader_count: int, for_s: float) -> None:
    """Print what the slow clients cost."""
    before = cpu_and_memory(pid).rss_bytes
    senders = [asyncio.create_task(slow_sender(port)) for _ in range(sender_count)]
    readers = [asyncio.create_task(slow_reader(port, number)) for number in range(reader_count)]
    peak, took = before, []
    until = time.monotonic() + for_s
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        while time.monotonic() < until:
            started = time.perf_counter()
            (await http.get("/status/j0")).raise_for_status()
            took.append(time.perf_counter() - started)
            peak = max(peak, cpu_and_memory(pid).rss_bytes)
            await asyncio.sleep(LOOK_S)
    for task in (*senders, *readers):
        task.cancel()
    await asyncio.gather(*senders, *readers, return_exceptions=True)
    mb = 1024**2
    print(f"{sender_count} slow uploads and {reader_count} slow readers for {for_s:g} s")
    print(f"resident memory of the parent: {before / mb:.0f} MB before, {peak / mb:.0f} MB at most")
    print(f"growth: {(peak - before) / mb:.0f} MB")
    print(f"other requests: median {1000 * statistics.median(took):.1f} ms, longest {1000 * max(took):.0f} ms")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--senders", type=int, default=1_000)
    parser.add_argument("--readers", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--serve", nargs=2)
    given = parser.parse_args()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if given.serve:
        asyncio.run(serve(Path(given.serve[0]), int(given.serve[1])))
        return
    port = 18_423
    with tempfile.TemporaryDirectory() as directory:
        words = [sys.executable, __file__, "--serve", directory, str(port)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as parent:
            assert parent.stdout is not None
            try:
                while "ready" not in parent.stdout.readline():
                    pass
                asyncio.run(measure(parent.pid, port, given.senders, given.readers, given.seconds))
            finally:
                parent.send_signal(signal.SIGKILL)


if __name__ == "__main__":
    main()
