"""Settings: what is accepted, where it comes from, and what is never shown."""

from __future__ import annotations

import pickle
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from raygrid.errors import SettingsError
from raygrid.settings.messages import unreadable_yaml
from raygrid.settings.model import GridSettings, load_settings

SECRET = "s3cret-s3cret-s3cret"


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("RAYGRID"):
            monkeypatch.delenv(name)


def grid_yaml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "grid.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(**overrides: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings(**overrides)
    return str(refused.value)


# --- where settings come from -------------------------------------------------------------------------------


def test_no_file_is_needed() -> None:
    """Every field has a default, and the defaults are safe to start with."""
    settings = load_settings()
    assert (settings.name, settings.http.host, settings.http.port) == ("default", "127.0.0.1", 8000)
    assert settings.database_url == Path.home() / ".raygrid/default/jobs.db"
    assert settings.blobs_url == f"{Path.home()}/.raygrid/default/blobs"
    settings.require_safe_listening()


def test_the_file_gives_values_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable replaces its one field; the file's other values stay."""
    path = grid_yaml(tmp_path, "name: desk\nhttp: {port: 9000, parents: 3}\nplacement: {prefetch: 4}\n")
    monkeypatch.setenv("RAYGRID__HTTP__PORT", "9100")
    monkeypatch.setenv("RAYGRID__ROUTING__POLICY", "hash")
    settings = load_settings(path)
    assert (settings.name, settings.http.port, settings.http.parents) == ("desk", 9100, 3)
    assert (settings.placement.prefetch, settings.placement.max_attempts) == (4, 3)
    assert settings.routing.policy == "hash"


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    """An argument wins over the file, field by top-level field."""
    path = grid_yaml(tmp_path, "name: desk\ngroup_prefix: cell-\n")
    settings = load_settings(path, name="other")
    assert (settings.name, settings.group_prefix) == ("other", "cell-")


def test_the_environment_may_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`RAYGRID_CONFIG` is read where no path is given."""
    monkeypatch.setenv("RAYGRID_CONFIG", str(grid_yaml(tmp_path, "name: named\n")))
    assert load_settings().name == "named"
    assert load_settings(grid_yaml(tmp_path, "name: given\n")).name == "given"


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    """A file with nothing but comments changes nothing."""
    assert load_settings(grid_yaml(tmp_path, "# nothing\n")) == load_settings()


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("[1, 2]", "must hold settings, each as NAME: VALUE, not list"),
        ("just words", "must hold settings, each as NAME: VALUE, not str"),
        ("name: [", "is not valid YAML"),
        ("1: 2", "1"),
        ("htpp: {port: 1}", "line 1: htpp: no such setting; did you mean http? known here are default_pricer, "),
        ("http: {prot: 1}", "line 1: http.prot: no such setting; did you mean port? known here are api_keys, host, "),
        ("http: {port: 99999}", "line 1: http.port: must be at most 65535"),
        ("name: x\nhttp:\n  port: many", "line 3: http.port: must be a whole number"),
        ("pricers:\n  p: {command: p,\n    mode: hot}", "line 3: pricers.p.mode: must be 'cold' or 'warm'"),
        ("pricers:\n  p: {}", "line 2: pricers.p.command: is missing"),
        ("pricers:\n  p: {command: p, straggler: {facter: 2}}", "did you mean factor? known here are factor, min_s"),
        (
            "http:\n  api_keys:\n  - {name: x, kye: x}",
            "line 3: http.api_keys.0.kye: no such setting; did you mean key?",
        ),
        ("pricers: none", "line 1: pricers: must hold settings of its own"),
        (
            "storage: {blob_options: {x: [1]}}",
            "storage.blob_options.x: must be true or false, or must be a whole number",
        ),
        ("default_pricer: p", "default_pricer 'p' is not among the pricers"),
        ("name: x\n\thttp: {}", "see line 2, column 1"),
        ("a: b: c", "see line 1, column 5: mapping values are not allowed here"),
    ],
)
def test_a_wrong_file_is_refused_by_name_of_file_and_field(tmp_path: Path, text: str, fragment: str) -> None:
    """The error names the file, the field and the reason."""
    path = grid_yaml(tmp_path, text)
    with pytest.raises(SettingsError) as refused:
        load_settings(path)
    assert fragment in str(refused.value)
    assert "grid.yaml" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        (
            "pricers:\n  a: {command: cat}\n  b: {command: wc}\n  a: {command: ls}\n",
            "line 4, column 3: .* line 2, column 3",
        ),
        ("http: {port: 8001, port: 8002}\n", "line 1, column 20: .* line 1, column 8"),
        ("name: one\npricers: {}\nname: two\n", "line 3, column 1: .* line 1, column 1"),
        ("pricers: {1: {command: cat}, '1': {command: ls}}\n", "second time"),
    ],
)
def test_a_name_that_is_set_twice_is_refused(tmp_path: Path, text: str, fragment: str) -> None:
    """YAML would silently take the last one: a pricer that was copied and changed would replace the first."""
    with pytest.raises(SettingsError, match=fragment):
        load_settings(grid_yaml(tmp_path, text))


def test_settings_may_be_merged(tmp_path: Path) -> None:
    """A merged group may be overridden, and several groups merged."""
    text = "pricers:\n  a: &a {command: cat, timeout_s: 5}\n  b: {<<: *a, command: wc}\n"
    assert load_settings(grid_yaml(tmp_path, text)).pricers["b"].timeout_s == 5


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file and one that is not text have errors of their own."""
    with pytest.raises(SettingsError, match=r"cannot read the settings file .*nowhere\.yaml"):
        load_settings(tmp_path / "nowhere.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot read the settings file"):
        load_settings(binary)


