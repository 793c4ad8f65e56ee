"""Runs ordinary programs without any setting of a sandbox, as an ordinary user with an empty home directory.

`python -m tests.hostile.ordinary_run` runs an agent as in a grid, and prints for each program, as JSON: what was wrong
with it, an empty text if nothing was, or the tool that is missing on this machine.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from field import tools
from field.desk import Desk
from tests.hostile.isolation import HOME, require_isolation
from tests.support.agent_process import AgentProcess

SLOTS = 4
WINDOWS_JOBS = 200
LONGEST_S = 200.0
PLAIN = {"env": {"HOME": str(HOME)}}

# Scripts with what they must print: on standard output, and on standard error.
SCRIPTS: dict[str, tuple[str, str, str]] = {
    "standard output and error by their names": ("echo out > /dev/stdout; echo err > /dev/stderr", "out\n", "err\n"),
    "files in the home directory and in /tmp": (
        "mkdir -p ~/.cache/mine /tmp/mine && echo a > ~/.cache/mine/kept && echo b > /tmp/mine/kept"
        " && mv /tmp/mine/kept /tmp/moved && cat ~/.cache/mine/kept /tmp/moved",
        "a\nb\n",
        "",
    ),
    "signals to its own processes": ('sleep 100 & kill $!; wait $! 2> /dev/null; echo "$?"', "143\n", ""),
    "a session of its own": ("setsid --wait sh -c 'kill -0 $$ && echo alive'", "alive\n", ""),
    "shared memory": (
        "head -c 20000000 /dev/zero > /dev/shm/mine; wc -c < /dev/shm/mine; rm /dev/shm/mine",
        "20000000\n",
        "",
    ),
    "a pipe with a name": ("mkfifo $TMPDIR/pipe; echo through > $TMPDIR/pipe & cat $TMPDIR/pipe", "through\n", ""),
    "its own place in /proc": ('readlink /proc/self/cwd | grep -qx "$PWD" && cat /proc/self/comm', "cat\n", ""),
    "a nicer priority": ("nice -n 5 true && renice -n 19 -p $$ > $TMPDIR/said && echo nicer", "nicer\n", ""),
}
POOL = """
import multiprocessing
if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        print(sum(pool.map(abs, range(-9, 1))))
"""
OPTION = "import QuantLib; print(round(QuantLib.blackFormula(QuantLib.Option.Call, 100, 100, 0.2), 4))\n"
ASK = "import socket, sys; print(socket.create_connection(('127.0.0.1', {port}), 5).recv(20).decode())\n"


def main() -> None:
    """Run them all."""
    require_isolation()
    desk = Desk(HOME / "desk", None, None, 0)
    (HOME / "desk").mkdir()
    directory = HOME / ".raygrid" / "nodes"
    directory.mkdir(parents=True)
    pricers, missing = _pricers(desk)
    found: dict[str, dict[str, str]] = {name: {"missing": why} for name, why in missing.items()}
    with AgentProcess(directory, pricers, slots=SLOTS) as agent:
        for name, (script, out, err) in SCRIPTS.items():
            found[name] = {"wrong": wrong(agent, agent.run(f"script-{len(found)}", script, "shell"), out, err)}
        port = licence_server()
        for name, pricer, script, out in (
            ("processes of Python that share memory", "python", POOL, "45\n"),
            ("a licence server on the network", "python", ASK.format(port=port), "licensed\n"),
            ("QuantLib in a virtual environment in the home directory", "quantlib", OPTION, "7.9656\n"),
            (".NET in an empty home directory", "dotnet", "a\nb\n", "counted 2\n"),
            ("a JVM in an empty home directory", "java", "a\nb\n", "counted 2\n"),
            ("a JVM with ZGC", "java_zgc", "a\nb\n", "counted 2\n"),
            ("wine in an empty home directory", "windows", "0\na\nb\n", "slept 0 counted 3\r\n"),
        ):
            if pricer in pricers:
                job = agent.run(f"program-{len(found)}", script, pricer)
                found[name] = {"wrong": wrong(agent, job, out, None if pricer == "windows" else "")}
        if "windows" in pricers:
            found[f"{WINDOWS_JOBS} jobs of wine of mixed length"] = {"wrong": _windows_jobs(agent)}
        agent.close()
    kept = {str(path): path.is_file() for path in (HOME / ".cache" / "mine" / "kept", Path("/tmp/moved"))}
    found["what it wrote stays"] = {"wrong": "" if all(kept.values()) else str(kept)}
    print(json.dumps(found))


def _pricers(desk: Desk) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The pricers that can run here, and which programs are missing."""
    pricers: dict[str, dict[str, Any]] = {
        "shell": {"command": ["sh", "{input}"], **PLAIN},
        "python": {"command": [sys.executable, "{input}"], **PLAIN},
    }
    missing = {}
    if (why := _quantlib(pricers)) is not None:
        missing["QuantLib in a virtual environment in the home directory"] = why
    built = desk.shared_settings()["pricers"]
    for name, pricer, needed in (
        (".NET in an empty home directory", "dotnet", (tools.DOTNET, tools.MCS)),
        ("a JVM in an empty home directory", "java", (tools.JAVA,)),
        ("a JVM with ZGC", "java_zgc", (tools.JAVA,)),
        ("wine in an empty home directory", "windows", (tools.WINE, tools.MINGW)),
    ):
        there = built.get({"java": "java_g1"}.get(pricer, pricer))
        if there is None:
            missing[name] = next(tool.missing for tool in needed if not tool.found())
        else:
            of_tool = {key: value for key, value in there.get("env", {}).items() if key != "WINEPREFIX"}
            pricers[pricer] = {"command": there["command"], "env": {**of_tool, "HOME": str(HOME)}, "timeout_s": 120}
    return pricers, missing


