"""What the cases of a run share: a scratch directory, an environment, compiled programs, a grid."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from field import tools
from field.grid import Grid, Ran, run

PROGRAMS = Path(__file__).parent / "programs"
FIELD = Path(__file__).resolve().parents[1]
SLOTS = 4
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "DOTNET_ROOT")


class GridError(Exception):
    """A grid did not start."""


class Desk:
    """The things that cases share. `close` stops all grids; from then on no case or grid is started."""

    def __init__(self, scratch: Path, raygrid: Path | None, port: int | None, jobs: int) -> None:
        self.scratch = scratch
        self.jobs = jobs
        self._raygrid = raygrid
        self._port = port
        self._shared: Grid | None = None
        self._started: list[Grid] = []
        self._names = 0
        self._lock = threading.Lock()
        self.is_closed = False

    @property
    def env(self) -> dict[str, str]:
        """The environment of all commands: a separate home directory, no proxies, no settings of the user."""
        env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        home = self.scratch / "home"
        home.mkdir(exist_ok=True)
        env["HOME"] = str(home)
        if self._raygrid is not None:
            env["PYTHONPATH"] = str(self._raygrid)
        return env

    @property
    def python(self) -> str:
        """The Python that runs this; the command `raygrid` is in the same directory."""
        return sys.executable

    @property
    def copied(self) -> Path:
        """A copy of a program that only a pricer of the shared grid uses."""
        return self.scratch / "copied"

    @property
    def uv(self) -> Path:
        """The command `uv` in the directory of this Python."""
        return Path(sys.executable).with_name("uv")

    @property
    def count(self) -> int:
        """The number of grids so far."""
        return self._names

    def program(self, name: str) -> Path:
        """A program of `programs/`."""
        return PROGRAMS / name

    def run(self, *command: str | Path, timeout_s: float = 120.0) -> Ran:
        """Run a command in the scratch directory."""
        return run(command, env=self.env, cwd=self.scratch, timeout_s=timeout_s)

    def run_isolated(self, *command: str, timeout_s: float) -> Ran:
        """Run a command as the first process of a PID namespace, in which the user nobody can execute this Python."""
        scratch = self.scratch / "isolated"
        scratch.mkdir(exist_ok=True)
        shutil.chown(scratch, tools.NOBODY, tools.NOBODY)
        self.scratch.chmod(0o755)
        env = {**self.env, "TMPDIR": str(scratch), "HOME": str(scratch)}
        env["PYTHONPATH"] = os.pathsep.join(str(place) for place in (self._raygrid, FIELD) if place is not None)
        needed = [Path(sys.base_prefix), Path(sys.prefix), FIELD, *([self._raygrid] if self._raygrid else [])]
        return run(
            [*tools.OWN_NAMESPACE, "sh", "-c", tools.REVEAL, "sh", *_hidden(needed), "--", *command],
            env=env,
            cwd=scratch,
            timeout_s=timeout_s,
        )

    def build(self, compiler: str, source: str, target: str, *more: str) -> Path:
        """Compile a program, unless that was done; returns its path."""
        built = self.scratch / target
        if not built.exists():
            out = f"-out:{built}" if compiler == "mcs" else f"-o{built}"
            done = self.run(compiler, *more, out, self.program(source))
            if done.returncode != 0:
                raise GridError(f"{compiler} {source}: {done.stderr.decode(errors='replace')}")
        return built

    def new_grid(self, settings: dict[str, Any], **more: Any) -> Grid:
        """A further grid, not started yet, with its own name, port and directories."""
        with self._lock:
            if self.is_closed:
                raise GridError("the run is ending, so no grid is started")
            self._names += 1
            name = f"field{self._names}"
        grid = Grid(name, self.new_port(), self.scratch / more.pop("folder", name), self.env, settings, **more)
        self._started.append(grid)
        return grid

    def new_port(self) -> int:
        """A port that nothing listens on."""
        if self._port is not None:
            with self._lock:
                self._port += 1
                return self._port - 1
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    @property
    def grid(self) -> Grid:
        """The grid that most cases share, started at the first use."""
        if self._shared is None:
            grid = self.new_grid(self.shared_settings())
            up = grid.up()
            if up.returncode != 0:
                raise GridError(f"the shared grid did not start: {up.stderr.decode(errors='replace')[-600:]}")
            self._shared = grid
        return self._shared

    def shared_settings(self) -> dict[str, Any]:
        """Settings of the shared grid: a shell, and the programs that this machine can build and run."""
        pricers: dict[str, dict[str, Any]] = {
            "shell": {"command": ["sh", "{input}"]},
            "cat": {"command": ["cat", "{input}"], "result": "stdout"},
            "show": {"command": ["sh", "-c", SHOW, "{input}"], "result": "stdout"},
            "show_args": {"command": ["printf", "%s\\n", "{args}"], "result": "stdout"},
            "versioned": versioned("one"),
            "little": {"command": ["sh", "{input}"], "output": "2MB"},
            "warm_leaves": {"command": ["sh", "-c", "read -r line; exit 0"], "mode": "warm"},
            "warm_closes": {"command": ["sh", "-c", "read -r line; exec >&-; sleep 2"], "mode": "warm"},
        }
        shutil.copy(shutil.which("cat") or "/bin/cat", self.copied)
        pricers["copied"] = {"command": [str(self.copied), "{input}"]}
        pricers |= self._windows() | self._dotnet() | self._java()
        return {"pricers": pricers, "default_pricer": "shell", "node": {"slots": SLOTS}}

    def _windows(self) -> dict[str, dict[str, Any]]:
        if not (tools.WINE.found() and tools.MINGW.found()):
            return {}
        program = self.build("x86_64-w64-mingw32-gcc", "windows_pricer.c", "pricer.exe")
        prefix = self.scratch / "wine"
        env = {"WINEPREFIX": str(prefix), "WINEDEBUG": "-all", "HOME": self.env["HOME"]}
        return {"windows": {"command": [shutil.which("wine"), str(program), "{input}"], "env": env, "timeout_s": 60}}

    def _dotnet(self) -> dict[str, dict[str, Any]]:
        runtime = tools.dotnet()
        if runtime is None or not tools.MCS.found():
            return {}
        program = self.build("mcs", "DotNetPricer.cs", "DotNetPricer.dll")
        version = next((runtime.parent / "shared" / "Microsoft.NETCore.App").iterdir()).name
        program.with_suffix(".runtimeconfig.json").write_text(
            f'{{"runtimeOptions": {{"framework": {{"name": "Microsoft.NETCore.App", "version": "{version}"}}}}}}'
        )
        env = {"DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1"}  # otherwise it needs a library that may be missing
        return {"dotnet": {"command": [str(runtime), str(program), "{input}"], "env": env}}

    def _java(self) -> dict[str, dict[str, Any]]:
        if not tools.JAVA.found():
            return {}
        java, program = shutil.which("java"), str(self.program("JavaPricer.java"))
        return {
            "java_zgc": {"command": [java, "-XX:+UseZGC", "-Xms2g", "-Xmx2g", program, "{input}"]},
            "java_g1": {"command": [java, "-XX:+UseG1GC", program, "{input}"]},
        }

    def close(self) -> None:
        """Stop every grid that was made here."""
        with self._lock:
            self.is_closed = True
        for grid in self._started:
            if (grid.state_dir / grid.name).exists():
                grid.down()


def _hidden(places: Sequence[Path]) -> list[str]:
    """For each path that other users cannot reach: the first directory that denies them, and the path."""
    found = []
    for place in places:
        way = [*reversed(place.resolve().parents)]
        closed = next((each for each in way if not each.stat().st_mode & stat.S_IXOTH), None)
        if closed is not None:
            found += [str(closed), str(place.resolve())]
    return found


def versioned(version: str) -> dict[str, Any]:
    """A pricer that prints its version after the seconds that its input names."""
    return {"command": ["sh", "-c", f'sleep "$(cat "$0")"; echo {version}', "{input}"], "version": version}


SHOW = 'basename "$0"; od -An -v -tx1 "$0" | tr -d " \\n"'
"""A pricer that prints the name of its input and its content in hex."""
