"""Windows pricers under wine: jobs share wine's server and services, which the first of them starts as daemons."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from raygrid.system.proc import process_table
from raygrid.system.processes import mark_of
from tests.support.agent_process import AgentProcess
from tests.support.lone_agent import wait_until

COMPILER = "x86_64-w64-mingw32-gcc"
MISSING = [program for program in ("wine", COMPILER) if shutil.which(program) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"{' and '.join(MISSING)} not installed: apt install wine mingw-w64 to run Windows pricers"
)

COLD = r"""
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>
int main(int argc, char **argv) {
    FILE *input = fopen(argv[1], "rb");
    int number = 0;
    if (!input || fscanf(input, "%d", &number) != 1) return 3;
    fclose(input);
    Sleep(atoi(argv[2]));
    FILE *output = fopen("result.csv", "w");
    fprintf(output, "price,%d\n", number);
    fclose(output);
    printf("priced %d\n", number);
    return 0;
}
"""
WARM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>
static char line[65536];
int main(void) {
    while (fgets(line, sizeof line, stdin)) {
        const char *at = strstr(line, "\"number\":");
        Sleep(20);
        printf("{\"number\": %d, \"exit_code\": 0}\n", atoi(at + 9));
        fflush(stdout);
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `cold.exe` and `warm.exe`, and a wine prefix that the first job fills."""
    directory = tmp_path_factory.mktemp("windows")
    for name, code in (("cold", COLD), ("warm", WARM)):
        (directory / f"{name}.c").write_text(code)
        subprocess.run([COMPILER, "-o", f"{name}.exe", f"{name}.c"], cwd=directory, check=True, timeout=60)
    return directory


def pricers(programs: Path, **more: Any) -> dict[str, dict[str, Any]]:
    windows = {"env": {"HOME": str(programs), "WINEDEBUG": "-all"}, **more}
    return {
        "windows": {"command": ["wine", f"{programs}/cold.exe", "{input}", "{args}"], **windows},
        "other": {"command": ["wine", f"{programs}/cold.exe", "{input}", "{args}"], **windows},
        "warm": {"command": ["wine", f"{programs}/warm.exe"], "mode": "warm", **windows},
        "linux": {"command": ["sh", "-c", 'sleep 0.05; cat "$0"', "{input}"]},
    }


def left(directory: Path) -> list[int]:
    """Processes that jobs of an agent started."""
    mine = f"{directory / 'root'}|"
    return [p.pid for p in process_table() if not p.is_zombie and (mark_of(p.pid) or "").startswith(mine)]


def test_two_hundred_windows_jobs_among_linux_jobs_are_right(tmp_path: Path, programs: Path) -> None:
    """Mixed lengths on four slots, two pricers that share wine's server; after the linger no process is left."""
    lengths = random.Random(1)
    expected: dict[str, tuple[int, str, str | None]] = {}
    with AgentProcess(tmp_path, pricers(programs), slots=4) as agent:
        assert left(tmp_path) == []
        for number in range(200):
            pricer = ("windows", "other")[number % 2]
            milliseconds = lengths.choice([0, 50, 50, 100, 200, 1000])
            agent.run(f"windows-{number}", str(number), pricer, (str(milliseconds),))
            expected[f"windows-{number}"] = (0, f"priced {number}\r\n", f"price,{number}\r\n")
            if number % 2:
                agent.run(f"linux-{number}", f"{number}\n", "linux")
                expected[f"linux-{number}"] = (0, f"{number}\n", None)
        agent.done(*expected, within_s=180)
        seen = {
            name: (each["exit_code"], each["files"].get("stdout.txt"), each["files"].get("result.csv"))
            for name, each in agent.reports.items()
        }
        assert seen == expected
        wait_until(lambda: not left(tmp_path), within_s=15)
        agent.close()


def test_jobs_with_pauses_start_wine_anew_and_are_right(tmp_path: Path, programs: Path) -> None:
    """Each starts about when the helpers of the one before are ended, which takes wine's server a moment."""
    pauses = random.Random(3)
    with AgentProcess(tmp_path, pricers(programs), sweep_s=0.05, helper_linger_s=0.1) as agent:
        for number in range(25):
            [ended] = agent.done(agent.run(f"job-{number}", str(number), "windows", ("0",)))
            assert (ended["exit_code"], ended["files"].get("stdout.txt")) == (0, f"priced {number}\r\n"), ended
            time.sleep(pauses.uniform(0.05, 0.25))
        agent.close()
    assert left(tmp_path) == []


def test_a_list_that_names_the_server_stands_for_all_of_wine(tmp_path: Path, programs: Path) -> None:
    """With `helpers: [wineserver64]` its services stay as well, and jobs at once and in turn are right."""
    with AgentProcess(tmp_path, pricers(programs, helpers=["wineserver64"]), slots=4) as agent:
        names = [agent.run(f"job-{number}", str(number), "windows", (str(number * 40),)) for number in range(40)]
        outputs = [each["files"].get("stdout.txt") for each in agent.done(*names, within_s=120)]
        assert outputs == [f"priced {number}\r\n" for number in range(40)]
        agent.close()
    assert left(tmp_path) == []


def test_a_warm_windows_pricer_keeps_its_server_between_jobs(tmp_path: Path, programs: Path) -> None:
    """It is loaded once and answers after a pause longer than the linger; cold jobs beside it are right, too."""
    with AgentProcess(tmp_path, pricers(programs), slots=2, sweep_s=0.1, helper_linger_s=0.2) as agent:
        for number in range(30):
            agent.run(f"warm-{number}", "x", "warm")
            agent.run(f"cold-{number}", str(number), "windows", ("20",))
        ended = agent.done(*(f"{kind}-{number}" for kind in ("warm", "cold") for number in range(30)), within_s=120)
        assert [each["exit_code"] for each in ended] == [0] * 60
        assert [each["files"]["stdout.txt"] for each in ended[30:]] == [f"priced {number}\r\n" for number in range(30)]
        time.sleep(3)
        [late] = agent.done(agent.run("late", "x", "warm"))
        assert (late["outcome"], late["exit_code"]) == ("exited", 0)
        assert '"warm_job": 1,' not in late["files"]["manifest.json"]  # not the first job of its process
        agent.close()
    assert left(tmp_path) == []
