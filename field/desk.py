"""What the cases of one run share: a scratch directory, an environment, programs that were built, one grid."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

from field import tools
from field.grid import Grid, Ran, run

PROGRAMS = Path(__file__).parent / "programs"
SLOTS = 4
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "DOTNET_ROOT")


class GridError(Exception):
    """A grid did not come up."""


class Desk:
    """A user's desk. `close` stops what was started."""

    def __init__(self, scratch: Path, raygrid: Path | None, port: int | None, jobs: int) -> None:
        self.scratch = scratch
        self.jobs = jobs
        self._raygrid = raygrid
        self._port = port
        self._shared: Grid | None = None
        self._started: list[Grid] = []
        self._names = 0

    @property
    def env(self) -> dict[str, str]:
        """The environment of all commands: a home of its own, no proxies, no settings of the user's."""
        env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        home = self.scratch / "home"
        home.mkdir(exist_ok=True)
        env["HOME"] = str(home)
        if self._raygrid is not None:
            env["PYTHONPATH"] = str(self._raygrid)
        return env

    @property
    def python(self) -> str:
        """The Python that runs this, beside which the command lies."""
        return sys.executable

    def program(self, name: str) -> Path:
        """A program of `programs/`."""
        return PROGRAMS / name

    def run(self, *command: str | Path, timeout_s: float = 120.0) -> Ran:
        """Run a command in the scratch directory."""
        return run(command, env=self.env, cwd=self.scratch, timeout_s=timeout_s)

    def build(self, compiler: str, source: str, target: str, *more: str) -> Path:
        """Compile a program, once; gives where it is."""
        built = self.scratch / target
        if not built.exists():
            out = f"-out:{built}" if compiler == "mcs" else f"-o{built}"
            done = self.run(compiler, *more, out, self.program(source))
            if done.returncode != 0:
                raise GridError(f"{compiler} {source}: {done.stderr.decode(errors='replace')}")
        return built

    def new_grid(self, settings: dict[str, Any], **more: Any) -> Grid:
        """A further grid, not started yet, with a name, a port and directories of its own."""
        self._names += 1
        name = f"field{self._names}"
        grid = Grid(name, self._next_port(), self.scratch / more.pop("folder", name), self.env, settings, **more)
        self._started.append(grid)
        return grid

    def _next_port(self) -> int:
        if self._port is not None:
            self._port += 1
            return self._port - 1
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    @property
    def grid(self) -> Grid:
        """The grid that most cases share; started when it is first asked for."""
        if self._shared is None:
            grid = self.new_grid(self.shared_settings())
            up = grid.up()
            if up.returncode != 0:
                raise GridError(f"the shared grid did not come up: {up.stderr.decode(errors='replace')[-600:]}")
            self._shared = grid
        return self._shared

    def shared_settings(self) -> dict[str, Any]:
        """Settings of the shared grid: a shell, and the programs that this machine can build and run."""
        pricers: dict[str, dict[str, Any]] = {
            "shell": {"command": ["sh", "{input}"]},
            "cat": {"command": ["cat", "{input}"], "result": "stdout"},
            "show": {"command": ["sh", "-c", SHOW, "{input}"], "result": "stdout"},
            "show_args": {"command": ["printf", "%s\\n", "{args}"], "result": "stdout"},
            "little": {"command": ["sh", "{input}"], "output": "2MB"},
            "warm_leaves": {"command": ["sh", "-c", "read -r line; exit 0"], "mode": "warm"},
            "warm_closes": {"command": ["sh", "-c", "read -r line; exec >&-; sleep 2"], "mode": "warm"},
        }
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
        env = {"DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1"}  # else it wants a library that is not everywhere
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
        for grid in self._started:
            if (grid.state_dir / grid.name).exists():
                grid.down()


SHOW = 'basename "$0"; od -An -v -tx1 "$0" | tr -d " \\n"'
"""A pricer that prints the name of its input and, in hex, what is in it."""