def _quantlib(pricers: dict[str, dict[str, Any]]) -> str | None:
    """Add a pricer with a virtual environment in the home directory; gives why there is none."""
    place = HOME / "venv"
    tried = subprocess.run([sys.executable, "-c", OPTION], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        return "QuantLib is not installed (pip install QuantLib)"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True, timeout=60)
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    [own] = place.glob("lib/python*/site-packages")
    (own / "quantlib.pth").write_text(f"{packages}\n")
    pricers["quantlib"] = {"command": [str(place / "bin" / "python"), "{input}"], **PLAIN}
    return None


def licence_server() -> int:
    """Start a server that answers every connection; gives its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"licensed")

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


def wrong(agent: AgentProcess, name: str, out: str, err: str | None) -> str:
    """What is wrong with the end of a job; without `err`, it may print any errors, as wine does at its first start."""
    [ended] = agent.done(name, within_s=LONGEST_S)
    printed = [ended["files"].get(f"{stream}.txt") for stream in ("stdout", "stderr")]
    if ended["exit_code"] == 0 and printed[0] == out and err in (printed[1], None):
        return ""
    return f"{ended['outcome']} {ended['exit_code']} {ended['message']} {printed}"[-1500:]


def _windows_jobs(agent: AgentProcess) -> str:
    """Run jobs of 0 to 1 s beside jobs of a shell; gives what is wrong with the first of them that is."""
    lengths = random.Random(1)
    expected: dict[str, Mapping[str, str]] = {}
    for number in range(WINDOWS_JOBS):
        milliseconds, lines = lengths.choice([0, 50, 50, 100, 200, 1000]), 1 + number % 7
        name = agent.run(f"windows-{number}", f"{milliseconds}\n" + "trade\n" * (lines - 1), "windows")
        expected[name] = {"stdout.txt": f"slept {milliseconds} counted {lines}\r\n", "prices.csv": f"lines,{lines}\r\n"}
        if number % 4 == 0:
            name = agent.run(f"linux-{number}", f"sleep 0.05; echo {number}", "shell")
            expected[name] = {"stdout.txt": f"{number}\n"}
    agent.done(*expected, within_s=LONGEST_S)
    wrong = {
        name: agent.reports[name]
        for name, files in expected.items()
        if {key: agent.reports[name]["files"].get(key) for key in files} != files
    }
    return f"{len(wrong)} of {len(expected)}, such as {next(iter(wrong.values()))}"[:1500] if wrong else ""


if __name__ == "__main__":
    main()
