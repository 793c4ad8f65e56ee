"""The fault simulation: it replays exactly, finds nothing in the code as it is, and finds every planted bug."""

from __future__ import annotations

import pytest

from raygrid.simulate.mutants import MUTANTS
from raygrid.simulate.pool import run_seeds
from raygrid.simulate.run import Outcome, run_seed

SEEDS = 60

# By mutant: the seed at which it falls, the first one where there is no entry, and what it violates.
FALLS: dict[str, tuple[int, str]] = {}


@pytest.fixture(scope="module")
def clean() -> list[Outcome]:
    return list(run_seeds(0, SEEDS, processes=2))


def test_nothing_is_violated(clean: list[Outcome]) -> None:
    """No seed shows the code to break its word."""
    assert [(each.seed, each.violation) for each in clean if each.violation] == []


def test_the_simulation_is_no_walk_in_the_park(clean: list[Outcome]) -> None:
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
    """Nothing is left of a run that the next one could notice."""
    first = run_seed(11)
    run_seed(12)
    assert run_seed(11) == first


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    """Each safeguard that is taken out of the code is missed by some invariant."""
    seed, invariant = FALLS[name]
    outcome = next(iter(run_seeds(seed, 1, mutant=name)))
    assert outcome.violation is not None, f"{name} was not found at seed {seed}; its first seed is another one now"
    assert outcome.violation.invariant == invariant
    assert outcome.trace[-1].endswith(f"{outcome.violation.invariant}: {outcome.violation.detail}")
