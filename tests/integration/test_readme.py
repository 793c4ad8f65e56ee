"""The README is run as it stands: its commands, its curl lines and its Python, on a grid of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from raygrid.local import free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"<!-- test: (?P<name>[a-z ]+) -->\n```(?:sh|python|yaml)\n(?P<code>.*?)```", re.DOTALL)


def blocks(name: str) -> list[str]:
    """The tested blocks of that name, in order."""
    return [match["code"] for match in BLOCK.finditer(README) if match["name"] == name]


class Reader:
    """Somebody who follows the README in an empty directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(directory),
            "RAYGRID_STATE_DIR": str(directory / "state"),
            "RAYGRID__HTTP__PORT": str(self.port),
        }

    def run(self, *command: str) -> str:
        """Run a command and give what it prints; fail with that if it fails."""
        done = subprocess.run(
            command, cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def shell(self, code: str) -> str:
        """Run a block of commands, stopping at the first that fails; the port is this test's."""
        return self.run("bash", "-euc", code.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}"))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    follower = Reader(tmp_path_factory.mktemp("reader"))
    try:
        [own_grid] = blocks("own grid")
        follower.said = follower.shell(own_grid)  # type: ignore[attr-defined]
        yield follower
    finally:
        follower.run("raygrid", "down")


def test_a_grid_of_ones_own_counts_trades(reader: Reader) -> None:
    """`raygrid up` and `raygrid submit --out` as printed leave the unpacked result of the job."""
    assert (reader.directory / "results" / "book" / "stdout.txt").read_text() == "2\n"
    assert "\n2\n" in reader.said  # type: ignore[attr-defined]


def test_the_curl_lines_do_what_the_text_says(reader: Reader) -> None:
    """Sync and async give the ZIP, the same jobId gives the same bytes, another file gets 409."""
    wait, later, again = blocks("http")
    assert "stdout.txt" in reader.shell(wait)
    assert '"state":"queued"' in reader.shell(later).replace(" ", "")
    assert zipfile.ZipFile(reader.directory / "book-2.zip").read("stdout.txt") == b"2\n"
    assert '"status":409' in reader.shell(again).replace(" ", "")


def test_the_batch_commands_find_back_to_a_batch(reader: Reader) -> None:
    """Ready, submitted, ended, fetched into a directory named after the input, and listed."""
    [commands] = blocks("batch commands")
    said = reader.shell(commands)
    assert said.startswith("ready after ")
    assert "batch evening " in said
    assert (reader.directory / "evening" / "book" / "stdout.txt").read_text() == "2\n"
    assert "\tdone\tbook.csv\tevening/book\n" in said
    assert "done" in said.rpartition("jobs")[2]


def test_the_curl_lines_for_batches_do_what_the_text_says(reader: Reader) -> None:
    """Data is stored, a batch is taken, its events come until it has ended, and the form's jobId is the job's."""
    [code] = blocks("http batch")
    (reader.directory / "other.csv").write_text("t3,call,95\n")
    said = reader.shell(code).replace(" ", "")
    assert said.count('"name":"curves"') == 2  # stored, and listed
    assert '"total":2' in said
    assert "event:end" in said
    assert '"done":2' in said
    assert '"jobId":"book-3"' in said


def test_the_bench_says_what_the_grid_adds(reader: Reader) -> None:
    """The command as printed measures the grid that runs and ends well."""
    [code] = blocks("bench")
    said = reader.shell(code)
    assert said.startswith("40 jobs in ")
    assert "The grid adds " in said


def test_the_python_lines_print_results(reader: Reader) -> None:
    """The notebook lines submit to the running grid and print one count an input."""
    [code] = blocks("python")
    printed = reader.run(sys.executable, "-c", code).split("\n")
    assert [line.split()[0] for line in printed if line] == ["2", "1", "2", "3", "4", "5"]


def test_the_simulation_finds_nothing(tmp_path: Path) -> None:
    """The simulation as printed needs no grid, and no seed of it breaks a promise."""
    [code] = blocks("simulation")
    simulator = Reader(tmp_path)
    simulator.directory = ROOT
    ours = f"VENV={sys.prefix} --assume-old={sys.prefix}/.ready"  # nothing is installed where this test runs
    code = code.replace("make ", f"make {ours} ")
    assert "seeds, no violation" in simulator.shell(code)


def test_the_planner_finds_a_number_of_nodes(tmp_path: Path) -> None:
    """The plan as printed needs no grid, and names nodes, slots and what they hold."""
    [code] = blocks("planner")
    assert re.search(r"\d nodes in 1 groups, \d+ slots: 2,000 of 2,000 jobs end within", Reader(tmp_path).shell(code))


def test_every_setting_stands_in_the_example_file() -> None:
    """grid.yaml names every field of the settings, and loads."""
    from raygrid.settings.model import GridSettings, load_settings

    text = (ROOT / "grid.yaml").read_text(encoding="utf-8")

    def fields(model: type) -> Iterator[str]:
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            yield name
            for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if hasattr(inner, "model_fields"):
                    yield from fields(inner)

    missing = [name for name in fields(GridSettings) if not re.search(rf"\b{name}:", text)]
    assert missing == []
    assert set(load_settings(ROOT / "grid.yaml").pricers) == {"lines", "greet"}


def test_every_route_stands_in_the_readme() -> None:
    """Every route family of the interface is named in the README."""
    from raygrid.parent.http import job_routes

    modules = Path(job_routes.__file__).parent.glob("*routes.py")
    source = "".join(module.read_text(encoding="utf-8") for module in modules)
    families = set(re.findall(r'f?"/([a-z]+)[/"?]', source))
    missing = [family for family in sorted(families) if f"/{family}" not in README]
    assert missing == []


def test_the_settings_of_a_cluster_load(tmp_path: Path) -> None:
    """The example for clusters is valid, and safe to listen with."""
    from raygrid.settings.model import load_settings

    [block] = blocks("cluster settings")
    (tmp_path / "grid.yaml").write_text(block, encoding="utf-8")
    settings = load_settings(tmp_path / "grid.yaml")
    settings.require_safe_listening()
    assert settings.storage.database is not None
    assert settings.storage.blobs is not None


def test_the_settings_of_a_warm_pricer_load(tmp_path: Path) -> None:
    """The example for warm pricers is valid, and so is the one in their own description."""
    from raygrid.settings.model import load_settings

    description = (ROOT / "docs" / "guides" / "warm-pricers.md").read_text(encoding="utf-8")
    for block in (blocks("warm settings")[0], description.partition("```yaml\n")[2].partition("```")[0]):
        (tmp_path / "grid.yaml").write_text(block, encoding="utf-8")
        assert load_settings(tmp_path / "grid.yaml").pricers["quantlib"].mode == "warm"


def test_the_cluster_file_loads() -> None:
    """cluster.yaml passes Ray's own validation."""
    import yaml
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8")))
    validate_config(config)
    assert config["max_workers"] == len(config["provider"]["worker_ips"])