def test_a_mistyped_variable_of_a_section_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that sets no known field of its section is not ignored."""
    monkeypatch.setenv("RAYGRID__HTTP__PROT", "1")
    assert "variable RAYGRID__HTTP__PROT: http.prot: no such setting" in refusal()


def test_an_error_names_the_variable_where_that_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names where the value comes from: the variable, else the file, else the caller."""
    path = grid_yaml(tmp_path, "http:\n  port: 1\n  parents: 0\nnode: {slots: 1}\n")
    monkeypatch.setenv("RAYGRID__HTTP__PORT", "many")
    with pytest.raises(SettingsError) as refused:
        load_settings(path, node={"slots": 0})
    assert str(refused.value).splitlines() == [
        "the settings are not valid:",
        "  variable RAYGRID__HTTP__PORT: http.port: must be a whole number",
        f"  {path}, line 3: http.parents: must be at least 1",
        "  node.slots: must be at least 1",
    ]


def test_errors_of_settings_do_not_mention_the_library(tmp_path: Path) -> None:
    """The texts are raygrid's own."""
    text = "http: {port: x, max_wait_s: .inf, parents: 1.5}\nstorage: {retention_days: -1}\nrouting: []\nname: [x]\n"
    with pytest.raises(SettingsError) as refused:
        load_settings(grid_yaml(tmp_path, text))
    assert len(str(refused.value).splitlines()) == 7
    assert "nput" not in str(refused.value)


# --- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("64MB", 64 * 1024**2),
        ("1.5 GiB", 3 * 1024**3 // 2),
        ("2k", 2048),
        ("7", 7),
        ("1tb", 1024**4),
        (9, 9),
        ("0", 0),
    ],
)
def test_sizes_are_read_in_powers_of_1024(written: str | int, size: int) -> None:
    """A size may be a number or carry a unit in any case."""
    assert load_settings(node={"cache": written}).node.cache == size


@pytest.mark.parametrize("written", ["much", "-1", "1 XB", "", -5])
def test_a_malformed_size_is_refused(written: str | int) -> None:
    """The error names the field."""
    assert "node.cache" in refusal(node={"cache": written})


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "no spaces"},
        {"name": "x" * 65},
        {"pricers": {"../up": {"command": "p"}}},
        {"placement": {"max_attempts": 0}},
        {"placement": {"weights": {"n1": 0}}},
        {"placement": {"probation_s": float("nan")}},
        {"routing": {"policy": "random"}},
        {"routing": {"hash_load_bound": 0.9}},
        {"node": {"slots": 0}},
        {"storage": {"retention_days": -1}},
        {"groups": {"rack-a": {"quota": 0}}},
    ],
)
def test_impossible_values_are_refused(wrong: dict[str, Any]) -> None:
    """Each error names its field."""
    assert next(iter(wrong)) in refusal(**wrong)


def test_settings_do_not_change() -> None:
    """Settings are frozen after validation, sections included."""
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.name = "other"  # type: ignore[misc]  # refused at run time, too
    with pytest.raises(ValueError, match="frozen"):
        settings.http.port = 1  # type: ignore[misc]  # refused at run time, too


# --- pricers ------------------------------------------------------------------------------------------------


def pricer(command: object) -> GridSettings:
    return load_settings(pricers={"p": {"command": command}})


def test_a_command_is_split_like_a_shell_would() -> None:
    """Quotes group words; a list is not split; nothing is expanded."""
    assert pricer("./p 'a b' {input} $HOME *").pricers["p"].command == ("./p", "a b", "{input}", "$HOME", "*")
    assert pricer(["./my pricer", "{input}"]).pricers["p"].command == ("./my pricer", "{input}")


