"""What commands print on a terminal: no sequence of a pricer or of another user reaches it; a pipe gets every byte."""

from __future__ import annotations

import ast
import io
import os
import pty
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from raygrid.cli import app, grid
from tests.support.client_fakes import Answers, FakeTime, batch_accepted, end, part, problem, stream, zip_of

HOSTILE = "\x1b]0;title\x07\x9b2J\x7f\u202egpj.exe\u2066"
VISIBLE = r"\x1b]0;title\x07\x9b2J\x7f\u202egpj.exe\u2066"
JSON = r"\u001b]0;title\u0007\u009b2J\u007f\u202egpj.exe\u2066"
RAW = ("\x1b]", "\x07", "\x9b", "\x7f", "\u202e", "\u2066")
JOB = {"jobId": "j", "state": "failed", "message": f"it said {HOSTILE}", "input_name": HOSTILE, "pricer": "desk"}
NODE = {"node": "n", "group": "r", "slots": 1, "running": 0, "state": "unhealthy", "why": HOSTILE}
FAILED = {"reason": "exit_code", "message": f"it said {HOSTILE}"}
STDERR = zip_of(stderr__txt=f"end {HOSTILE}")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAYGRID_URL", "http://grid.test")
    monkeypatch.setenv("RAYGRID_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def on_terminal(monkeypatch: pytest.MonkeyPatch, answers: Answers, *words: str) -> str:
    """Run a command with a terminal as stdout and stderr; gives what the terminal got."""
    monkeypatch.setattr(grid, "Client", lambda url, key: answers.client(FakeTime(), key))
    master, slave = pty.openpty()
    got = io.BytesIO()

    def drain() -> None:
        try:
            while data := os.read(master, 65_536):
                got.write(data)
        except OSError:  # its other side is closed
            return

    reader = threading.Thread(target=drain)
    reader.start()
    try:
        with open(slave, "w", encoding="utf-8") as terminal, monkeypatch.context() as context:
            context.setattr(sys, "stdout", terminal)
            context.setattr(sys, "stderr", terminal)
            app(list(words), standalone_mode=False)
    finally:
        reader.join(60)
        os.close(master)
    return got.getvalue().decode()


def answer(**body: object) -> httpx.Response:
    return httpx.Response(200, json=body)


COMMANDS: dict[str, tuple[Callable[[], Answers], int]] = {
    "status j": (lambda: Answers(answer(**JOB)), 2),
    "jobs": (lambda: Answers(answer(jobs=[JOB])), 2),
    "nodes": (lambda: Answers(answer(nodes=[NODE])), 1),
    "data list": (lambda: Answers(answer(data=[{"name": HOSTILE, "digest": "0", "size": 1}])), 1),
    "result j": (lambda: Answers(httpx.Response(200, content=zip_of(stdout__txt=HOSTILE))), 1),
    "result bad": (
        lambda: Answers(problem("job-failed", 422, detail=HOSTILE, stderr_tail=f"a\n{HOSTILE}", jobId="bad")),
        2,
    ),
    "submit FILE --job-id j": (
        lambda: Answers(batch_accepted, stream(part("j", 1, STDERR, "failed", **FAILED), end())),
        3,
    ),
    "submit FILE --job-id j --no-wait": (lambda: Answers(batch_accepted), 1),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_terminal_gets_no_sequence_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str) -> None:
    """Names, messages, stdout and stderr are shown with their control characters visible."""
    path = tmp_path / "\u202egpj.exe\u2066"
    path.write_text("x")
    answers, times = COMMANDS[command]
    words = [str(path) if word == "FILE" else word for word in command.split()]
    shown = on_terminal(monkeypatch, answers(), *words)
    assert [raw for raw in RAW if raw in shown] == []
    visible = r"\u202egpj.exe\u2066" if "FILE" in command else VISIBLE
    assert shown.count(visible) == times, shown


def test_one_job_prints_its_stdout_beside_the_progress_bar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Meanwhile `sys.stdout` is a stand-in of Rich without an encoding; the text is shown all the same."""
    path = tmp_path / "book.csv"
    path.write_text("x")
    answers = Answers(batch_accepted, stream(part("j", 1, zip_of(stdout__txt=f"42 Stück\n{HOSTILE}\n")), end()))
    shown = on_terminal(monkeypatch, answers, "submit", str(path), "--job-id", "j")
    assert f"42 Stück\r\n{VISIBLE}\r\n" in shown
    assert "1 done" in shown


def test_json_on_a_terminal_has_the_escapes_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is still the same document."""
    shown = on_terminal(monkeypatch, Answers(answer(**JOB)), "status", "j", "--json")
    assert [raw for raw in RAW if raw in shown] == []
    assert f'"message": "it said {JSON}"' in shown


def test_a_terminal_is_recognised_whatever_colours_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich takes a terminal for a pipe if it is told so; the sequences would reach it all the same."""
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    assert VISIBLE in on_terminal(monkeypatch, Answers(answer(jobs=[JOB])), "jobs")


def test_a_pipe_gets_what_the_pricer_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stdout byte for byte, and texts as they are."""
    answers = Answers(httpx.Response(200, content=zip_of(stdout__txt=HOSTILE)), answer(jobs=[JOB]))
    monkeypatch.setattr(grid, "Client", lambda url, key: answers.client(FakeTime(), key))
    assert CliRunner().invoke(app, ["result", "j"]).stdout_bytes == HOSTILE.encode()
    assert "\u202egpj.exe\u2066" in CliRunner().invoke(app, ["jobs"]).stdout


@pytest.mark.parametrize("text", ["[/bold]", "[red]x[/red]", ":smile:", "[link=http://evil]x[/link]"])
def test_texts_of_others_are_no_markup(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Rich's markup in a message is neither followed nor an error."""
    answers = Answers(answer(**{**JOB, "message": text}), answer(nodes=[{**NODE, "why": text}]))
    monkeypatch.setattr(grid, "Client", lambda url, key: answers.client(FakeTime(), key))
    for words in (["status", "j"], ["nodes"]):
        ended = CliRunner().invoke(app, words)
        assert (ended.exit_code, text in ended.stdout) == (0, True), ended.stdout


def test_commands_print_through_one_module() -> None:
    """Only `grid.py`, which escapes, prints texts; elsewhere at most constants and JSON in ASCII."""
    found = []
    for path in sorted(Path(grid.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if path.name != "grid.py" and isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                text = ast.unparse(node.args[0]) if node.args else ""
                if (
                    called in ("print", "typer.echo", "Console", "sys.stdout.write", "Table")
                    and "json.dumps" not in text
                ):
                    found.append(f"{path.name}: {called}({text})")
    assert found == [
        "app.py: typer.echo(f'raygrid {raygrid.__version__}')",
        "demo.py: print(f'demo: {files - failed} jobs done, {failed} failed')",
        "local_grid.py: print(message)",
    ]
