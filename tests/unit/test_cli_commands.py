"""The smaller commands: status, result, cancel, data, pricers, up and down."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

import raygrid.local
from raygrid.cli import app, grid, lifecycle
from raygrid.client import Client
from raygrid.client.retry import RetryPolicy
from raygrid.local import GridFile
from raygrid.settings.model import GridSettings
from raygrid.settings.started_with import StartedWith
from tests.support.client_fakes import ANY_BYTES, Answers, FakeTime, problem, zip_of, zip_with

KEY = "0123456789-secret-key-abcdef"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's own grid is not used."""
    monkeypatch.setenv("RAYGRID_URL", "http://grid.test")
    monkeypatch.setenv("RAYGRID_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("RAYGRID_API_KEY", raising=False)
    monkeypatch.delenv("RAYGRID_CONFIG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def run(monkeypatch: pytest.MonkeyPatch, answers: Answers, *words: str) -> Result:
    """Run the command line against scripted answers."""
    monkeypatch.setattr(grid, "Client", lambda url, key: answers.client(FakeTime(), key))
    return CliRunner().invoke(app, words)


def whole_grid() -> Answers:
    """A grid with one group of one node."""
    group = {"group": "rack-1", "site": "ldn", "slots": 4, "running": 1, "free": 3, "queued": 7, "nodes": 1}
    node = {
        "node": "n-1",
        "group": "rack-1",
        "slots": 4,
        "running": 1,
        "state": "draining",
        "why": "asked to",
    }
    return Answers(
        httpx.Response(200, json={"slots": 4, "running": 1, "free": 3, "queued": 7}),
        httpx.Response(200, json={"groups": [group]}),
        httpx.Response(200, json={"nodes": [node]}),
    )


def test_status_shows_capacity_groups_and_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The summary shows how full the grid is and which node is not well."""
    ended = run(monkeypatch, whole_grid(), "status")

    assert ended.exit_code == 0
    assert "4 slots, 1 running, 3 free, 7 queued" in ended.stdout
    for word in ("rack-1", "ldn", "n-1", "draining", "asked to"):
        assert word in ended.stdout


def test_a_long_reason_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason of a node that is not well is shown in full in a narrow terminal, too."""
    monkeypatch.setenv("COLUMNS", "60")
    why = "the disk is full: 0 bytes are left on /very/long/path/of/the/work/directory/of/this/node"
    answers = whole_grid()
    node = {"node": "n-1", "group": "rack-1", "slots": 4, "running": 1, "state": "unhealthy", "why": why}
    answers.answers[2] = httpx.Response(200, json={"nodes": [node]})
    printed = run(monkeypatch, answers, "status").stdout

    rows = [line.split("│")[-2].strip() for line in printed.splitlines() if line.count("│") > 6]
    assert why.replace(" ", "") in "".join(rows).replace(" ", "")


def test_groups_shows_leaders_and_no_empty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sites and losses have a column only if there are some."""
    group = {
        "group": "rack-1",
        "slots": 4,
        "running": 1,
        "free": 3,
        "queued": 7,
        "nodes": 1,
        "leader": "n-1",
        "term": 3,
    }
    ended = run(monkeypatch, Answers(httpx.Response(200, json={"groups": [group]})), "groups")

    assert ended.exit_code == 0
    names, found = (line.split() for line in ended.stdout.splitlines())
    assert names == ["group", "nodes", "slots", "running", "queued", "state", "leader", "term"]
    assert found == ["rack-1", "1", "4", "1", "7", "ok", "n-1", "3"]


def test_nodes_fit_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node that is well is one line."""
    monkeypatch.setenv("COLUMNS", "80")
    moved = dict.fromkeys(("inputs", "data", "results", "served"), 123_400_000)
    sandbox = {"mode": "protect", "active": [], "open": ["signals"]}
    node = {"node": "rack-a-1", "group": "rack-a", "slots": 4, "running": 1, "state": "ok", "traffic": moved}
    ended = run(monkeypatch, Answers(httpx.Response(200, json={"nodes": [{**node, "sandbox": sandbox}] * 3})), "nodes")

    assert [line.split()[:3] for line in ended.stdout.splitlines()[2:]] == [["rack-a-1", "rack-a", "ok"]] * 3


SANDBOX = {"mode": "protect", "active": ["landlock", "seccomp"], "open": []}


def test_nodes_shows_the_sandbox_and_where_something_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark leads to the details; a grid of an older release shows no sandbox."""
    node = {"group": "rack-1", "slots": 4, "running": 1, "state": "ok"}
    whole = {**node, "node": "whole", "sandbox": SANDBOX}
    partly = {**node, "node": "partly", "sandbox": {**SANDBOX, "mode": "strict", "open": ["The kernel is old."]}}
    ended = run(monkeypatch, Answers(httpx.Response(200, json={"nodes": [whole, partly]})), "nodes")
    assert [line.split()[5] for line in ended.stdout.splitlines()[1:]] == ["sandbox", "protect", "strict*"]
    assert ended.stderr == "* something stays open; see: raygrid nodes --sandbox\n"

    for nodes in ([whole], [{**node, "node": "old"}]):
        ended = run(monkeypatch, Answers(httpx.Response(200, json={"nodes": nodes})), "nodes")
        assert ended.stderr == ""
    assert "old" in ended.stdout
    assert "protect" not in ended.stdout
    assert "off" not in ended.stdout


def test_nodes_with_the_same_sandbox_are_described_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The details of a large grid fit a screen."""
    node = {"group": "rack-1", "slots": 4, "running": 1, "state": "ok"}
    off = {**node, "node": "d", "sandbox": {"mode": "off", "active": [], "open": []}}
    nodes = [{**node, "node": name, "sandbox": SANDBOX} for name in ("a", "b")]
    nodes.append({**node, "node": "c", "sandbox": {**SANDBOX, "open": ["One thing.", "Another."]}})
    nodes += [off, {**node, "node": "e"}]
    ended = run(monkeypatch, Answers(httpx.Response(200, json={"nodes": nodes})), "nodes", "--sandbox")
    assert ended.stdout == (
        "a, b: protect\n  active: landlock, seccomp\n  nothing is left open\n\n"
        "c: protect\n  active: landlock, seccomp\n  stays open:\n  - One thing.\n  - Another.\n\n"
        "d: off\n  stays open: all that the grid's user may do\n\n"
        "e: unknown, because no leader sees the node or the grid is of a release without sandboxes\n"
    )
    as_json = run(monkeypatch, Answers(httpx.Response(200, json={"nodes": nodes})), "nodes", "--json")
    assert json.loads(as_json.stdout)[2]["sandbox"]["open"] == ["One thing.", "Another."]


def test_status_in_json_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script gets values, not a table."""
    status = json.loads(run(monkeypatch, whole_grid(), "status", "--json").stdout)

    assert status["capacity"]["queued"] == 7
    assert status["nodes"][0]["state"] == "draining"


def test_nodes_shows_what_each_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are shown by purpose and with units; a grid that does not count yet shows none."""
    node = {"node": "n-1", "group": "rack-1", "slots": 4, "running": 1, "state": "ok", "why": None}
    moved = {"inputs": 12_000_000, "data": 3_400, "results": 56_000, "served": 7, "of a later version": 1}
    ended = run(monkeypatch, Answers(httpx.Response(200, json={"nodes": [{**node, "traffic": moved}, node]})), "nodes")

    assert ended.exit_code == 0
    counted, uncounted = (line for line in ended.stdout.splitlines() if "n-1" in line)
    for words in ("12.0 MB", "3.4 kB", "56.0 kB", "7 bytes"):
        assert words in counted
    assert uncounted.count("0 bytes") == 4


def test_the_status_of_a_job_is_lines_or_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """As lines for a person, as JSON for a script."""
    job = {"jobId": "j", "state": "queued", "position": 3, "submitted_at": "2030-01-02T03:04:05Z"}
    ended = run(monkeypatch, Answers(httpx.Response(200, json=job)), "status", "j")
    assert "queued" in ended.stdout
    assert "exit_code" not in ended.stdout

    ended = run(monkeypatch, Answers(httpx.Response(200, json=job)), "status", "j", "--json")
    assert json.loads(ended.stdout)["position"] == 3


def test_result_prints_stdout_unpacks_or_saves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a destination the pricer's stdout is printed."""
    data = zip_of(stdout__txt="42\n")
    answer = [Answers(httpx.Response(200, content=data)) for _ in range(3)]

    assert run(monkeypatch, answer[0], "result", "j").stdout == "42\n"
    run(monkeypatch, answer[1], "result", "j", "--out", str(tmp_path / "d"))
    assert (tmp_path / "d" / "stdout.txt").read_text() == "42\n"
    run(monkeypatch, answer[2], "result", "j", "-o", str(tmp_path / "r.zip"))
    assert (tmp_path / "r.zip").read_bytes() == data


@pytest.mark.parametrize("command", [["result", "j"], ["result", "j", "--even-if-failed"]])
@pytest.mark.parametrize("printed", ANY_BYTES, ids=("shift_jis", "binary", "line ends", "nothing"))
def test_result_writes_the_bytes_of_the_pricers_stdout(
    monkeypatch: pytest.MonkeyPatch, command: list[str], printed: bytes
) -> None:
    """Shift_JIS, data, CRLF and a missing last newline come out as the pricer wrote them."""
    answers = Answers(httpx.Response(200, content=zip_with({"stdout.txt": printed})))

    assert run(monkeypatch, answers, *command).stdout_bytes == printed


def test_a_result_that_is_not_there_yet_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --wait the grid is asked once."""
    answers = Answers(problem("not-finished", 404))
    ended = run(monkeypatch, answers, "result", "j")

    assert ended.exit_code == 1
    assert "job j has not ended" in ended.stderr
    assert len(answers.requests) == 1


def test_a_failed_job_shows_the_end_of_its_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last lines of the pricer's stderr are printed, not all of it."""
    tail = "".join(f"line {n}\n" for n in range(50)) + "x" * 5_000
    failed = problem("job-failed", 422, jobId="j", reason="exit_code", exit_code=3, stderr_tail=tail)
    ended = run(monkeypatch, Answers(failed), "result", "j")

    assert (ended.exit_code, ended.stdout) == (1, "")
    text, more, *lines = ended.stderr.splitlines()
    assert (text, more) == ("said job-failed", "    …")
    assert lines == [*(f"    line {n}" for n in range(41, 50)), f"    {'x' * 300}…"]


def test_even_if_failed_asks_for_what_a_failed_job_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The option reaches the grid."""
    answers = Answers(httpx.Response(200, content=zip_of(stdout__txt="half")))
    ended = run(monkeypatch, answers, "result", "j", "--even-if-failed")

    assert ended.stdout == "half"
    assert answers.requests[0].url.params["even_if"] == "failed"


def test_cancel_takes_jobs_and_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each job is one request; a batch is one for all; jobs that have ended are reported as ended."""
    answers = Answers(
        httpx.Response(202, json={"jobId": "a", "state": "running"}),
        httpx.Response(202, json={"jobId": "b", "state": "done"}),
        httpx.Response(202, json={"cancelling": 5}),
    )
    ended = run(monkeypatch, answers, "cancel", "a", "b", "--batch", "x")

    assert [request.url.path for request in answers.requests] == ["/jobs/a", "/jobs/b", "/batches/x"]
    assert {request.method for request in answers.requests} == {"DELETE"}
    assert ended.stdout.splitlines() == [
        "cancelling job a",
        "job b has ended already: it is done",
        "cancelling 5 jobs of batch x",
    ]
    none = run(monkeypatch, Answers(httpx.Response(202, json={"cancelling": 0})), "cancel", "--batch", "x")
    assert "all jobs of batch x have ended already" in none.stdout
    assert run(monkeypatch, Answers(), "cancel").exit_code == 2


def test_data_is_stored_and_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One command sends the file, the other shows what is there."""
    (tmp_path / "m.csv").write_text("curves")
    stored = {"name": "eod", "digest": "d" * 64, "size": 6, "stored_at": "2030-01-02T03:04:05Z"}
    put = Answers(httpx.Response(201, json=stored))

    assert "stored eod: 6 bytes" in run(monkeypatch, put, "data", "put", "eod", str(tmp_path / "m.csv")).stdout
    assert put.requests[0].content == b"curves"
    listed = run(monkeypatch, Answers(httpx.Response(200, json={"data": [stored]})), "data", "list")
    assert "eod" in listed.stdout


def test_pricers_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, version and sandbox of each; a grid of an older release has no column for sandboxes."""
    old = {"name": "bs", "version": "7", "takes_args": True, "result": "zip", "default": True}
    ended = run(monkeypatch, Answers(httpx.Response(200, json={"pricers": [{**old, "sandbox": "strict"}]})), "pricers")
    for word in ("bs", "7", "strict"):
        assert word in ended.stdout
    ended = run(monkeypatch, Answers(httpx.Response(200, json={"pricers": [old]})), "pricers")
    assert "bs" in ended.stdout
    assert "sandbox" not in ended.stdout


def test_the_key_of_the_command_line_is_sent_and_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a refusal nor the help shows it."""
    answers = Answers(problem("unauthorized", 401))
    ended = run(monkeypatch, answers, "--api-key", KEY, "pricers")

    assert answers.requests[0].headers["Authorization"] == f"Bearer {KEY}"
    assert ended.exit_code == 1
    assert KEY not in ended.output
    monkeypatch.setenv("RAYGRID_API_KEY", KEY)
    assert KEY not in run(monkeypatch, Answers(), "--help").output


def test_no_grid_at_all_is_a_usage_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2: a setting is missing."""
    monkeypatch.delenv("RAYGRID_URL")
    ended = CliRunner().invoke(app, ["pricers"])

    assert ended.exit_code == 2
    assert "raygrid up" in ended.stderr
    assert "Traceback" not in ended.output


class Local:
    """Stands in for the functions of raygrid.local that find, start and stop grids."""

    def __init__(self) -> None:
        self.grid: GridFile | None = None
        self.starting = False
        self.started: list[tuple[GridSettings, int, int]] = []
        self.stopped: list[str] = []
        self.sandbox: dict[str, object] | None = None
        self.capacity = httpx.Response(200, json={"slots": 1, "running": 0, "free": 1, "queued": 0})

    def client(self, url: str, key: str | None, *, retry: RetryPolicy, timeout: float = 30.0) -> Client:
        """A client of the started grid, which has one node."""
        node = {"node": "n1", "group": "a", "slots": 1, "running": 0, "state": "ok", "sandbox": self.sandbox}

        def answer(request: httpx.Request) -> httpx.Response:
            return self.capacity if request.url.path == "/capacity" else httpx.Response(200, json={"nodes": [node]})

        return Answers(answer).client(FakeTime(), key, retry_s=retry.retry_s)

    def running_grid(self, name: str = "default", state_dir: Path | None = None) -> GridFile | None:
        """The grid of that name."""
        return self.grid if self.grid and self.grid.name == name else None

    def start_grid(
        self,
        settings: GridSettings,
        racks: int = 1,
        nodes: int = 1,
        timeout_s: float = 180,
        *,
        with_caller: bool = False,
    ) -> GridFile:
        """Start one."""
        assert not with_caller, "what `raygrid up` starts outlives the command"
        self.started.append((settings, racks, nodes))
        url = f"http://{settings.http.host}:{settings.http.port}"
        self.grid = GridFile(url, 4711, 1, settings.name, Path(), started_with=StartedWith.of(settings, racks, nodes))
        return self.grid

    def stop_supervisor(self, settings: GridSettings) -> bool:
        """Stop one that is just starting."""
        was, self.starting = self.starting, False
        return was

    def stop_grid(self, stopped: GridFile, timeout_s: float = 60) -> None:
        """Stop it."""
        self.stopped.append(stopped.name)
        self.grid = None


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Local:
    """The stand-in, in place."""
    stand_in = Local()
    for name in ("running_grid", "start_grid", "stop_supervisor", "stop_grid"):
        monkeypatch.setattr(raygrid.local, name, getattr(stand_in, name))
    monkeypatch.setattr(lifecycle, "Client", stand_in.client)
    monkeypatch.delenv("RAYGRID_URL")
    return stand_in


def up(*words: str) -> Result:
    """Run `raygrid up`."""
    return CliRunner().invoke(app, ["up", *words])


def test_up_starts_a_grid_and_prints_how_to_use_it(local: Local) -> None:
    """A command without a name is the pricer `pricer`."""
    ended = up(
        "--pricer",
        "cat {input}",
        "--pricer",
        "slow=sleep 1",
        "--no-input",
        "--racks",
        "2",
        "--nodes",
        "3",
        "--slots",
        "4",
    )

    settings, racks, nodes = local.started[0]
    assert ended.exit_code == 0
    assert {name: pricer.command for name, pricer in settings.pricers.items()} == {
        "pricer": ("cat", "{input}"),
        "slow": ("sleep", "1"),
    }
    assert (racks, nodes, settings.node.slots) == (2, 3, 4)
    assert ended.stderr == "starting 6 nodes\n"
    assert "grid default is up at http://127.0.0.1:8000" in ended.stdout
    hints = "  raygrid submit trades/*.csv --pricer pricer\n  raygrid status\n  raygrid down\n"
    assert ended.stdout.endswith(hints)  # with two pricers a submit has to name one


@pytest.mark.parametrize(
    ("sandbox", "note"),
    [
        (None, ""),
        (SANDBOX, ""),
        ({**SANDBOX, "open": ["x"]}, "sandbox: protect, with 1 gap, which `raygrid nodes --sandbox` describes\n"),
        (
            {**SANDBOX, "mode": "strict", "open": ["x", "y"]},
            "sandbox: strict, with 2 gaps, which `raygrid nodes --sandbox` describes\n",
        ),
        ({**SANDBOX, "mode": "off"}, "sandbox: off; pricers can do all that the grid's user may do\n"),
    ],
)
def test_up_names_the_sandbox_only_if_something_stays_open(
    local: Local, sandbox: dict[str, object] | None, note: str
) -> None:
    """A user who is protected as intended reads nothing about it."""
    local.sandbox = sandbox
    assert up("--pricer", "cat {input}").stderr == f"starting 1 node\n{note}"


def test_up_succeeds_if_the_state_of_the_nodes_is_unknown(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """The grid is up; the line about its sandbox is left out."""

    def client(url: str, key: str | None, *, retry: RetryPolicy) -> Client:
        return Answers(problem("unavailable", 503)).client(FakeTime(), key, retry_s=0)

    monkeypatch.setattr(lifecycle, "Client", client)
    ended = up("--pricer", "cat {input}")
    assert (ended.exit_code, ended.stderr) == (0, "starting 1 node\n")


def test_up_lets_options_win_over_file_and_environment(
    local: Local, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """--port beats RAYGRID__HTTP__PORT and grid.yaml; settings without an option come from the file."""
    config = tmp_path / "grid.yaml"
    config.write_text("http: {port: 8001, parents: 2}\npricers: {filed: {command: cat}}\n")
    monkeypatch.setenv("RAYGRID__HTTP__PORT", "8002")
    up("--config", str(config), "--port", "8003", "--name", "side", "--pricer", "a=x --y=1 {input}")

    settings = local.started[0][0]
    assert (settings.http.port, settings.http.parents, settings.name) == (8003, 2, "side")
    assert sorted(settings.pricers) == ["a", "filed"]
    assert settings.pricers["a"].command == ("x", "--y=1", "{input}")


def test_an_equals_sign_inside_a_command_names_no_pricer(local: Local) -> None:
    """Only a name before the first = does."""
    up("--pricer", "/bin/run --scale=2 {input}")

    assert local.started[0][0].pricers["pricer"].command == ("/bin/run", "--scale=2", "{input}")


def test_a_side_grid_is_addressed_by_its_url(local: Local) -> None:
    """The other commands would not find it without the URL."""
    assert "raygrid --url http://127.0.0.1:8000 status" in up("--pricer", "cat {input}", "--name", "side").stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "no pricer is configured"),
        (["--pricer", "cat {input} {nonsense}"], "unknown placeholder"),
        (["--pricer", "book=./price 2"], "the command of pricer 'book' has no {input}"),
        (["--pricer", "a=x", "--pricer", "a=y"], "two pricers are called 'a'"),
        (["--pricer", "cat {input} 'open"], "cannot be read"),
        (["--pricer", "cat {input} | wc -l"], "no shell runs the command"),
        (["--pricer", "sh -c 'wc -l {input}'"], "would run as code"),
        (["--pricer", "cat {input}", "--host", "0.0.0.0"], "no API key is set"),
        (["--pricer", "cat {input}", "--config", "none.yaml"], "cannot read the settings file"),
        (["--pricer", "cat {input}", "--name", "a/b"], "is not a name"),
    ],
)
def test_wrong_settings_are_exit_code_two_and_start_nothing(local: Local, words: str, text: str) -> None:
    """The message names what is wrong."""
    ended = up(*words)

    assert ended.exit_code == 2
    assert text in ended.stderr
    assert local.started == []


ASKED = ("--pricer", "cat {input}", "--racks", "2", "--slots", "3")


def test_up_again_reports_that_the_grid_runs(local: Local) -> None:
    """The same options again give exit code 0 and start nothing; so does `up` without options."""
    up(*ASKED)

    for words in (ASKED, ()):
        again = up(*words)
        assert again.exit_code == 0
        assert "grid default runs already at http://127.0.0.1:8000 (process 4711)" in again.stdout
    assert len(local.started) == 1


@pytest.mark.parametrize(
    ("words", "environment", "text"),
    [
        (("--port", "8005"), {}, ["http.port: the grid uses 8000, you asked for 8005"]),
        ((), {"RAYGRID__HTTP__PORT": "8005"}, ["http.port: the grid uses 8000, you asked for 8005"]),
        (("--nodes", "2"), {}, ["nodes: the grid uses 1, you asked for 2"]),
        (("--pricer", "more=cat {input}"), {}, ["pricer more: the grid does not have it"]),
        (("--slots", "3", "--racks", "2"), {}, []),
        (("--pricer", "cat {input}"), {}, []),
    ],
)
def test_up_compares_only_what_was_asked_for(
    local: Local, monkeypatch: pytest.MonkeyPatch, words: str, environment: dict[str, str], text: list[str]
) -> None:
    """Racks, slots and pricers of the running grid are not compared if only a port was given."""
    up(*ASKED, "--pricer", "second=wc {input}")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ended = up(*words)

    assert ended.exit_code == (2 if text else 0)
    assert [line[4:] for line in ended.stderr.splitlines() if line.startswith("  - ")] == text
    assert len(local.started) == 1


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_settings_file_is_compared_in_full(
    local: Local, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by_variable: bool
) -> None:
    """A line that was removed from it is a difference; it does not contain the numbers of racks and nodes."""
    config = tmp_path / "grid.yaml"
    config.write_text("pricers: {p: {command: cat, timeout_s: 9}, q: {command: cat}}\n")
    words = () if by_variable else ("--config", str(config))
    if by_variable:
        monkeypatch.setenv("RAYGRID_CONFIG", str(config))
    up(*words, "--racks", "2", "--nodes", "3")
    assert up(*words).exit_code == 0
    config.write_text("pricers: {p: {command: cat}}\n")
    ended = up(*words, "--port", "8005")

    assert ended.exit_code == 2
    assert f"raygrid deploy{'' if by_variable else f' --config {config}'}`" in ended.stderr
    assert [line[4:] for line in ended.stderr.splitlines() if line.startswith("  - ")] == [
        "pricer q: the grid has it, you did not ask for it",
        "http.port: the grid uses 8000, you asked for 8005",
        "pricers.p.timeout_s: the grid uses 9.0, you asked for 3600.0",
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ("--pricer", "wc -l {input}"),
            "pricers.pricer.command: the grid uses cat {input}, you asked for wc -l {input}",
        ),
        (("--pricer", "other=cat {input}"), "pricer other: the grid does not have it"),
        (("--racks", "1"), "racks: the grid uses 2, you asked for 1"),
        (("--nodes", "2"), "nodes: the grid uses 1, you asked for 2"),
        (("--slots", "4"), "node.slots: the grid uses 3, you asked for 4"),
        (("--port", "8005"), "http.port: the grid uses 8000, you asked for 8005"),
    ],
)
def test_up_with_other_options_lists_the_differences_and_what_to_do(
    local: Local, words: tuple[str, str], text: str
) -> None:
    """Jobs do not run with an old command because a grid of that name runs already."""
    up(*ASKED)
    asked = dict(zip(ASKED[::2], ASKED[1::2], strict=True)) | dict([words])
    ended = up(*(word for pair in asked.items() for word in pair))

    assert ended.exit_code == 2
    assert text in ended.stderr
    assert "raygrid down" in ended.stderr
    assert "raygrid deploy --config FILE`" in ended.stderr
    assert "--name" in ended.stderr
    assert len(local.started) == 1