@pytest.mark.parametrize(
    "line",
    [
        "cat {input} | wc -l",
        "sort {input} > out.csv",
        "sort {input} >out.csv",
        "price {input} 2>/dev/null",
        "price {input} 2>&1",
        "price < {input}",
        "price {input} && report",
        "price {input} || true",
        "price {input} &",
        "price {input}; report",
        "price {input} ; report",
    ],
)
def test_a_line_for_a_shell_is_refused(line: str) -> None:
    """Without a shell `echo {input} > out.csv` prints its words and succeeds; the error shows the form that works."""
    assert "no shell runs the command" in (message := refusal(pricers={"p": {"command": line}}))
    assert "sh -c 'COMMANDS' {input}" in message


@pytest.mark.parametrize(
    "line",
    [
        "awk '$1 > 5' {input}",
        "price --sep='|' {input}",
        'price "|" {input}',
        r"find {output_dir} -exec cat {data_dir} \;",
        "price --url http://127.0.0.1/?a=1&b=2 {input}",
        "price --filter=a>b {input}",
        """sh -c 'cat "$0" | wc -l' {input}""",
    ],
)
def test_what_is_quoted_or_within_a_word_is_an_argument(line: str) -> None:
    """Only a word that a shell would take for an operator is refused."""
    assert load_settings(pricers={"p": {"command": line}}).pricers["p"].command == tuple(shlex.split(line))


def test_a_list_is_not_split() -> None:
    """Its items are words already, so a lone `|` in it is an argument."""
    command = ("cut", "-d", "|", "-f1", "{input}")
    assert load_settings(pricers={"p": {"command": list(command)}}).pricers["p"].command == command


@pytest.mark.parametrize(
    "line",
    [
        "sh -c 'wc -l {input}'",
        "/bin/sh -c 'wc {input}'",
        "bash -ec 'x {input}'",
        "bash -c -e 'x {input}'",
        "bash -o pipefail -c 'x {input}'",
        "bash -eo pipefail -c 'x {input}'",
        "env A=b sh -c '{input}'",
        "env sh -c {input}",
        "busybox sh -c '{job_id}'",
        "nice -n 5 bash -lc 'x {input}'",
        "sh -c {args}",
        "python3.11 -c 'open(\"{input}\")'",
        "python -Ic 'print(1)+{input}'",
        "python -W ignore -c '{input}'",
        "python '-cprint(\"{input}\")'",
        "perl -ne 'print {job_id}'",
        "perl -e 'x' -e '{input}'",
        "awk '/x{job_id}/'",
        "awk -F , '{input}'",
        "awk {input}",
        "gawk -v a=1 'x{input}'",
        "node -e 'x{input}'",
        "node --eval=x{input}",
        "node -pe 'x{input}'",
        "Rscript -e 'source(\"{input}\")'",
        "env -S 'sh {input}'",
        "env '-Ssh {input}'",
        "wine cmd /c 'type {input}'",
        "cmd.exe /C 'a{input}'",
        "pwsh -Command ./x.ps1 {input}",
        "su desk -c 'x {input}'",
        "sh -c 'x' sh bash -c 'cat {input}'",
        "sh -c -- '{input}'",
        "ruby -e '{input}'",
        "php -r 'x{input}'",
        "fish --command='x {input}'",
        "flock /tmp/l -c 'x {input}'",
        "bash -c 'ls {output_dir}'",
    ],
)
def test_a_placeholder_in_code_is_refused(line: str) -> None:
    """A value from a client, such as a file's name, is an argument, and never a part of what an interpreter runs."""
    message = refusal(pricers={"p": {"command": shlex.split(line)}})
    assert "would run as code. Write it as a separate word after the code" in message


def test_a_placeholder_in_code_is_refused_with_the_form_that_works() -> None:
    """The message shows a command that does what was meant, for settings files and for `--pricer`."""
    message = refusal(pricers={"p": {"command": "dash -c 'wc -l {input}'"}})
    form = """dash -c 'wc -l "$0"' {input}"""
    assert message.endswith(f"for instance {form}")
    load_settings(pricers={"p": {"command": form}})


