"""Pricers that misbehave: each gets its proper end, no slot hangs, nothing is left, and the node goes on."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from raygrid.system.proc import process_table
from raygrid.system.processes import mark_of
from tests.support.http import manifest, unzip, word
from tests.support.small_grid import PRICERS, SmallGrid

pytestmark = pytest.mark.asyncio(loop_scope="module")

MB = 1024**2
SECRETS = {
    "RAY_AUTH_TOKEN": "secret-of-ray",
    "RAYGRID__HTTP__MAX_BODY": "123456789",
    "AWS_SECRET_ACCESS_KEY": "secret-of-aws",
    "DATABASE_URL": "secret-of-database",
    "LD_PRELOAD_NOT": "secret-of-nobody",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grid(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SmallGrid]:
    place = tmp_path_factory.mktemp("pricers")
    (place / "plain").write_text("#!/bin/sh\necho never\n")
    (place / "not-a-binary").write_bytes(b"\x00\x01\x02 no magic of any kind")
    (place / "not-a-binary").chmod(0o755)
    (place / "no-interpreter").write_text("#!/nowhere/interpreter\n")
    (place / "no-interpreter").chmod(0o755)
    pricers: dict[str, Any] = {
        **PRICERS,
        "missing": {"command": "/nowhere/pricer.exe {input}"},
        "plain": {"command": f"{place}/plain {{input}}"},
        "no-binary": {"command": f"{place}/not-a-binary {{input}}"},
        "no-interpreter": {"command": f"{place}/no-interpreter {{input}}"},
        "impatient": {"command": ["sh", "{input}"], "timeout_s": 0.3},
        "little-output": {"command": ["sh", "{input}"], "output": "2MB"},
        "little-memory": {"command": [sys.executable, "{input}"], "memory": "80MB"},
        "retried": {"command": ["sh", "{input}"], "retry_exit_codes": [75]},
        "unprotected": {"command": ["sh", "{input}"], "sandbox": "off"},
        "with-env": {"command": ["env"], "env": {"CURVE": "eur", "PATH": "/bin:/usr/bin"}},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        async with SmallGrid(tmp_path_factory.mktemp("grid"), slots=2, pricers=pricers) as running:
            yield running


def jobs_directory(grid: SmallGrid) -> Path:
    [jobs] = (grid.settings.grid_dir / "nodes" / "rack-a-1" / "jobs").iterdir()
    return jobs


def processes_of(job_id: str) -> list[int]:
    return [p.pid for p in process_table() if not p.is_zombie and f"|{job_id}." in (mark_of(p.pid) or "")]


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def unharmed(grid: SmallGrid, request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """After every test of this module nothing is left on the node, and it still works in both slots."""
    yield

    async def clean() -> bool:
        return not list(jobs_directory(grid).iterdir())

    await grid.until(clean, within_s=10)
    name = f"after-{abs(hash(request.node.name))}"
    assert unzip(await grid.submit(name, "echo fine"))["stdout.txt"] == b"fine\n"


async def failed(grid: SmallGrid, job_id: str, script: str, **options: Any) -> dict[str, Any]:
    """Run a script that must fail; gives its problem document."""
    answer = await grid.submit(job_id, script, **options)
    assert (answer.status_code, word(answer)) == (422, "job-failed")
    problem: dict[str, Any] = answer.json()
    return problem


# --- starting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pricer", "fragment"),
    [
        ("missing", "No such file or directory"),
        ("plain", "Permission denied"),
        ("no-binary", "Exec format error"),
        ("no-interpreter", "No such file or directory"),
    ],
)
async def test_a_pricer_that_cannot_start_is_reported(grid: SmallGrid, pricer: str, fragment: str) -> None:
    """A file that is missing, not executable or no program is tried on as many nodes as allowed, then reported."""
    problem = await failed(grid, f"start-{pricer}", "x", pricer=pricer)
    assert problem["reason"] == "cannot_start"
    assert fragment in problem["detail"]
    assert (await grid.status(f"start-{pricer}"))["attempts"] == 3


async def test_no_secret_reaches_a_pricer(grid: SmallGrid) -> None:
    """A pricer's environment has the variables passed on by name, those of its settings, and its job's; no secret."""
    answer = await grid.submit("env", "x", pricer="with-env")
    given = dict(line.split("=", 1) for line in unzip(answer)["stdout.txt"].decode().splitlines())
    assert given.pop("RAYGRID_ATTEMPT").endswith("|env.1")
    assert given.pop("RAYGRID_JOB_ID") == "env"
    assert (given.pop("CURVE"), given.pop("PATH")) == ("eur", "/bin:/usr/bin")
    assert given.pop("RAYGRID_SLOT") in ("0", "1", "2", "3")
    assert given.pop("TMPDIR") == given.pop("TMP") == given.pop("TEMP")
    assert set(given) <= {"HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "LD_LIBRARY_PATH", "VIRTUAL_ENV"}
    assert not any(value in answer.text for value in SECRETS.values())


async def test_a_pricer_reads_nothing_and_inherits_nothing(grid: SmallGrid) -> None:
    """Standard input is empty, and no file of the agent is open in the pricer."""
    answer = await grid.submit("fds", "cat; ls -l /proc/self/fd | sed 's/.*-> //' | grep -v /proc | sort -u")
    lines = unzip(answer)["stdout.txt"].decode().split("\n")
    opened = {line.rpartition("/")[2] for line in lines if line and not line.startswith(("total", "pipe"))}
    assert {name.rpartition("@")[2] for name in opened} == {"null", "stderr"}


async def test_a_huge_list_of_arguments_arrives(grid: SmallGrid) -> None:
    """As many and as long arguments as a submit may bring arrive."""
    args = [f"{number:03}" + "x" * 250 for number in range(256)]
    answer = await grid.http.post("/submit/many-args", files={"file": b"x"}, data={"pricer": "args", "args": args})
    assert unzip(answer)["stdout.txt"].decode().split() == args


# --- ends -----------------------------------------------------------------------------------------------------------


async def test_a_pricer_that_dies_of_a_signal_has_failed(grid: SmallGrid) -> None:
    """A crash is an answer: failed, with the signal, after one attempt, its output kept."""
    problem = await failed(grid, "crash", "echo before; echo trace >&2; kill -SEGV $$")
    assert (problem["reason"], problem.get("exit_code")) == ("signal", None)
    assert "signal 11 (SIGSEGV)" in problem["detail"]
    assert problem["stderr_tail"] == "trace\n"
    status = await grid.status("crash")
    assert (status["signal"], status["attempts"]) == (11, 1)
    assert unzip(await grid.http.get("/result/crash?even_if=failed"))["stdout.txt"] == b"before\n"


async def test_a_pricer_that_ignores_sigterm_is_killed(grid: SmallGrid) -> None:
    """The time limit also ends a process that ignores SIGTERM, and the whole tree with it."""
    problem = await failed(
        grid,
        "deaf",
        "trap '' TERM; sh -c 'trap \"\" TERM; sleep 1000' & while :; do sleep 0.05; done",
        pricer="impatient",
    )
    assert problem["reason"] == "timeout"
    assert (await grid.status("deaf"))["signal"] == signal.SIGKILL

    async def dead() -> bool:
        return not processes_of("deaf")

    await grid.until(dead, within_s=5)


async def test_a_pricer_that_exits_with_zero_on_sigterm_was_out_of_time(grid: SmallGrid) -> None:
    """Work that was cut short is no answer, whatever exit code follows SIGTERM; what was saved can be fetched."""
    script = "trap 'echo saved; exit 0' TERM; while :; do sleep 0.02; done"
    problem = await failed(grid, "polite", script, pricer="impatient")
    assert problem["reason"] == "timeout"
    assert unzip(await grid.http.get("/result/polite?even_if=failed"))["stdout.txt"] == b"saved\n"


async def test_the_settings_limit_of_time_cannot_be_raised_by_a_client(grid: SmallGrid) -> None:
    """A submit's `timeout_s` can only shorten what the pricer's settings allow."""
    problem = await failed(grid, "greedy", "sleep 100", pricer="impatient", timeout_s="1000")
    assert problem["reason"] == "timeout"


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("children", "sleep 1000 & sleep 1000 & echo done"),
        ("open-stdout", "(sleep 1000; echo late) & echo done"),
        ("own-groups", "set -m; sleep 1000 & sh -c 'sleep 1000' & echo done"),
        ("new-session", "setsid sleep 1000 & echo done; sleep 0.1"),
        (
            "daemon",
            "setsid sh -c 'setsid sleep 1000 & setsid sh -c \"sleep 1000 & sleep 1000\" &' & echo done; sleep 0.1",
        ),
        ("deaf-daemon", "setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 0.1; done' & echo done; sleep 0.1"),
    ],
)
async def test_what_outlives_a_pricer_is_killed(grid: SmallGrid, name: str, script: str) -> None:
    """A job ends with its pricer, whatever children hold its output open; they are dead within seconds."""
    answer = await grid.submit(name, script, timeout_s="30")
    assert answer.status_code == 200
    assert unzip(answer)["stdout.txt"] == b"done\n"
    assert manifest(answer)["wall_s"] < 20

    async def dead() -> bool:
        return not processes_of(name)

    await grid.until(dead, within_s=6)


async def test_a_configured_exit_code_runs_the_job_again(grid: SmallGrid, tmp_path: Path) -> None:
    """The answer is that of the attempt that worked."""
    script = f"echo x >> {tmp_path}/tries; [ $(wc -l < {tmp_path}/tries) -ge 3 ] && echo third || exit 75"
    answer = await grid.submit("try-again", script, pricer="retried")
    assert unzip(answer)["stdout.txt"] == b"third\n"
    assert manifest(answer)["attempt"] == 3
    problem = await failed(grid, "try-forever", f"echo x >> {tmp_path}/forever; exit 75", pricer="retried")
    assert (problem["reason"], problem["exit_code"]) == ("exit_code", 75)
    assert (tmp_path / "forever").read_text() == "x\n" * 3
    await failed(grid, "try-once", f"echo x >> {tmp_path}/once; exit 74", pricer="retried")
    assert (tmp_path / "once").read_text() == "x\n"


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("huge-file", "head -c 10000000000 /dev/zero > huge"),
        ("sparse-file", "truncate -s 10000000000 huge; head -c 3000000 /dev/zero > more"),
        ("many-files", "i=0; while :; do i=$((i+1)); head -c 100000 /dev/zero > f$i; done"),
        ("endless-stdout", "yes"),
        ("endless-stderr", "yes >&2"),
        ("deaf-to-limit", "trap '' XFSZ TERM; while :; do yes; done 2>/dev/null"),
        ("in-a-directory", "mkdir d; cd d; for i in 1 2 3; do head -c 1000000 /dev/zero > f$i; done"),
    ],
)
async def test_a_pricer_that_writes_too_much_has_failed(grid: SmallGrid, name: str, script: str) -> None:
    """Output beyond the limit ends the job as failed, in whatever way it is written, and never fills the disk."""
    problem = await failed(grid, name, script, pricer="little-output", timeout_s="30")
    assert problem["reason"] == "output_limit"
    assert str(2 * MB) in problem["detail"]
    assert (await grid.status(name))["attempts"] == 1
    kept = await grid.http.get(f"/result/{name}?even_if=failed")
    assert len(kept.content) < 100_000


async def test_a_pricer_that_takes_too_much_memory_has_failed(grid: SmallGrid) -> None:
    """Memory beyond the limit, children counted in, ends the job as failed."""
    script = "import time\nkept = bytearray(400 * 1024 ** 2)\ntime.sleep(60)\n"
    problem = await failed(grid, "hog", script, pricer="little-memory")
    assert problem["reason"] == "memory_limit"
    assert str(80 * MB) in problem["detail"]
    forked = "import os, time\nos.fork()\nkept = bytearray(60 * 1024 ** 2)\ntime.sleep(60)\n"
    assert (await failed(grid, "hogs", forked, pricer="little-memory"))["reason"] == "memory_limit"
    alone = "import os, time\nif os.fork():\n    os.wait()\nos.setsid()\n" + script
    problem = await failed(grid, "hog-alone", alone, pricer="little-memory", timeout_s="30")
    assert problem["reason"] == "memory_limit", "what left the session still descends from the pricer"


# --- output ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "script", "fragment"),
    [
        ("symlink", "ln -s /etc/passwd stolen", "a symbolic link"),
        ("dangling", "ln -s nowhere lost", "a symbolic link"),
        ("link-to-dir", "ln -s / root", "a symbolic link"),
        ("link-loop", "ln -s loop loop", "a symbolic link"),
        ("fifo", "mkfifo pipe", "a special file"),
        ("fifo-for-input", 'rm "$0"; mkfifo "$0"', "a special file"),
        ("link-for-input", 'ln -sf /etc/passwd "$0"', "a symbolic link"),
        ("bad-name", "touch \"$(printf 'a\\377b')\"", "is not UTF-8"),
        ("newline-name", "touch \"$(printf 'a\\nb')\"", "has a control character, '\\n'"),
        ("c1-name", "touch \"$(printf 'a\\302\\205b')\"", "has a control character, '\\x85'"),
        ("bad-directory", "mkdir \"$(printf 'a\\033b')\"", "has a control character, '\\x1b'"),
        ("two-in-one", "touch 'a\\b' 'a%5Cb'", "which have the same name in a ZIP"),
        ("no-directory", 'rm -rf "$PWD"', "cannot be read"),
    ],
)
async def test_output_that_cannot_be_a_result_is_a_failure(
    grid: SmallGrid, name: str, script: str, fragment: str
) -> None:
    """Files that cannot be in a ZIP fail the job with the reason, once; no outside file gets into the result."""
    problem = await failed(grid, name, f"echo printed; {script}")
    assert problem["reason"] == "bad_output"
    assert fragment in problem["detail"]
    assert (await grid.status(name))["attempts"] == 1
    kept = unzip(await grid.http.get(f"/result/{name}?even_if=failed"))
    assert sorted(kept) == ["manifest.json", "stderr.txt", "stdout.txt"]
    assert kept["stdout.txt"] == b"printed\n"


async def test_a_pricer_may_lock_its_directory(grid: SmallGrid) -> None:
    """Permissions taken away from files, directories and the job directory itself prevent neither end nor clean-up."""
    script = "mkdir -p a/b; echo x > a/b/f; chmod 000 a/b/f a/b a .; echo locked"
    answer = await grid.submit("locked", script)
    assert answer.status_code in (200, 422)
    if os.geteuid() == 0:  # an account that may read everything finds it
        assert unzip(answer)["a/b/f"] == b"x\n"


@pytest.mark.parametrize(("depth", "name"), [(200, "d"), (1_500, "d"), (100, "d" * 100)])
async def test_very_deep_directories_are_cleaned_up(grid: SmallGrid, depth: int, name: str) -> None:
    """Two hundred directories deep is a result; deeper than a path can be is a failure; either is cleaned up."""
    job_id = f"deep-{depth}-{len(name)}"
    dive = (
        f"import os\nfor _ in range({depth}):\n    os.mkdir('{name}')\n    os.chdir('{name}')\n"
        "open('bottom', 'w').write('x')"
    )
    answer = await grid.submit(job_id, f'exec {sys.executable} -c "{dive}"')
    if depth == 200:
        assert unzip(answer)["d/" * 200 + "bottom"] == b"x"
    else:
        assert answer.json()["reason"] == "bad_output"
        assert (await grid.status(job_id))["attempts"] == 1


async def test_binary_output_is_unchanged(grid: SmallGrid) -> None:
    """Bytes of any kind on stdout and stderr come back unchanged; only the tail in the problem is made readable."""
    answer = await grid.submit("binary", "printf '\\000\\377\\200ok'; printf '\\000\\377err' >&2; exit 1")
    assert answer.json()["stderr_tail"] == "\ufffd\ufffderr"
    kept = unzip(await grid.http.get("/result/binary?even_if=failed"))
    assert kept["stdout.txt"] == b"\x00\xff\x80ok"
    assert kept["stderr.txt"] == b"\x00\xfferr"


async def test_an_input_that_was_changed_is_output(grid: SmallGrid) -> None:
    """A pricer that writes its answer into its input has its answer in the result; an untouched input is not."""
    changed = await grid.submit("in-place", 'echo "priced" > "$0"', filename="trade.csv")
    assert unzip(changed)["trade.csv"] == b"priced\n"
    removed = await grid.submit("input-gone", 'rm "$0"; echo x > y')
    assert sorted(unzip(removed)) == ["manifest.json", "stderr.txt", "stdout.txt", "y"]


NAMES = [
    "取引\u3000二.csv", "a\u00a0b", "a\u202fb", "a\u200bb\u200c\ufeff", "👩\u200d👩\u200d👧.csv", "\u202eexe.txt",
    "a\u2028b", "e\u0301", "\u00e9", " ", "a ", "\U000e0001", "\ue000", "x" * 255, "é" * 127,
]  # fmt: skip


@pytest.mark.parametrize("large", [False, True])
async def test_files_may_have_any_name_in_unicode(grid: SmallGrid, large: bool) -> None:
    """Spaces and invisible characters are part of a name; each file comes back under its own name."""
    size = 500_000 if large else 1
    script = f"import os\nfor name in {NAMES!a}:\n    open(name, 'wb').write(name.encode() + bytes({size}))\n"
    answer = await grid.submit(f"names-{size}", f"exec {sys.executable} - <<'E'\n{script}\nE")
    assert answer.status_code == 200, answer.text
    files = unzip(answer)
    assert {name: data.rstrip(b"\0").decode() for name, data in files.items() if name in NAMES} == {n: n for n in NAMES}
    assert [file["name"] for file in manifest(answer)["files"]] == sorted(NAMES)


@pytest.mark.parametrize("size", [1, 5_000_000])
async def test_a_backslash_is_escaped_for_windows(grid: SmallGrid, size: int) -> None:
    """In the ZIP it is written as %5C, since Windows would take it for a separator; the manifest has the name."""
    script = f"head -c {size} /dev/zero > '..\\..\\x.exe'; mkdir 'C:\\out'; echo y > 'C:\\out/y'"
    answer = await grid.submit(f"backslash-{size}", script)
    assert sorted(unzip(answer).keys() - {"stdout.txt", "stderr.txt", "manifest.json"}) == [
        "..%5C..%5Cx.exe",
        "C:%5Cout/y",
    ]
    listed = {file["name"]: file["written_as"] for file in manifest(answer)["files"]}
    assert listed == {"..%5C..%5Cx.exe": "..\\..\\x.exe", "C:%5Cout/y": "C:\\out/y"}


async def test_files_with_reserved_names_are_renamed(grid: SmallGrid) -> None:
    """A pricer's stdout.txt, stderr.txt and manifest.json do not hide the grid's, nor each other."""
    script = (
        "echo mine > stdout.txt; echo mine > manifest.json; mkdir -p pricer_files sub; "
        "echo deeper > pricer_files/stdout.txt; echo fine > sub/manifest.json; echo printed"
    )
    answer = await grid.submit("namesakes", script)
    files = unzip(answer)
    assert files["stdout.txt"] == b"printed\n"
    assert manifest(answer)["jobId"] == "namesakes"
    assert files["pricer_files/stdout.txt"] == b"mine\n"
    assert files["pricer_files/manifest.json"] == b"mine\n"
    assert files["pricer_files/pricer_files/stdout.txt"] == b"deeper\n"
    assert files["sub/manifest.json"] == b"fine\n"


async def test_a_pricer_may_remove_its_captures(grid: SmallGrid) -> None:
    """Its output is kept all the same, also without a sandbox, which would hide them."""
    script = 'echo x; rm "$(readlink /proc/$$/fd/1)" "$(readlink /proc/$$/fd/2)"'
    answer = await grid.submit("no-captures", script, pricer="unprotected")
    assert answer.status_code == 200
    assert unzip(answer)["stdout.txt"] == b"x\n"


async def test_job_directories_are_private(grid: SmallGrid) -> None:
    """Only the agent's user can look into a node's work."""
    root = grid.settings.grid_dir / "nodes" / "rack-a-1"
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert stat.S_IMODE(jobs_directory(grid).stat().st_mode) == 0o700
