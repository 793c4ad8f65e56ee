"""`python bench/sandbox.py`: what each mechanism of a sandbox costs per start of a program.

Each contender starts `/bin/true` and waits for its end, in turn with all others. Compare the CPU time, which hardly
depends on the load of the machine. As an ordinary user, run it in a user namespace, as agents are in one:
`unshare --user --map-current-user --keep-caps python bench/sandbox.py`. bubblewrap takes part where it is installed.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from raygrid.node.attempt.spawn import Environment, spawn
from raygrid.node.attempt.workspace import Workspace
from raygrid.node.sandbox.sandboxes import Sandboxes
from raygrid.node.sandbox.threads import RestrictedThread, RestrictedThreads
from raygrid.node.sandbox.view import View, build
from raygrid.settings.pricer import Pricer
from raygrid.system import namespaces, seccomp
from raygrid.system.cgroups import hierarchies
from raygrid.system.landlock import Ruleset
from raygrid.system.proc import read_text

COMMAND = "/bin/true"
_ENVIRONMENT = Environment({"PATH": "/usr/bin:/bin"})


def start(command: tuple[str, ...] = (COMMAND,)) -> None:
    """Start a program as the agent does, and wait for its end."""
    nothing = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
    try:
        pid = spawn(command, _ENVIRONMENT, {}, "/", (nothing[0], nothing[1], nothing[2]))
    finally:
        for each in nothing:
            os.close(each)
    os.waitpid(pid, 0)


def cgroup() -> Path | None:
    """A new cgroup (version 2) in that of this process, which removes it; None where none can be made."""
    for each in hierarchies("", read_text):
        made = Path(each.own, f"raygrid-bench-{os.getpid()}")
        if each.unified:
            with contextlib.suppress(OSError):
                made.mkdir()
                atexit.register(made.rmdir)
                return made
    return None


def start_and_move(processes: Path) -> None:
    """Start a program, move it into a cgroup, and wait for its end."""
    pid = os.posix_spawn(COMMAND, [COMMAND], {})
    with contextlib.suppress(ProcessLookupError):  # it has ended
        processes.write_text(str(pid), encoding="ascii")
    os.waitpid(pid, 0)


def contenders(scratch: Path) -> dict[str, Callable[[], object]]:
    """What starts a program, by name."""
    workspace = Workspace(scratch / "root", "life")
    workspace.open()
    sandboxes = Sandboxes(workspace)
    sandboxes.open()
    boxes = {
        mode: sandboxes.take(mode, Pricer.model_validate({"command": [COMMAND], "sandbox": mode}))
        for mode in ("protect", "strict")
    }
    rules = Ruleset()
    waits = RestrictedThread(lambda: None)
    filtered = RestrictedThread(lambda: seccomp.install(seccomp.filter_program()))
    throwaway = RestrictedThreads(lambda: None, lambda: None)
    in_domains = RestrictedThreads(namespaces.no_new_privileges, rules.restrict)
    own = workspace.of_a_sandbox()

    def in_own_mounts() -> None:
        namespaces.unshare(namespaces.NEW_MOUNTS)
        namespaces.keep_mounts_inside()
        build(View((str(workspace.root),), (own.path,), own_shared_memory=False))

    mounts = RestrictedThreads(lambda: None, in_own_mounts)
    found: dict[str, Callable[[], object]] = {
        "none (posix_spawn)": start,
        "a waiting thread": lambda: waits.run(start),
        "a new thread": lambda: throwaway.run(start),
        "a waiting thread, seccomp": lambda: filtered.run(start),
        "a new thread, a Landlock domain of its own": lambda: in_domains.run(start),
        "a new thread, mounts of its own": lambda: mounts.run(start),
        "protect": lambda: boxes["protect"].run(start),
        "strict": lambda: boxes["strict"].run(start),
    }
    if (program := shutil.which("bwrap")) is not None:
        words = (program, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--die-with-parent")
        found["bubblewrap --unshare-pid"] = lambda: start((*words, "--unshare-pid", COMMAND))
        found["bubblewrap --unshare-all"] = lambda: start((*words, "--unshare-all", COMMAND))
    if (group := cgroup()) is not None:
        found["a cgroup of version 2"] = lambda: start_and_move(group / "cgroup.procs")
    found["subprocess"] = lambda: subprocess.run([COMMAND], check=True)
    return found


def cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=200, help="starts of each contender in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", default="bench-sandbox.json", help="where the figures go")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="raygrid-bench-", ignore_cleanup_errors=True) as scratch:
        runs = contenders(Path(scratch))
        took: dict[str, list[float]] = {name: [] for name in runs}
        cpu: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(arguments.rounds + 1):
            for name, run in runs.items():
                began, times = cpu_s(), []
                for _ in range(arguments.starts):
                    at = time.perf_counter()
                    run()
                    times.append(1000 * (time.perf_counter() - at))
                if number:  # the first round warms up
                    took[name] += times
                    cpu[name].append(1000 * (cpu_s() - began) / arguments.starts)
    base = statistics.median(cpu["none (posix_spawn)"])
    print(f"{arguments.rounds} rounds of {arguments.starts} starts of {COMMAND}; medians, in ms")
    print(f"{'contender':<44}{'time':>8}{'CPU':>8}{'added':>8}{'lowest':>8}{'highest':>8}")
    for name, each in cpu.items():
        middle = statistics.median(each)
        print(
            f"{name:<44}{statistics.median(took[name]):>8.3f}{middle:>8.3f}{middle - base:>8.3f}"
            f"{min(each):>8.3f}{max(each):>8.3f}"
        )
    figures = {name: {"ms": statistics.median(took[name]), "cpu_ms": each} for name, each in cpu.items()}
    Path(arguments.json).write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