@pytest.mark.parametrize(
    "line",
    [
        "sh -c 'wc -l \"$1\"' sh {input}",
        "sh {input}",
        "sh -e {input}",
        "bash -o pipefail script.sh {input}",
        "python script.py -c {input}",
        "python -m mod -c {input}",
        "python {input}",
        "perl -Mstrict script.pl {input}",
        "perl -MModule script.pl {input}",
        "perl -i.bak -pe 's/a/b/' {input}",
        "perl -I lib x.pl {input}",
        "awk -f prog.awk {input}",
        "awk '/x/' {input}",
        "awk -v out={output_dir} '/x/' {input}",
        "node script.js -e {input}",
        "node --require x.js s.js {input}",
        "Rscript model.R {input}",
        "./pricer -c {input}",
        "./pricer.exe -e 'a {input}'",
        "wine pricer.exe /c {input}",
        "wine cmd /c run.bat {input}",
        "env A=b ./x {input}",
        "timeout 5 sh -c 'cat \"$0\"' {input}",
        "stat -c %s {input}",
        "sh -c 'echo ${{HOME}}' {input} {args}",
        "julia model.jl {input}",
        "pwsh -File x.ps1 {input}",
        "grep -c ^t {input}",
        "python -X utf8 script.py {input}",
        "tclsh x.tcl {input}",
        "script {input}",
        "ruby -r json x.rb {input}",
        "php -d a=b x.php {input}",
        "perl x.pl -e {input}",
        "java -cp x.jar Main {input}",
        "./script -c {input}",
        "/opt/desk/cmd -c 'x={input}'",
    ],
)
def test_a_placeholder_beside_code_is_an_argument(line: str) -> None:
    """Options that only look similar, and words behind the code, may have placeholders."""
    assert load_settings(pricers={"p": {"command": shlex.split(line)}}).pricers["p"].command == tuple(shlex.split(line))


def test_all_known_placeholders_are_accepted() -> None:
    """Placeholders may stand inside words, doubled braces are plain, and only `{args}` takes arguments."""
    settings = pricer("./p --in={input} {output_dir}/x {data_dir} {job_id} {{literal}} {args}")
    assert settings.pricers["p"].takes_args
    assert not pricer("./p {input}").pricers["p"].takes_args


@pytest.mark.parametrize(
    ("command", "fragment"),
    [
        ("./p {inptu}", "unknown placeholder {inptu} in '{inptu}'; known are {args}, {data_dir}, {input}"),
        ("./p {}", "unknown placeholder {}"),
        ("./p {input.__class__}", "unknown placeholder {input.__class__}"),
        ("./p {input[0]}", "unknown placeholder {input[0]}"),
        ("./p --x={args}", "{args} must be a separate word, not part of '--x={args}'"),
        ("./p {input", "pricers.p.command"),
        ("./p 'open", "No closing quotation"),
        ("{input} --fast", "begins with {input}, but its first word must be the program"),
        (["{args}"], "begins with {args}"),
        ("", "the command is empty"),
        ([], "the command is empty"),
    ],
)
def test_a_command_that_cannot_work_is_refused(command: object, fragment: str) -> None:
    """The error names the pricer and the word, and lists the known ones."""
    text = refusal(pricers={"p": {"command": command}})
    assert fragment in text
    assert "pricers.p.command" in text


@pytest.mark.parametrize("word", ["{input}", "{output_dir}", "{data_dir}", "{job_id}", "{args}", "--in={input}"])
def test_a_warm_command_has_no_placeholder_of_a_job(word: str) -> None:
    """It is refused with what to write instead."""
    text = refusal(pricers={"p": {"command": f"./p {word}", "mode": "warm"}})
    assert f"its command cannot have {word.removeprefix('--in=')}: write only the program and its own options" in text
    assert "docs/guides/warm-pricers.md" in text


def test_a_warm_pricer_takes_args_and_its_replacement_is_a_setting() -> None:
    """Args go with each job; replacing a process is off by default, and doubled braces are plain braces."""
    warm = load_settings(pricers={"p": {"command": "./p {{x}}", "mode": "warm"}}).pricers["p"]
    assert (warm.takes_args, warm.recycle_after, warm.recycle_memory) == (True, None, None)
    sized = load_settings(pricers={"p": {"command": "./p", "mode": "warm", "recycle_memory": "1GB", "memory": "2GB"}})
    assert sized.pricers["p"].recycle_memory == 1024**3


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        ({"recycle_after": 5}, "recycle_after and recycle_memory apply to warm pricers only"),
        ({"recycle_memory": "1GB"}, "recycle_after and recycle_memory apply to warm pricers only"),
        ({"mode": "warm", "recycle_after": 0}, "recycle_after"),
        ({"mode": "hot"}, "'cold' or 'warm'"),
        ({"mode": "warm", "memory": "1GB", "recycle_memory": "2GB"}, "recycle_memory is above memory"),
    ],
)
def test_settings_without_a_meaning_for_the_mode_are_refused(settings: dict[str, Any], fragment: str) -> None:
    """They would otherwise be ignored silently."""
    assert fragment in refusal(pricers={"p": {"command": "./p", **settings}})


