"""Runs programs under `strict` with the settings that they need, as an ordinary user with an empty home directory.

`python -m tests.hostile.strict_run` runs an agent as in a grid, and prints for each program, as JSON: what was wrong
with it, an empty text if nothing was, or the tool that is missing on this machine.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from field import tools
from field.desk import Desk
from tests.hostile.isolation import HOME, require_isolation
from tests.hostile.ordinary_run import ASK, OPTION, POOL, licence_server, wrong
from tests.support.agent_process import AgentProcess

SLOTS = 3
C = """
#include <stdio.h>
int main(int count, char **words) {
    FILE *input = fopen(words[1], "r"), *output = fopen("prices.csv", "w");
    int lines = 0, letter;
    while ((letter = fgetc(input)) != EOF) lines += letter == '\\n';
    fprintf(output, "lines,%d\\n", lines);
    printf("counted %d\\n", lines);
    return fclose(output);
}
"""
SCRIPT = "#!/usr/bin/env python3\nimport sys, beside\nprint(beside.count(sys.argv[1]))\n"
BESIDE = "def count(path):\n    with open(path) as file:\n        return len(file.readlines())\n"
WARM = """
import json, sys
import beside
for line in sys.stdin:
    job = json.loads(line)
    with open(job["stdout"], "w") as file:
        file.write(str(beside.count(job["input"])))
    print(json.dumps({"number": job["number"], "exit_code": 0}), flush=True)