def test_ctrl_c_while_starting_prints_how_to_clean_up(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of the grid may be there already."""

    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(raygrid.local, "start_grid", interrupted)
    ended = up("--pricer", "cat {input}", "--name", "side")

    assert ended.exit_code == 130
    assert "raygrid down --name side" in ended.stderr


def test_down_stops_a_grid_once(local: Local) -> None:
    """Without a grid the command prints that none runs, with exit code 0."""
    up("--pricer", "cat {input}")

    assert "grid default is down" in CliRunner().invoke(app, ["down"]).stdout
    again = CliRunner().invoke(app, ["down"])
    assert again.exit_code == 0
    assert "grid default does not run here" in again.stdout
    assert local.stopped == ["default"]


@pytest.mark.parametrize(
    ("capacity", "note"),
    [
        (httpx.Response(200, json={"slots": 1, "running": 0, "free": 1, "queued": 0}), ""),
        (
            httpx.Response(200, json={"slots": 1, "running": 1, "free": 0, "queued": 0}),
            "1 unfinished job continues with the next `raygrid up`\n",
        ),
        (
            httpx.Response(200, json={"slots": 1, "running": 1, "free": 0, "queued": 1_233}),
            "1,234 unfinished jobs continue with the next `raygrid up`\n",
        ),
        (problem("unavailable", 503), ""),
    ],
    ids=["none", "one", "many", "unknown"],
)
def test_down_states_how_many_jobs_continue_later(local: Local, capacity: httpx.Response, note: str) -> None:
    """A grid that does not answer is stopped all the same."""
    up("--pricer", "cat {input}")
    local.capacity = capacity
    ended = CliRunner().invoke(app, ["down"])
    assert (ended.exit_code, ended.stdout) == (0, "grid default is down\n")
    assert ended.stderr.endswith(note)
    assert note or "unfinished" not in ended.stderr
    assert local.stopped == ["default"]


def test_down_stops_a_grid_that_is_just_starting(local: Local) -> None:
    """It has no file yet; its lock has the process id."""
    local.starting = True
    ended = CliRunner().invoke(app, ["down"])

    assert ended.exit_code == 0
    assert "just starting" in ended.stdout
    assert not local.starting