def test_the_only_pricer_is_the_default() -> None:
    """With one pricer a submit need not name it; with two it must, unless one is configured."""
    both = {"a": {"command": "a"}, "b": {"command": "b"}}
    assert load_settings().chosen_default_pricer is None
    assert pricer("./p").chosen_default_pricer == "p"
    assert load_settings(pricers=both).chosen_default_pricer is None
    assert load_settings(pricers=both, default_pricer="b").chosen_default_pricer == "b"
    assert "default_pricer 'c' is not among the pricers" in refusal(pricers=both, default_pricer="c")


# --- listening ----------------------------------------------------------------------------------------------

KEY = {"name": "desk", "key": SECRET}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_a_loopback_address_needs_no_key(host: str) -> None:
    """Only this machine can connect there."""
    load_settings(http={"host": host}).require_safe_listening()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "grid.example.com", "127.example.com", ""])
def test_listening_to_others_needs_a_key(host: str) -> None:
    """On any other address a grid without keys refuses to start, and names the setting."""
    with pytest.raises(SettingsError, match=r"http\.api_keys .*openssl rand.* http\.host to 127\.0\.0\.1"):
        load_settings(http={"host": host}).require_safe_listening()
    load_settings(http={"host": host, "api_keys": [KEY]}).require_safe_listening()


def test_keys_have_a_length_and_a_name_of_their_own() -> None:
    """A short key is refused with the way to make one, and two keys cannot share a name."""
    assert "openssl rand -hex 24" in refusal(http={"api_keys": [{"name": "desk", "key": "short"}]})
    assert "two API keys have the same name" in refusal(http={"api_keys": [KEY, KEY]})


# --- secrets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "http: {api_keys: [{name: desk, key:Sec-ret9}]}",
        "http:\n  api_keys:\n    - Secret9: desk",
        "pricers: {p: {command: cat, env: {TOKEN:Sec-ret9}}}",
        "pricers: {p: {command: cat, env: {TOKEN=Secret9}}}",
        "storage: {database:postgresql://user:Secret9@host/db}",
    ],
)
def test_a_value_in_the_place_of_a_name_is_not_shown(tmp_path: Path, text: str) -> None:
    """A missing space after a colon turns a secret into a name; the error gives the line instead."""
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match="line") as caught:
        load_settings(path)
    assert "ret9" not in str(caught.value)


def test_secrets_are_not_in_what_settings_print() -> None:
    """Keys, passwords in URLs and the pricers' environment stay out of repr and str."""
    settings = load_settings(
        http={"api_keys": [KEY]},
        pricers={"p": {"command": "./p", "env": {"LICENCE": SECRET}}},
        storage={"database": f"postgresql+asyncpg://u:{SECRET}@db/grid", "blobs": f"s3://k:{SECRET}@bucket"},
    )
    assert settings.http.api_keys[0].key.get_secret_value() == SECRET
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"http": {"api_keys": [{"name": "desk", "key": "s3cret"}]}},
        {"http": {"api_keys": [{"name": "desk", "key": ["s3cret"]}]}},
        {"http": {"api_keys": "s3cret"}},
        {"http": {"api_keys": [{"name": "desk", "key": SECRET, "kye": "s3cret"}]}},
        {"storage": {"database": ["s3cret"]}},
        {"pricers": {"p": {"command": "./p", "env": {"LICENCE": ["s3cret"]}}}},
    ],
)
def test_secrets_are_not_in_errors(wrong: dict[str, Any]) -> None:
    """A refused value is not repeated, nor is it chained to the error."""
    with pytest.raises(SettingsError) as refused:
        load_settings(**wrong)
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_a_broken_file_does_not_show_its_lines(tmp_path: Path) -> None:
    """An error of the YAML itself has the position, not the text."""
    path = grid_yaml(tmp_path, f'http:\n  api_keys:\n    - {{name: desk, key: "{SECRET}\n')
    with pytest.raises(SettingsError, match=r"grid\.yaml is not valid YAML: .*line \d+") as refused:
        load_settings(path)
    assert SECRET not in str(refused.value)