"""
ORE = "import ORE; print(ORE.Parameters().__class__.__name__)\n"
TEMPORARY = "mkdir $TMPDIR/mine && echo a > $TMPDIR/mine/b && mv $TMPDIR/mine/b moved && cat moved\n"
# Landlock lets a process do this with a file that it may only read.
CHANGES = "chmod 666 ~/models/eur.csv || touch -d 2001-01-01 ~/models/eur.csv || chmod 777 ~/models || echo refused\n"
# What a job is refused without the setting that its message must name.
REFUSED = (
    ("reads", "cat ~/models/eur.csv", f"`read: [{HOME}/models/eur.csv]`"),
    ("writes", "echo a > ~/cache/b", f"`write: [{HOME}/cache]`"),
    ("writes in /tmp", "echo a > /tmp/b", "`write: [/tmp]`"),
    ("makes shared memory", "echo a > /dev/shm/b", "`write: [/dev/shm]`"),
)


def main() -> None:
    """Run them all."""
    require_isolation()
    directory = HOME / ".raygrid" / "nodes"
    for each in (directory, HOME / "desk", HOME / "models", HOME / "cache", HOME / ".wine", HOME / "own"):
        each.mkdir(parents=True)
    (HOME / "models" / "eur.csv").write_text("eur\n")
    pricers, missing = _pricers()
    found: dict[str, dict[str, str]] = {name: {"missing": why} for name, why in missing.items()}
    port = licence_server()
    with AgentProcess(directory, pricers, slots=SLOTS) as agent:
        for name, pricer, script, out in (
            ("a shell and its temporary files", "shell", TEMPORARY, "a\n"),
            ("a script that env finds an interpreter for", "script", "a\nb\n", "2\n"),
            ("a program in C in the home directory", "c", "a\nb\n", "counted 2\n"),
            ("QuantLib in a virtual environment in the home directory", "quantlib", OPTION, "7.9656\n"),
            ("ORE in a virtual environment", "ore", ORE, "Parameters\n"),
            ("a warm pricer in Python", "warm", "a\nb\n", "2"),
            ("a JVM", "java", "a\nb\n", "counted 2\n"),
            (".NET", "dotnet", "a\nb\n", "counted 2\n"),
            ("wine at its first start", "windows", "0\na\nb\n", "slept 0 counted 3\r\n"),
            ("wine once more", "windows", "0\na\nb\nc\n", "slept 0 counted 4\r\n"),
            ("files that `read` names", "reader", "cat ~/models/eur.csv", "eur\n"),
            ("a directory that `write` names", "writer", "echo a > ~/cache/b && cat ~/cache/b", "a\n"),
            ("processes of Python with `write: [/dev/shm]`", "pool", POOL, "45\n"),
            ("a licence server with `network: true`", "licensed", ASK.format(port=port), "licensed\n"),
        ):
            if pricer in pricers:
                job = agent.run(f"program-{len(found)}", script, pricer)
                found[name] = {"wrong": wrong(agent, job, out, None if pricer == "windows" else "")}
        for name, script, setting in REFUSED:
            [ended] = agent.done(agent.run(f"refused-{len(found)}", script, "shell"))
            is_right = ended["exit_code"] != 0 and setting in ended["message"]
            found[f"the message of a job that {name}"] = {"wrong": "" if is_right else str(ended)}
        before = (HOME / "models" / "eur.csv").stat()
        [ended] = agent.done(agent.run("changes", CHANGES, "reader"))
        is_unchanged = (HOME / "models" / "eur.csv").stat() == before and ended["exit_code"] == 0
        found["mode and times of a file that `read` names"] = {"wrong": "" if is_unchanged else str(ended)}
        [ended] = agent.done(agent.run("offline", ASK.format(port=port), "python"))
        found["the message of a job without network"] = {
            "wrong": "" if "add `network: true`" in str(ended["message"]) else str(ended)
        }
        agent.close()
    print(json.dumps(found))


def _pricers() -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The pricers that can run here with what each needs, and why others cannot."""
    desk = Desk(HOME / "desk", None, None, 0)
    _write(HOME / "code" / "price", SCRIPT, 0o755)
    _write(HOME / "code" / "beside.py", BESIDE)
    _write(HOME / "code" / "warm.py", WARM)
    shell, python = {"command": ["sh", "{input}"]}, {"command": [sys.executable, "{input}"]}
    pricers: dict[str, dict[str, Any]] = {
        "shell": shell,
        "script": {"command": [f"{HOME}/code/price", "{input}"]},
        "warm": {"command": [sys.executable, f"{HOME}/code/warm.py"], "mode": "warm"},
        "reader": {**shell, "read": ["~/models"]},
        "writer": {**shell, "write": ["~/cache"]},
        "python": python,
        "pool": {**python, "write": ["/dev/shm"]},
        "licensed": {**python, "network": True},
    }
    missing: dict[str, str] = {}
    _add_c(pricers, missing)
    for package, name, add in (("QuantLib", "quantlib", _venv_with_quantlib), ("ORE", "ore", lambda: sys.executable)):
        if subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, check=False).returncode:
            missing[name] = f"{package} is not installed"
        else:
            pricers[name] = {"command": [add(), "{input}"]}
    built = desk.shared_settings()["pricers"]
    for name, there, needs, needed in (
        ("dotnet", "dotnet", {}, (tools.DOTNET, tools.MCS)),
        ("java", "java_g1", {}, (tools.JAVA,)),
        ("windows", "windows", {"write": ["~/.wine"]}, (tools.WINE, tools.MINGW)),
    ):
        if there not in built:
            missing[name] = next(tool.missing for tool in needed if not tool.found())
            continue
        env = {key: value for key, value in built[there].get("env", {}).items() if key not in ("WINEPREFIX", "HOME")}
        pricers[name] = {"command": built[there]["command"], "env": env, "timeout_s": 120, **needs}
    return {name: {"sandbox": "strict", **pricer} for name, pricer in pricers.items()}, missing


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _add_c(pricers: dict[str, dict[str, Any]], missing: dict[str, str]) -> None:
    if not tools.CC.found():
        missing["c"] = tools.CC.missing
        return
    _write(HOME / "own" / "price.c", C)
    subprocess.run(["cc", "-o", "price", "price.c"], cwd=HOME / "own", check=True, timeout=60)
    pricers["c"] = {"command": [f"{HOME}/own/price", "{input}"]}


def _venv_with_quantlib() -> str:
    """Make a virtual environment with QuantLib in it; gives its Python."""
    place = HOME / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True, timeout=60)
    [own] = place.glob("lib/python*/site-packages")
    packages = Path(next(path for path in sys.path if path.endswith("site-packages")))
    for each in packages.glob("[Qq]uant[Ll]ib*"):
        if each.is_dir():
            shutil.copytree(each, own / each.name)
        else:
            shutil.copy(each, own)
    return str(place / "bin" / "python")


if __name__ == "__main__":
    main()
