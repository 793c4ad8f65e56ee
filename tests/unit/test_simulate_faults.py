"""The fault simulation: it replays exactly, finds nothing in the unchanged code, and finds every planted bug."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest

from tests.simulation.mutants import MUTANTS, planted
from tests.simulation.pool import run_seeds
from tests.simulation.run import Outcome, run_seed

pytestmark = pytest.mark.computing

SEEDS = 50
HAVE_FOUND = (299, 1401, 1521, 1728)

WITHIN = 150  # seeds, within which every planted bug has to be found; most are at one of the first three

# The violations by which a planted bug may show.
SHOWN_BY: dict[str, set[str]] = {
    "no-term-check": {"no write of a stale term"},
    "no-term-check-on-nodes": {"nodes ignore old terms"},
    # An acknowledged job may not be there, or be another one.
    "answer-before-commit": {"acknowledged jobs are stored", "same jobId, same job"},
    "no-requeue": {"everything comes to its end"},
    "no-slot-limit": {"no more orders than slots"},
    "no-slot-limit-on-nodes": {"no more runs than slots"},
    "no-quota": {"no more orders than quota"},
    "share-kept-nodes": {"what met memory pressure runs alone"},
    "settle-before-commit": {"commit before settle"},
    "lead-beyond-lease": {"no lead beyond the lease"},
    "no-scan": {"everything comes to its end"},
    "ends-change": {"ends are final"},
    "any-input": {"same jobId, same job"},
    "retry-failures": {"commit before settle", "nothing runs twice without a fault"},
    "endless-attempts": {"attempts are bounded"},
    "run-what-is-configured": {"what was submitted is what runs"},
    "send-no-definitions": {"everything comes to its end"},
}


@pytest.fixture(scope="module")
def clean() -> list[Outcome]:
    return list(run_seeds(0, SEEDS, processes=2))


def test_nothing_is_violated(clean: list[Outcome]) -> None:
    """No seed breaks an invariant."""
    assert [(each.seed, each.violation) for each in clean if each.violation] == []


def test_the_simulation_has_faults(clean: list[Outcome]) -> None:
    """Faults strike, leaders change, jobs run more than once."""
    assert sum(each.faults for each in clean) > 3 * SEEDS
    assert sum(each.terms for each in clean) > 3 * SEEDS
    assert sum(each.runs for each in clean) > sum(each.jobs for each in clean) > 12 * SEEDS


def test_a_seed_replays_exactly_in_another_process(clean: list[Outcome]) -> None:
    """Every step is the same, whatever ran before in the process."""
    again = list(run_seeds(7, 6, processes=1))
    assert [each.digest for each in again] == [each.digest for each in clean[7:13]]
    assert len({each.digest for each in clean}) == SEEDS


def test_a_seed_replays_exactly_in_the_same_process() -> None:
    """A run leaves nothing that could change the next one."""
    first = run_seed(11)
    run_seed(12)
    assert run_seed(11) == first


@pytest.mark.parametrize("seed", HAVE_FOUND)
def test_a_seed_that_once_found_something_finds_nothing_any_more(seed: int) -> None:
    """Bugs that were fixed stay fixed."""
    assert run_seed(seed).violation is None


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    """For each safeguard that is taken out, an invariant breaks."""
    found = next((each for each in run_seeds(0, WITHIN, mutant=name, processes=1) if each.violation), None)
    assert found is not None, f"{name} was not found within {WITHIN} seeds"
    assert found.violation is not None
    assert found.violation.invariant in SHOWN_BY[name], found.violation
    assert found.trace[-1].endswith(f"VIOLATION {found.violation.invariant}: {found.violation.detail}")


def test_planted_bugs_are_removed_again() -> None:
    """A run with a bug leaves none behind in its process."""
    before = run_seed(3)
    with planted("answer-before-commit"):
        assert run_seed(3).violation is not None
    assert run_seed(3) == before


# --- the command ----------------------------------------------------------------------------------------------------


def simulate(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_prints_seeds_and_numbers(clean: list[Outcome]) -> None:
    """With --json it prints one object, from whose digest two runs can be compared, and exits with 0."""
    reported = simulate("--first-seed", "7", "--seeds", "6", "--json")
    assert reported.returncode == 0, reported.stderr
    answer = json.loads(reported.stdout)
    assert answer["violation"] is None
    assert (answer["first_seed"], answer["seeds"]) == (7, 6)
    assert answer["jobs"] == sum(each.jobs for each in clean[7:13])
    digests = "".join(each.digest for each in clean[7:13])
    assert answer["digest"] == hashlib.sha256(digests.encode()).hexdigest()


def test_the_command_shows_how_to_replay_a_violation() -> None:
    """It exits with 1, names seed and invariant, and ends its trace with the violation."""
    reported = simulate("--seeds", "20", "--mutant", "answer-before-commit")
    assert reported.returncode == 1
    [invariant] = [each for each in SHOWN_BY["answer-before-commit"] if f"violates: {each}" in reported.stderr]
    assert "make simulate SEEDS=1 FIRST_SEED=" in reported.stderr
    assert f"VIOLATION {invariant}" in reported.stdout.splitlines()[-1]


def test_an_unknown_mutant_is_refused() -> None:
    """The error lists the known ones."""
    reported = simulate("--mutant", "none-such")
    assert reported.returncode == 2
    assert "no-term-check" in reported.stderr