# Each line stands for ten times as many values as the one before.
ALIASES = "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        (
            "http: {port: 1}\nname: [a,\n  SECRET\n",
            "line 4, column 1: the list that begins in line 2, column 7 lacks a",
        ),
        (
            "http: {port: 1 x: SECRET}",
            "line 1, column 17: the settings in braces that begin in line 1, column 7 lack a",
        ),
        ('a: 1\nname: "SECRET\n', "line 3, column 1: the quotes that open in line 2, column 7 are not closed"),
        ("http:\n  port: 1\n name: SECRET\n", "line 3, column 2: this does not fit the lines before it; check"),
        ("name: x\nSECRET\nhttp: 1\n", "line 3, column 1: a line above is neither NAME: VALUE nor part of a value"),
        ("name: 'a' SECRET", "line 1, column 11: this does not fit the lines before it; check the"),
        ("name: *SECRET", "line 1, column 7: a value that begins with * must be in quotes"),
        ("name: !SECRET", "line 1, column 7: a value that begins with ! must be in quotes"),
        ("name: !x!SECRET", "line 1, column 7: a value that begins with ! must be in quotes"),
        ("a: &SECRET 1\nb: &SECRET 2", "line 2, column 4: a value that begins with & must be in quotes"),
        ("name: @SECRET", "line 1, column 7: a value that begins with this character must be in quotes"),
        (
            'name: "\\SECRET"',
            "line 1, column 9: unknown escape; in single quotes a backslash is an ordinary character",
        ),
        ("name: |SECRET", "line 1, column 8: after | or > the text begins on the next line"),
        ("name: x\nhttp: \x07SECRET", "line 2, column 7: a character that YAML does not allow"),
        ("a: !!bool SECRET", "line 1, column 4: this looks like a date or a number but is not one"),
        ("a: !!int ''", "line 1, column 4: this looks like a date or a number but is not one"),
        ("a: !!float ''", "line 1, column 4: this looks like a date or a number but is not one"),
        ("a: !!timestamp SECRET", "line 1, column 4: this looks like a date or a number but is not one"),
        ("a: &a [*a, 2030-13-45]", "line 1, column 8: this value contains itself"),
        ("a: " + "[" * 60, "line 1, column 53: the settings are nested too deeply"),
        (ALIASES, "line 5, column 36: the settings are nested too deeply, or have too many values"),
        ('a: "\\UFFFFFFFF SECRET"', "an escape names a character that does not exist"),
        ("a: 1\nname: [x, 2030-13-45, SECRET]", "line 2, column 11: this looks like a date or a number but is not one"),
    ],
)
def test_a_broken_file_is_refused_with_the_reason_and_without_its_text(
    tmp_path: Path, text: str, fragment: str
) -> None:
    """The error has the position and the reason."""
    with pytest.raises(SettingsError) as refused:
        load_settings(grid_yaml(tmp_path, text.replace("SECRET", SECRET)))
    assert fragment in str(refused.value)
    assert SECRET not in str(refused.value)
    assert refused.value.__suppress_context__


def test_a_size_of_hundreds_of_digits_is_refused(tmp_path: Path) -> None:
    """It is no number of bytes."""
    with pytest.raises(SettingsError, match="larger than any disk"):
        load_settings(grid_yaml(tmp_path, f"http:\n  max_body: 1{'0' * 400}MB\n"))


def test_an_error_text_of_yaml_that_is_not_known_is_left_out() -> None:
    """An unknown error shows no more of the file than the known ones."""
    mark = yaml.Mark("grid.yaml", 0, 4, 2, SECRET, 0)
    for quote in "'\"`":
        error = yaml.MarkedYAMLError(problem=f"found odd {quote}{SECRET}\nit's {quote} there", problem_mark=mark)
        assert unreadable_yaml(error, SECRET) == "see line 5, column 3: found odd … there"


def test_a_variable_that_is_not_json_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable for a list that cannot be read is a settings error like any other."""
    monkeypatch.setenv("RAYGRID__HTTP", f"[{SECRET}")
    text = refusal()
    assert "the variable RAYGRID__HTTP is not JSON" in text
    assert SECRET not in text


def test_nodes_get_neither_keys_nor_the_database() -> None:
    """What an agent is handed holds nothing that opens the grid or its job store; all else is the same."""
    storage = {"database": f"postgresql+asyncpg://raygrid:{SECRET}@db/raygrid", "blobs": "/srv/blobs"}
    settings = load_settings(http={"api_keys": [{"name": "desk", "key": SECRET}]}, storage=storage)
    handed = settings.for_nodes
    assert SECRET.encode() in pickle.dumps(settings)
    assert SECRET.encode() not in pickle.dumps(handed)
    assert (handed.blobs_url, handed.node, handed.grid_dir) == ("/srv/blobs", settings.node, settings.grid_dir)


def test_options_of_the_blob_store_keep_their_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options come from the file or the environment, and a switch stays a switch."""
    monkeypatch.setenv("RAYGRID__STORAGE__BLOB_OPTIONS__REGION", "eu-1")
    options = load_settings(storage={"blob_options": {"allow_http": True, "endpoint": "http://minio:9000"}})
    assert options.storage.blob_options == {"allow_http": True, "endpoint": "http://minio:9000", "region": "eu-1"}
    assert options.storage.blob_options["allow_http"] is True


@pytest.mark.parametrize(
    "name", ["access_key_id", "aws_secret_access_key", "AWS_SESSION_TOKEN", "account_key", "sas_key", "password"]
)
def test_credentials_of_the_blob_store_are_no_settings(name: str) -> None:
    """They would be sent along with the settings; the message names the right place, without the value."""
    text = refusal(storage={"blob_options": {name: SECRET}})
    assert name in text
    assert "AWS_SECRET_ACCESS_KEY" in text
    assert SECRET not in text


@pytest.mark.parametrize("name", ["web_identity_token_file", "sse_kms_key_id", "endpoint", "region", "timeout"])
def test_options_that_only_sound_like_credentials_are_taken(name: str) -> None:
    """Names of files and of keys kept elsewhere are no secrets."""
    assert load_settings(storage={"blob_options": {name: "x"}}).storage.blob_options == {name: "x"}


def test_a_mistyped_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable with the prefix that sets nothing is an error that names it."""
    monkeypatch.setenv("RAYGRID__HTP__PORT", "9000")
    with pytest.raises(SettingsError, match="RAYGRID__HTP__PORT"):
        load_settings()


def test_sites_are_known_where_a_group_has_one() -> None:
    """Sites of groups count, and those that only have distances to them; distances alone make no site."""
    routing = {"site_distance": {"kyoto": {"tokyo": 2}}}
    assert load_settings(groups={"rack-a": {"site": "tokyo"}}, routing=routing).known_sites == {"tokyo", "kyoto"}
    assert load_settings(groups={"rack-a": {"quota": 1}}, routing=routing).known_sites == frozenset()


# --- deployments --------------------------------------------------------------------------------------------


def test_the_stamp_of_a_deployment_travels_with_the_settings() -> None:
    """The stamp survives every step on the way to leaders and agents, and differs between deployments."""
    import pickle

    settings = load_settings(http={"api_keys": [{"name": "desk", "key": SECRET}]})
    assert settings.deployed_at == 0.0
    stamped = settings.deployed(1_700_000_000.5)
    assert (settings.deployed_at, stamped.deployed_at) == (0.0, 1_700_000_000.5)
    travelled = pickle.loads(pickle.dumps(stamped.without_keys))  # noqa: S301 - as Ray does with what we give it
    assert (travelled.deployed_at, travelled.http.api_keys) == (1_700_000_000.5, ())
    assert stamped.model_copy(update={"name": "other"}).deployed_at == 1_700_000_000.5
    assert "deployed_at" not in stamped.model_dump()


@pytest.mark.parametrize("name", ["deployed_at", "_deployed_at"])
def test_the_stamp_is_no_setting(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a file nor a variable can claim to be newer than what was deployed."""
    with pytest.raises(SettingsError, match="deployed_at"):
        load_settings(grid_yaml(tmp_path, f"{name}: 5\n"))
    monkeypatch.setenv(f"RAYGRID__{name.upper()}", "5")
    with pytest.raises(SettingsError, match="sets nothing"):
        load_settings()


# --- what a pricer cannot be given ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": ["", "{input}"]}, "the first word of the command is empty"),
        ({"command": "'' {input}"}, "the first word of the command is empty"),
        ({"command": ["./p", "a\0b"]}, "a word of the command contains a NUL or has more than 131071 bytes"),
        (
            {"command": ["./p", "x" * 131_072]},
            "a word of the command contains a NUL or has more than 131071 bytes: 'xxx",
        ),
        ({"command": "./p {job_id!s}", "reuse": "content"}, "cannot contain ':' or '!': write '{job_id}'"),
        ({"command": "./p --file={input:>10}"}, "cannot contain ':' or '!': write '--file={input}'"),
        ({"command": "./p {input:}"}, "cannot contain ':' or '!': write '{input}'"),
        ({"command": "./p {input:{job_id}}"}, "cannot contain ':' or '!': write '{input}'"),
        ({"version": "1\0"}, "must consist of printable characters"),
        ({"version": "1\n2"}, "must consist of printable characters"),
        ({"env": {"": "x"}}, "'' cannot be the name of a variable"),
        ({"env": {"A=B": "x"}}, "'A=B' cannot be the name of a variable"),
        ({"env": {"A\0": "x"}}, "cannot be the name of a variable"),
        ({"env": {"A": f"{SECRET}\0"}}, "the value of 'A' contains a NUL"),
        ({"env": {"A": SECRET * 7_000}}, "'A' has 140002 bytes; a variable can have at most 131071"),
        ({"env": {f"A{i}": "x" * 120_000 for i in range(9)}}, "all variables together have 1080036 bytes"),
    ],
)
def test_a_command_that_no_process_can_be_started_with_is_refused_at_once(
    changes: dict[str, Any], message: str
) -> None:
    """The error names the mistake and its place; values of variables are not shown."""
    refused = refusal(pricers={"p": {"command": "./p {input}", **changes}})
    assert message in refused
    assert "pricers.p" in refused
    assert SECRET not in refused


def test_what_the_kernel_takes_is_accepted() -> None:
    """Limits are the kernel's own: a process gets the longest variable and word; braces may be doubled."""
    value, word = "x" * (131_071 - 2), "y" * 131_071
    settings = load_settings(pricers={"p": {"command": ["/bin/sh", "-c", "echo ${{#A}} ${{#0}}"], "env": {"A": value}}})
    pricer = settings.pricers["p"]
    script = pricer.command[2].format()
    ended = subprocess.run([*pricer.command[:2], script, word], env=dict(pricer.env), capture_output=True, check=True)
    assert ended.stdout == b"131069 131071\n"


def test_reuse_and_job_ids_exclude_each_other_however_they_are_written() -> None:
    """Doubled braces are no placeholder."""
    assert "remove {job_id} from command" in refusal(
        pricers={"p": {"command": "./p {input} x{job_id}y", "reuse": "content"}}
    )
    load_settings(pricers={"p": {"command": "./p {input} {{job_id}}", "reuse": "content"}})


@pytest.mark.parametrize("key", ["a key with some spaces", "schlüssel-für-alle-preise", "tab\tin-the-middle-of-it"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    """The message lists the characters that a key may have, and does not show the key."""
    refused = refusal(http={"api_keys": [{"name": "desk", "key": key}]})
    assert "printable ASCII without spaces; make one with: openssl rand -hex 24" in refused
    assert key not in refused


def test_the_name_of_the_file_is_kept_for_hints_only(tmp_path: Path) -> None:
    """Settings are equal if their values are, through pickling, too."""
    path = grid_yaml(tmp_path, "name: desk\n")
    settings = pickle.loads(pickle.dumps(load_settings(path).deployed(7.0)))  # noqa: S301 - our own bytes
    assert settings.config == path
    assert load_settings(name="desk").config is None
    assert settings == load_settings(name="desk").deployed(7.0)


# --- names that are words of the settings or of YAML ----------------------------------------------------------------

ODD_NAMES = [
    "env",
    "command",
    "keys",
    "default",
    "None",
    "null",
    "1",
    "0x1",
    "yes",
    "off",
    "1e3",
    "a.env",
    "a-b.c",
    "~",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_every_name_in_a_file_is_text(tmp_path: Path, name: str) -> None:
    """Names of pricers, groups, sites and nodes are kept as written, though YAML would convert some."""
    pricers = f"pricers:\n  {name}: {{command: 'cat {{input}}', env: {{{name}: x}}}}\n" if name != "~" else ""
    text = (
        f"{pricers}groups:\n  {name}: {{site: a}}\nplacement: {{weights: {{{name}: 2}}}}\n"
        f"routing:\n  site_distance:\n    a: {{{name}: 1}}\n"
    )
    settings = load_settings(grid_yaml(tmp_path, text))
    assert [*settings.groups, *settings.placement.weights, *settings.routing.site_distance["a"]] == [name] * 3
    if pricers:
        assert settings.pricers[name].command == ("cat", "{input}")
        assert settings.pricers[name].env == {name: "x"}


@pytest.mark.parametrize("name", [name for name in ODD_NAMES if name.islower()])
def test_a_variable_may_set_up_a_pricer_of_any_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A variable names the pricer; its command is a line for a shell or JSON, and its variables keep their case."""
    for command in ("cat '{input}' -n", '["cat", "{input}", "-n"]'):
        monkeypatch.setenv(f"RAYGRID__PRICERS__{name.upper()}__COMMAND", command)
        monkeypatch.setenv(f"RAYGRID__PRICERS__{name.upper()}__ENV__Java_Home", "/x")
        settings = load_settings()
        assert settings.pricers[name].command == ("cat", "{input}", "-n")
        assert settings.pricers[name].env == {"Java_Home": "/x"}


def test_a_variable_of_a_pricer_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable that was set, and not one of the whole section."""
    monkeypatch.setenv("RAYGRID__PRICERS__P__COMMAND", "cat {input}")
    monkeypatch.setenv("RAYGRID__PRICERS__P__RETRY_EXIT_CODES", "3,4")
    with pytest.raises(SettingsError, match=r"one of the variables .*__RETRY_EXIT_CODES is not JSON"):
        load_settings()
    monkeypatch.delenv("RAYGRID__PRICERS__P__COMMAND")
    with pytest.raises(SettingsError, match=r"the variable RAYGRID__PRICERS__P__RETRY_EXIT_CODES is not JSON"):
        load_settings()
